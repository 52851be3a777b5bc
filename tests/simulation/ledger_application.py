"""The real ledger as the simulator's application: blocks, states, members and certificates of one node, on a disk that survives crashes."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from protocol.block import Block, Header, compute_header_hash
from protocol.certificate_build import CertificateParts, build_certificate
from protocol.errors import InvalidBlock
from protocol.jobs.agreement import Decision
from protocol.jobs.settlement import SETTLEMENT_CODEC, Settlement
from protocol.ledger.draft import Ledger, changed_entries, ledger_from_entries
from protocol.ledger.entries import ONION_CODEC, Kind, onion_key
from protocol.ledger.epochs import get_epoch, get_epoch_terms
from protocol.ledger.queries import get_candidates, get_settlement, list_models, prove_settlement
from protocol.ledger.state import BuildContext, build_block, check_block, get_onion_gap, has_work
from protocol.ordering.state import Tip, make_tip
from protocol.params import compute_boundary
from protocol.transactions import (
    TRANSACTION_CODEC,
    Reveal,
    SignedTransaction,
    Submit,
    Transaction,
    compute_transaction_id,
)
from protocol.trust import ChainStep, make_step
from tests.simulation.ledger_pool import Pool
from tests.simulation.ledger_town import Town, get_onion
from tests.simulation.stakes import Terms

if TYPE_CHECKING:
    from protocol.models import Output
    from protocol.ordering.effects import BuildBlock
    from protocol.ordering.messages import QuorumCert
    from protocol.units import Hash, JobId
    from tests.simulation.ledger_members import Member


@dataclass(frozen=True, slots=True)
class Executed:
    """A block and the state after it; the genesis has no block."""

    header: Header
    hash: Hash
    ledger: Ledger
    block: Block | None


class LedgerApplication:
    """One node's ledger. `is_watched` is false where the node stands for somebody Byzantine."""

    is_watched = True

    def __init__(self, town: Town, own: int, members: tuple[Member, ...]) -> None:
        self.town = town
        self.own = own
        self.members = members
        self.now_ms = 0
        start = compute_header_hash(town.header)
        self.genesis: Final[Tip] = make_tip(start, town.header)
        self.final = Executed(town.header, start, town.ledger, None)
        self.executed = {start: self.final}
        self.stored = self.final
        self.unstored: list[Executed] = []
        self.steps: list[ChainStep] = []  # of the changes of the validator set
        self.pool = Pool(town.verified)
        self.before = (
            town.ledger
        )  # the state before the last certified block: a snapshot that a block forgets is still in it
        self.uncertified: list[Executed] = []
        self.disk = dict(town.ledger.entries)  # durable, like the next three
        self.included: set[Hash] = set()
        self.settled: dict[JobId, Settlement] = {}
        self.certificates: dict[JobId, bytes] = {}

    # --- what ordering asks

    def build(self, request: BuildBlock, now_ms: int) -> Block | None:
        base = self.executed[request.parent_hash]
        proposer, gap, _ = get_onion_gap(base.ledger, base.header, request.view)
        leader = get_epoch_terms(base.ledger).validators.members[proposer].node
        stored = ONION_CODEC.decode(base.ledger.entries[onion_key(leader)])
        onion, slot = get_onion(f"v{self.own}"), stored.tip_slot + gap
        if not onion.has_slot(slot):
            return None
        context = BuildContext(
            epoch=get_epoch(base.ledger),
            view=request.view,
            proposer=proposer,
            time_ms=max(now_ms, request.not_before_ms),
            beacon_reveal=onion.reveal(slot),
            candidates=self._list_candidates(),
        )
        built = build_block(base.ledger, base.header, context, verified=self.town.verified)
        self._keep(compute_header_hash(built.block.header), built.block, built.ledger)
        return built.block

    def check(self, block_hash: Hash, block: Block) -> bool:
        base = self.executed[block.header.parent_hash]
        try:
            ledger = check_block(base.ledger, base.header, block, verified=self.town.verified)
        except InvalidBlock:
            return False
        self._keep(block_hash, block, ledger)
        return True

    def commit(self, block_hashes: tuple[Hash, ...]) -> None:
        for block_hash in block_hashes:
            executed = self.executed[block_hash]
            assert executed.block is not None and executed.header.parent_hash == self.final.hash, executed.header
            self.final = executed
            self.unstored.append(executed)
            self.uncertified.append(executed)

    def get_terms(self) -> Terms:
        terms = get_epoch_terms(self.final.ledger)
        return Terms(terms.epoch, terms.validators, terms.seed, compute_boundary(self.town.genesis.params, terms.epoch))

    def store(self) -> None:
        if not self.unstored:
            return
        for executed in self.unstored:
            assert executed.block is not None, executed.header
            self._store(executed, executed.block)
        self.stored, self.unstored = self.final, []
        height = self.final.header.height
        above = {key: entry for key, entry in self.executed.items() if entry.header.height > height}
        self.executed = {self.final.hash: self.final, **above}

    def forget(self) -> None:
        ledger = ledger_from_entries(self.town.genesis, self.disk)
        stored = self.stored
        assert ledger.state_root == stored.header.state_root, stored.header.height
        self.final = self.stored = Executed(stored.header, stored.hash, ledger, None)
        self.unstored, self.uncertified = [], []
        self.steps = [step for step in self.steps if step.header.height <= stored.header.height]
        self.executed = {self.final.hash: self.final}
        self.before = ledger
        self.pool = Pool(self.town.verified)
        for member in self.members:
            member.generating.clear()

    def submit(self, transaction: bytes) -> None:
        self.receive(transaction, is_own=True)

    def has_work(self) -> bool:
        return self.has_work_on(self.final, self.now_ms)[0]

    # --- what the node asks

    def receive(self, encoded: bytes, *, is_own: bool = False) -> bool:
        """Whether this transaction is new here, and waits from now on."""
        body = self.pool.add(self.final.ledger, encoded, self.now_ms, is_own=is_own)
        if isinstance(body, Reveal):
            for member in self.members:
                if body.member != member.node:
                    member.heard.setdefault(body.job, body)
        return body is not None

    def has_work_on(self, parent: Executed, now_ms: int) -> tuple[bool, int | None]:
        """Whether a leader should propose on this block at once, and when to look again (protocol.md section 2)."""
        work = has_work(parent.ledger, now_ms)
        return work.due or self.pool.has_includable(parent.hash, parent.ledger), work.next_ms

    def list_owed(self) -> list[bytes]:
        """This node's own transactions that are due on its final state and do not wait yet."""
        owed: list[bytes] = []
        for member in self.members:
            for body in member.list_owed(self.final.ledger):
                if compute_transaction_id(body) not in self.pool.waiting:
                    owed.append(self.town.sign(member.key, body))
        return owed

    def certify(self, blocks: list[Block], cert: QuorumCert) -> None:
        """Builds and keeps the certificates of everything that has settled in the blocks that this FinalCert made final."""
        for executed in self.uncertified:
            for job in list_settled(executed.ledger):
                settlement = get_settlement(executed.ledger, job)
                assert settlement is not None, job.hex()
                self.settled[job] = settlement
                self.certificates[job] = self._build_certificate(job, executed, blocks, cert)
                if self.is_watched:
                    self.town.see_settlement(job, settlement)
            self.before = executed.ledger
        self.uncertified = []
        last = self.final
        step = make_step(last.header, cert, get_epoch_terms(last.ledger).validators, self.town.genesis.params)
        self.steps += () if step is None else (step,)

    # --- inside

    def _list_candidates(self) -> list[bytes]:
        return self.pool.list_candidates()

    def _keep(self, block_hash: Hash, block: Block, ledger: Ledger) -> None:
        self.executed[block_hash] = Executed(block.header, block_hash, ledger, block)

    def _store(self, executed: Executed, block: Block) -> None:
        for key, value in changed_entries(executed.ledger).items():
            if value is None:
                del self.disk[key]
            else:
                self.disk[key] = value
        bodies: list[Transaction] = [TRANSACTION_CODEC.decode(encoded).body for encoded in block.body]
        included = {compute_transaction_id(body) for body in bodies}
        self.included |= included
        self.pool.drop(executed.ledger, included, self.now_ms)
        if self.is_watched:
            self.town.see_state(executed.header, executed.ledger, bodies)

    def _build_certificate(self, job: JobId, executed: Executed, blocks: list[Block], cert: QuorumCert) -> bytes:
        proved = prove_settlement(executed.ledger, job)
        assert proved is not None, job.hex()
        encoded, proof = proved
        settlement = SETTLEMENT_CODEC.decode(encoded)
        height = settlement.submit_height
        submit = next(signed for signed in read(blocks[height - 1]) if compute_transaction_id(signed.body) == job)
        assert isinstance(submit.body, Submit), job.hex()
        snapshot = get_candidates(executed.ledger, settlement.snapshot_height) or get_candidates(
            self.before, settlement.snapshot_height
        )
        assert snapshot is not None, settlement.snapshot_height
        heights = {place for seat in settlement.seats for place in (seat.commit_height, seat.reveal_height)} - {0}
        parts = CertificateParts(
            genesis=self.town.genesis,
            submit=submit,
            card=list_models(executed.ledger)[submit.body.job.model],
            waiting=tuple(block.header for block in blocks[height - 1 : settlement.maturity_height]),
            candidates=snapshot.candidates,
            transactions=tuple(signed for place in sorted(heights) for signed in read(blocks[place - 1])),
            settled=tuple(block.header for block in blocks[settlement.settle_height - 1 :]),
            settlement=encoded,
            settlement_proof=proof,
            final=cert,
        )
        return build_certificate(parts, self._find_output(settlement))

    def _find_output(self, settlement: Settlement) -> Output | None:
        """The winning output, where a member of this node made it."""
        for member in self.members:
            kept = member.answers.get(settlement.job)
            if (
                settlement.decision is Decision.ACCEPTED
                and kept is not None
                and kept.payload.output_hash == settlement.winner_hash
            ):
                return kept.output
        return None


class EquivocatingLedger(LedgerApplication):
    """Remembers every state and never builds the same block twice, so that its owner can lead with conflicting ones."""

    is_watched = False

    def __init__(self, town: Town, own: int, members: tuple[Member, ...], random: Random) -> None:
        super().__init__(town, own, members)
        self.random = random
        self.blocks: dict[Hash, Block] = {}
        self.remembered = dict(self.executed)

    @property
    def states(self) -> dict[Hash, Executed]:
        """Every block it can build on."""
        return self.remembered

    def build(self, request: BuildBlock, now_ms: int) -> Block | None:
        self.executed = self.remembered
        return super().build(request, now_ms + self.random.randrange(40))

    def check(self, block_hash: Hash, block: Block) -> bool:
        self.executed = self.remembered
        return super().check(block_hash, block)

    def commit(self, block_hashes: tuple[Hash, ...]) -> None:
        self.executed = self.remembered
        super().commit(block_hashes)
        self.executed = self.remembered

    def store(self) -> None:
        self.executed = self.remembered
        super().store()
        self.executed = self.remembered

    def forget(self) -> None:
        """Never."""

    def _list_candidates(self) -> list[bytes]:
        return [encoded for encoded in super()._list_candidates() if self.random.randrange(3)]

    def _keep(self, block_hash: Hash, block: Block, ledger: Ledger) -> None:
        super()._keep(block_hash, block, ledger)
        self.blocks[block_hash] = block


def read(block: Block) -> list[SignedTransaction]:
    """A block's transactions."""
    return [TRANSACTION_CODEC.decode(encoded) for encoded in block.body]


def list_settled(ledger: Ledger) -> tuple[JobId, ...]:
    """The jobs that the block behind this state settled."""
    changed = changed_entries(ledger).items()
    return tuple(key[1:] for key, value in changed if key[0] == Kind.SETTLEMENT and value is not None)
