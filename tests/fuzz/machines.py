"""The machines that inputs are fed to: frozen states of ordering and of the ledger, made once, that a step never changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from msgspec.structs import replace as replace_fields

from protocol.ledger.draft import Ledger
from protocol.ordering.effects import CheckBlock, Effect, Halt, Misbehaviour
from protocol.ordering.events import (
    BlockChecked,
    BlockReceived,
    CertReceived,
    ProposalReceived,
    TimerFired,
    VoteReceived,
)
from protocol.ordering.simplex import step
from tests.protocol.builders import TestChain, make_payload, make_request, start_chain
from tests.protocol.offences import convict, report
from tests.protocol.ordering.rig import FINAL, NOTAR, NULL, Rig, hash_of, make_block, node_id, tip_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.block import Block, Header
    from protocol.ordering.events import Event
    from protocol.ordering.messages import Proposal, QuorumCert, Vote
    from protocol.ordering.state import SimplexState
    from protocol.transactions import SignedTransaction
    from protocol.units import JobId

Message: TypeAlias = "Vote | QuorumCert | Proposal | Block"

MAX_EFFECTS = 4_096  # of one message: a justification's thousand certificates and what each leads to


@dataclass(frozen=True)
class Machine:
    """A state of the ordering machine and its clock."""

    state: SimplexState
    now_ms: int


@cache
def list_machines() -> tuple[Machine, ...]:
    """Machines at a fresh start, in the middle of a view, and behind views that were skipped; each believing signatures, and not."""
    rigs = (Rig(), _rig_in_a_view(), _rig_behind_skips(), Rig(own=None))
    machines = [Machine(rig.state, rig.now_ms) for rig in rigs]
    return (*machines, *(replace(each, state=_make_credulous(each.state)) for each in machines))


def _rig_in_a_view() -> Rig:
    rig = Rig()
    first = make_block(1)
    rig.propose(first)
    rig.cert(NOTAR, 1, hash_of(first))
    rig.cert(FINAL, 1, hash_of(first))
    second = make_block(2, tip_of(first))
    rig.propose(second)
    rig.vote(NOTAR, 2, hash_of(second), signer=1)
    return rig


def _rig_behind_skips() -> Rig:
    rig = Rig(work=False)
    for view in (1, 2, 3):
        rig.cert(NULL, view)
    rig.cert(NOTAR, 6, b"\x22" * 32)
    return rig


def _make_credulous(state: SimplexState) -> SimplexState:
    """The same machine, to which every signature is good: what is behind the signatures is reached, too."""
    return replace_fields(state, context=replace(state.context, verify=lambda *_: True))


def feed(machine: Machine, events: list[Event]) -> str:
    """What a machine thinks of these events: whom it charged for what, or that it took them. Its application answers at once."""
    state, charges, waiting = machine.state, list[str](), list(events)
    answers = 0
    while waiting:
        state, effects = step(state, waiting.pop(0))
        assert len(effects) <= MAX_EFFECTS, len(effects)
        for effect in effects:
            if isinstance(effect, CheckBlock):
                answers += 1
                waiting.append(BlockChecked(machine.now_ms, effect.block_hash, answers % 2 == 1))
            charges += _name_charge(effect)
    return ", ".join(charges) or "taken"


def _name_charge(effect: Effect) -> list[str]:
    if isinstance(effect, Misbehaviour):
        return [f"charged {effect.reason.value}"]
    return ["halted"] if isinstance(effect, Halt) else []


def feed_pair(messages: Sequence[Message], content: bytes) -> str:
    """What two machines think of these messages, one after the other, and of the time that passes then.

    They are in the same state; one of them believes every signature. Which state it is follows from the input.
    """
    machines = list_machines()
    half = len(machines) // 2
    first = tell_apart(content, half)
    verdicts = [_feed_one(machines[index], messages) for index in (first, first + half)]
    return " / ".join(verdicts)


def _feed_one(machine: Machine, messages: Sequence[Message]) -> str:
    return feed(machine, [*(_event(machine, message) for message in messages), *_timers(machine)])


def _event(machine: Machine, message: Message) -> Event:
    kinds = {"Vote": VoteReceived, "QuorumCert": CertReceived, "Proposal": ProposalReceived, "Block": BlockReceived}
    return kinds[type(message).__name__](machine.now_ms, node_id(1), message)


def _timers(machine: Machine) -> list[Event]:
    return [
        TimerFired(at_ms, timer) for timer, at_ms in sorted(machine.state.deadlines.items(), key=lambda due: due[1])
    ]


# --- the ledger


@dataclass(frozen=True)
class Stage:
    """A state of the ledger, the header it is the state after, and the block that came next."""

    chain: TestChain
    ledger: Ledger
    header: Header
    block: Block


@cache
def list_stages() -> tuple[Stage, ...]:
    """A ledger before, during and after a job, with a conviction and units on their way out."""
    chain = start_chain()
    stages = [_advance(chain)]
    stages.append(_advance(chain, chain.transfer("other", "asker", 5), chain.ask()))
    job = chain.submit(make_request())
    stages += [_commit_half(chain, job), _reveal_half(chain, job)]
    stages.append(_advance(chain, report(chain, "v1", convict(chain, "v4"))))
    return tuple(stages)


def _advance(chain: TestChain, *signed: SignedTransaction) -> Stage:
    ledger, header = chain.ledger, chain.header
    chain.step(*signed)
    return Stage(chain.fork(), ledger, header, chain.blocks[-1])


def _commit_half(chain: TestChain, job: JobId) -> Stage:
    members = chain.members(job)
    return _advance(chain, *(chain.commit(job, node, make_payload()) for node in members))


def _reveal_half(chain: TestChain, job: JobId) -> Stage:
    return _advance(chain, chain.reveal(job, chain.members(job)[0], make_payload()))


def tell_apart(content: bytes, count: int) -> int:
    """Which of so many machines an input goes to: a function of the input alone."""
    return sum(content) % count
