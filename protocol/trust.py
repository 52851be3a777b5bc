"""Whose votes a stranger believes in which epoch: a root that is trusted, and the changes of the validator set that lead on from it.

The root is the genesis, or the header of a final block that somebody compared by its hash. One step a *change* of the set leads on;
between two changes the set is the same. What nobody who holds an old root can see is named in certificate_report.py. Source: rules C15-C19.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from protocol.block import Header, compute_header_hash
from protocol.codec import Codec, Message
from protocol.crypto import is_signature_valid
from protocol.errors import InvalidMessage, Rejection
from protocol.genesis import Genesis, compute_chain_id, compute_validator_set
from protocol.ordering.messages import QuorumCert, VoteKind
from protocol.ordering.votes import check_quorum_cert
from protocol.params import Params, compute_boundary, compute_epoch
from protocol.units import ChainId, Epoch, Hash, Height, Milliseconds, View
from protocol.validators import ValidatorSet, compute_validator_set_hash

MAX_STEP_BYTES: Final = 16 * 1024  # 100 validators: a header of 0.4 KiB, votes of 6.6 KiB, a table of 4.4 KiB


class ChainStep(Message, frozen=True):
    """One change of the validator set: an epoch's last block, what makes it final, and the set that votes from then on."""

    header: Header
    final_cert: QuorumCert
    validators: ValidatorSet  # of the next epoch


class TrustedHeader(Message, frozen=True):
    """A final block's header, to be compared by its hash with somebody who is trusted, and the set of its epoch."""

    header: Header
    validators: ValidatorSet
    final_cert: QuorumCert | None  # where the node that gave it had one of this very block


STEP_CODEC: Final = Codec[ChainStep](ChainStep, MAX_STEP_BYTES)


class RootKind(Enum):
    """What is taken for true without a proof."""

    GENESIS = "genesis"
    HEADER = "trusted header"


@dataclass(frozen=True, slots=True)
class Root:
    """Where trust begins; `hash` is the header's, the genesis' is the chain id. `next_hash` names the set of the next epoch."""

    kind: RootKind
    epoch: Epoch
    height: Height
    view: View
    time_ms: Milliseconds
    hash: Hash
    next_hash: Hash


@dataclass(frozen=True, slots=True)
class Era:
    """A validator set and the first epoch, as far as known, in which it votes."""

    epoch: Epoch
    validators: ValidatorSet
    valset_hash: Hash


@dataclass(frozen=True, slots=True)
class Trust:
    """What a stranger knows of a chain's validators: a root, and the eras that steps have led to from there."""

    genesis: Genesis
    chain: ChainId
    root: Root
    eras: tuple[Era, ...]  # ascending, the root's first
    tables: Mapping[
        Hash, ValidatorSet
    ]  # every set at hand: a set that a proven header names is known by its hash alone

    @property
    def params(self) -> Params:
        """The chain's constants."""
        return self.genesis.params

    @property
    def period_ms(self) -> Milliseconds:
        """How long after the root's time whoever signs another past is sure to lose its stake for it: as long as evidence counts."""
        return min(self.params.evidence_max_ms, self.params.unbonding_ms)

    @property
    def step_count(self) -> int:
        """How many changes of the set lead on from the root."""
        return len(self.eras) - 1

    @property
    def certain_epoch(self) -> Epoch:
        """The last epoch whose set is certain; of a later one it is only known that no step at hand changed it."""
        return self.eras[-1].epoch if self.step_count else self.root.epoch + 1


def trust_genesis(genesis: Genesis) -> Trust:
    """Trust in the genesis: its set is that of epochs 0 and 1."""
    validators, chain = compute_validator_set(genesis), compute_chain_id(genesis)
    valset_hash = compute_validator_set_hash(validators)
    root = Root(RootKind.GENESIS, 0, 0, 0, genesis.time_ms, chain, valset_hash)
    return Trust(genesis, chain, root, (Era(0, validators, valset_hash),), MappingProxyType({valset_hash: validators}))


def trust_header(genesis: Genesis, trusted: TrustedHeader) -> Trust:
    """Trust in a header whose hash somebody vouches for; the genesis gives the chain's constants.

    Raises: InvalidMessage(WRONG_CHAIN | BAD_HEIGHT | BAD_VALIDATORS | NO_QUORUM | BAD_SIGNATURE | …).
    """
    first, header = trust_genesis(genesis), trusted.header
    what = f"trusted header of height {header.height}"
    _check_place(first, header, what)
    _check_table(trusted.validators, header.valset_hash, what)
    era = Era(header.epoch, trusted.validators, header.valset_hash)
    block_hash = compute_header_hash(header)
    root = Root(
        RootKind.HEADER,
        header.epoch,
        header.height,
        header.view,
        header.time_ms,
        block_hash,
        header.next_valset_hash,
    )
    tables = MappingProxyType({**first.tables, era.valset_hash: era.validators})
    if trusted.final_cert is not None:
        check_final(first, header, trusted.final_cert, trusted.validators, what)
    return Trust(genesis, first.chain, root, (era,), tables)


def walk_steps(trust: Trust, steps: Sequence[ChainStep]) -> Trust:
    """The trust that these steps lead to. Those of epochs before the root's prove nothing; they only bring their tables.

    Every step's structure is judged before any signature. Raises: InvalidMessage(WRONG_CHAIN | BAD_HEIGHT | BAD_VALIDATORS |
    MISSING_STEPS | BAD_PARENT | NO_QUORUM | BAD_SIGNATURE | …).
    """
    for step in steps:
        _check_shape(trust, step)
    for earlier, later in pairwise(step.header for step in steps):
        _check_order(earlier, later)
    behind = [step for step in steps if step.header.epoch < trust.root.epoch]
    _check_behind(trust, behind)
    eras: list[Era] = list(trust.eras)
    ahead = steps[len(behind) :]
    for step in ahead:
        _check_change(trust, eras, step)
        eras.append(Era(step.header.epoch + 1, step.validators, step.header.next_valset_hash))
    for era, step in zip(eras[len(trust.eras) - 1 :], ahead, strict=False):
        check_final(trust, step.header, step.final_cert, era.validators, _name(step))  # C16
    tables = {step.header.next_valset_hash: step.validators for step in steps}
    return replace(trust, eras=tuple(eras), tables=MappingProxyType({**trust.tables, **tables}))


def make_step(
    header: Header, final_cert: QuorumCert, next_validators: ValidatorSet, params: Params
) -> ChainStep | None:
    """The step of a final block, if it is its epoch's last one and another set votes from then on."""
    if header.height != compute_boundary(params, header.epoch) or header.next_valset_hash == header.valset_hash:
        return None
    assert compute_validator_set_hash(next_validators) == header.next_valset_hash, header.height
    return ChainStep(header, final_cert, next_validators)


def find_validators(trust: Trust, epoch: Epoch, valset_hash: Hash) -> ValidatorSet:
    """The set that may sign in an epoch, which a header says has this hash.

    Raises: InvalidMessage(BEFORE_TRUST | BAD_VALIDATORS | MISSING_STEPS).
    """
    if epoch < trust.root.epoch:
        raise InvalidMessage(
            Rejection.BEFORE_TRUST, f"epoch {epoch} is before the trusted header's, which is {trust.root.epoch}"
        )
    return _match(trust, trust.eras, epoch, valset_hash).validators


def check_next(trust: Trust, header: Header) -> None:
    """Accepts a header that names no other set for the next epoch than is certain to vote then.

    Raises: InvalidMessage(BAD_VALIDATORS).
    """
    expected = header.next_valset_hash
    if header.epoch == trust.root.epoch:
        expected = trust.root.next_hash
    elif trust.root.epoch < header.epoch < trust.certain_epoch:
        expected = next(era for era in reversed(trust.eras) if era.epoch <= header.epoch + 1).valset_hash
    if header.next_valset_hash != expected:
        raise InvalidMessage(
            Rejection.BAD_VALIDATORS,
            f"block {header.height} names another set for epoch {header.epoch + 1} than votes then",
        )


def check_final(trust: Trust, header: Header, cert: QuorumCert, validators: ValidatorSet, what: str) -> None:
    """Accepts what makes exactly this block final: votes of more than two thirds of the weight.

    Votes name the block's own view. Only an epoch's last block is proposed again, so only its votes may name a later one.
    Raises: InvalidMessage(NO_QUORUM | OUT_OF_RANGE | MALFORMED | UNKNOWN_SIGNER | BAD_SIGNATURE).
    """
    if cert.kind is not VoteKind.FINAL or cert.block_hash != compute_header_hash(header):
        raise InvalidMessage(Rejection.NO_QUORUM, f"{what}: its certificate is no FinalCert of this block")
    is_boundary = header.height == compute_boundary(trust.params, header.epoch)
    if cert.view < header.view or (cert.view > header.view and not is_boundary):
        raise InvalidMessage(
            Rejection.OUT_OF_RANGE, f"{what}: expected votes of view {header.view}, got votes of view {cert.view}"
        )
    try:
        check_quorum_cert(cert, trust.chain, header.epoch, validators, is_signature_valid)
    except InvalidMessage as error:
        raise InvalidMessage(error.reason, f"{what}: {error}") from error


# --- one step


def _name(step: ChainStep) -> str:
    return f"step at the end of epoch {step.header.epoch}"


def _check_shape(trust: Trust, step: ChainStep) -> None:
    """What one step must be by itself."""
    header, what = step.header, _name(step)
    _check_place(trust, header, what)
    if header.height != compute_boundary(trust.params, header.epoch):
        raise InvalidMessage(
            Rejection.BAD_HEIGHT, f"{what}: height {header.height} is not the last one of epoch {header.epoch}"
        )
    if header.next_valset_hash == header.valset_hash:
        raise InvalidMessage(Rejection.BAD_VALIDATORS, f"{what}: the validator set does not change there")
    _check_table(step.validators, header.next_valset_hash, what)


def _check_place(trust: Trust, header: Header, what: str) -> None:
    if header.chain_id != trust.chain:
        raise InvalidMessage(
            Rejection.WRONG_CHAIN,
            f"{what}: it is of chain {header.chain_id.hex()[:12]}, the genesis given is of {trust.chain.hex()[:12]}",
        )
    epoch = compute_epoch(trust.params, header.height)
    if header.height == 0 or header.epoch != epoch:
        raise InvalidMessage(
            Rejection.BAD_HEIGHT, f"{what}: height {header.height} is not in epoch {header.epoch}, but in {epoch}"
        )


def _check_table(validators: ValidatorSet, expected: Hash, what: str) -> None:
    if compute_validator_set_hash(validators) != expected:
        raise InvalidMessage(Rejection.BAD_VALIDATORS, f"{what}: its validators are not those that the header names")
    if len({member.node for member in validators.members}) != len(validators.members):
        raise InvalidMessage(Rejection.BAD_VALIDATORS, f"{what}: a validator is in the set twice")


def _check_order(earlier: Header, later: Header) -> None:
    if later.epoch <= earlier.epoch or later.view <= earlier.view or later.time_ms <= earlier.time_ms:
        raise InvalidMessage(
            Rejection.BAD_HEIGHT,
            f"step at the end of epoch {later.epoch}: expected epochs, views and times to ascend, it follows epoch {earlier.epoch}",
        )


def _check_behind(trust: Trust, behind: Sequence[ChainStep]) -> None:
    """The steps before the root lead from set to set up to the root's: others are of another chain than the root."""
    if behind and trust.step_count:
        raise InvalidMessage(Rejection.BAD_HEIGHT, f"{_name(behind[0])}: later steps are known already")
    for earlier, later in pairwise(step.header for step in behind):
        _check_same(later, earlier.next_valset_hash)
    if behind and behind[-1].header.next_valset_hash != trust.eras[0].valset_hash:
        raise InvalidMessage(
            Rejection.BAD_VALIDATORS, f"{_name(behind[-1])}: it does not lead to the validators of the trusted header"
        )


def _check_same(header: Header, expected: Hash) -> None:
    if header.valset_hash != expected:
        raise InvalidMessage(
            Rejection.MISSING_STEPS,
            f"step at the end of epoch {header.epoch}: another set votes in that epoch than the steps before lead to; one was left out",
        )


def _check_change(trust: Trust, eras: Sequence[Era], step: ChainStep) -> None:
    """Whether a step follows on the eras so far."""
    header, root = step.header, trust.root
    if header.epoch < eras[-1].epoch:
        raise InvalidMessage(
            Rejection.BAD_HEIGHT, f"{_name(step)}: a step of that epoch or a later one is known already"
        )
    if header.height != root.height:
        if header.view <= root.view or header.time_ms <= root.time_ms:
            raise InvalidMessage(Rejection.BAD_HEIGHT, f"{_name(step)}: its view or time is not after the root's")
    elif compute_header_hash(header) != root.hash:
        raise InvalidMessage(Rejection.BAD_PARENT, f"{_name(step)}: it is another block than the trusted one there")
    _match(trust, eras, header.epoch, header.valset_hash)
    check_next(trust, header)


def _match(trust: Trust, eras: Sequence[Era], epoch: Epoch, valset_hash: Hash) -> Era:
    """The era of an epoch at or after the root's, if its set has this hash."""
    root, era = trust.root, next(era for era in reversed(eras) if era.epoch <= epoch)
    is_first = len(eras) == 1  # no step yet: the set of the root's next epoch is known by the hash in the root
    lacks_first = is_first and epoch > root.epoch and root.next_hash != era.valset_hash
    if era.valset_hash == valset_hash and not lacks_first:
        return era
    if lacks_first or epoch > (root.epoch + 1 if is_first else eras[-1].epoch):
        raise InvalidMessage(
            Rejection.MISSING_STEPS,
            f"epoch {epoch} has other validators than the {root.kind.value} and {len(eras) - 1} steps lead to",
        )
    raise InvalidMessage(Rejection.BAD_VALIDATORS, f"epoch {epoch} never had the validators that a header of it names")
