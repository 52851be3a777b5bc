"""Small values with defaults, and a chain that one test drives block by block: every block is built, then checked from its bytes.

Keys, onions and salts come from names and counters, so every run is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING

from msgspec.structs import replace

from protocol.block import BLOCK_CODEC, Block, Header
from protocol.codec import encode
from protocol.crypto import SigningKey
from protocol.digest import Digest, DigestFamily
from protocol.genesis import Genesis, GenesisAccount, GenesisValidator
from protocol.jobs.beacon import Onion
from protocol.jobs.settlement import Phase, Settlement
from protocol.ledger.draft import Ledger
from protocol.ledger.epochs import get_epoch, get_validators
from protocol.ledger.queries import JobView, get_account, get_job, get_onion, list_duties
from protocol.ledger.state import BuildContext, BuiltBlock, build_block, check_block, create_genesis, get_onion_gap
from protocol.models import ModelCard, compute_model_id, greedy
from protocol.params import MINIMAL, UNIT, Params, compute_boundary
from protocol.transactions import (
    AgreementRule,
    Bond,
    Commit,
    JobRequest,
    RenewOnion,
    Reveal,
    RevealPayload,
    SignedTransaction,
    Submit,
    Transaction,
    Transfer,
    Unbond,
    author_of,
    compute_commitment,
    compute_transaction_id,
    sign_transaction,
)
from protocol.units import ZERO_HASH, Hash, JobId, NodeId
from protocol.validators import ValidatorSet, compute_validator_set_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

START_MS = 1_700_000_000_000
ONION_LAYERS = 4096
FOREVER = 2**40


def make_hash(name: str) -> Hash:
    """32 bytes that belong to a name."""
    return sha256(name.encode()).digest()


def make_key(name: str) -> SigningKey:
    """The key pair that belongs to a name."""
    return SigningKey(make_hash(f"key {name}"))


@cache
def make_onion(name: str, layers: int = ONION_LAYERS) -> Onion:
    """The onion that belongs to a name."""
    return Onion(make_hash(f"onion {name}"), layers, 64)


def make_card(name: str = "adder", **changes: object) -> ModelCard:
    """A text model's card."""
    card = ModelCard(
        name=name,
        manifest=make_hash(f"manifest {name}"),
        tokenizer=make_hash("tokenizer"),
        dtype="float32",
        family=DigestFamily.TEXT_MINHASH256,
        tolerance_bits=0,
        context_tokens=64,
        vocabulary=256,
        token_ms=10,
    )
    return replace(card, **changes)


def make_synthetic_card(tolerance_bits: int = 10) -> ModelCard:
    """A card whose outputs agree within a tolerance."""
    return make_card("synthetic", family=DigestFamily.SYNTHETIC64, tolerance_bits=tolerance_bits)


def make_genesis(
    validators: Sequence[str] = ("v0", "v1", "v2", "v3", "v4"),
    accounts: Sequence[str] = ("asker", "other"),
    cards: Sequence[ModelCard] = (make_card(),),
    params: Params = MINIMAL,
    stake: int = 100 * UNIT,
    balance: int = 1000 * UNIT,
    serves: Callable[[str], Sequence[ModelCard]] | None = None,
) -> Genesis:
    """A network of named validators that all serve all models, and named accounts."""
    served = (lambda _: cards) if serves is None else serves
    return Genesis(
        version=1,
        name="test",
        time_ms=START_MS,
        seed=make_hash("seed"),
        params=params,
        validators=tuple(
            GenesisValidator(
                make_key(name).public,
                stake,
                make_onion(name).tip,
                tuple(compute_model_id(card) for card in served(name)),
            )
            for name in validators
        ),
        accounts=tuple(
            GenesisAccount(make_key(name).public, balance) for name in dict.fromkeys((*accounts, *validators))
        ),
        models=tuple(cards),
    )


def make_request(card: ModelCard | None = None, **changes: object) -> JobRequest:
    """A question for three seats."""
    request = JobRequest(
        model=compute_model_id(card or make_card()),
        prompt=b"23+58=",
        settings=greedy(8),
        rule=AgreementRule.MAJORITY,
        seats=3,
        fee=30_000,
        commit_ms=4_000,
        reveal_ms=2_000,
    )
    return replace(request, **changes)


def make_payload(
    answer: str = "81", *, family: DigestFamily = DigestFamily.TEXT_MINHASH256, bits: bytes | None = None
) -> RevealPayload:
    """What a member says that answered this."""
    made = sha256(f"digest {answer}".encode()).digest() if bits is None else bits
    digest = Digest(family, made if family is DigestFamily.TEXT_MINHASH256 else made[:8])
    return RevealPayload(False, make_hash(f"output {answer}"), digest, ZERO_HASH, 1_000_000)


ABSTENTION = RevealPayload(True, ZERO_HASH, None, ZERO_HASH, 0)


@dataclass
class TestChain:
    """A chain whose leaders are all at hand."""

    __test__ = False

    genesis: Genesis
    names: dict[NodeId, str]
    ledger: Ledger
    header: Header
    blocks: list[Block] = field(default_factory=list)
    sets: dict[Hash, ValidatorSet] = field(default_factory=dict)  # every set that a header names, by its hash

    # --- blocks

    def context(self, candidates: Sequence[bytes] = (), *, after_ms: int = 50, skip: int = 0) -> BuildContext:
        """What the leader of the next view (but `skip`) brings."""
        view = self.header.view + 1 + skip
        proposer, gap, tip = get_onion_gap(self.ledger, self.header, view)
        onion = self.get_onion(proposer)
        time_ms, reveal = self.header.time_ms + after_ms, _find_reveal(onion, tip, gap)
        return BuildContext(get_epoch(self.ledger), view, proposer, time_ms, reveal, candidates)

    @property
    def validators(self) -> ValidatorSet:
        """Who votes on the next block."""
        return get_validators(self.ledger, get_epoch(self.ledger))

    def get_onion(self, proposer: int) -> Onion:
        """The onion that a validator reveals now."""
        node = self.validators.members[proposer].node
        stored = get_onion(self.ledger, node)
        assert stored is not None
        return make_onion(f"{self.names[node]} {stored.renewals}" if stored.renewals else self.names[node])

    def build(self, candidates: Sequence[bytes] = (), *, after_ms: int = 50, skip: int = 0) -> BuiltBlock:
        """The next block, not taken."""
        return build_block(self.ledger, self.header, self.context(candidates, after_ms=after_ms, skip=skip))

    def take(self, block: Block) -> None:
        """Go on from this block, as a node that got its bytes."""
        block = BLOCK_CODEC.decode(encode(block))
        self.ledger = check_block(self.ledger, self.header, block)
        self.header = block.header
        self.blocks.append(block)
        for epoch in (get_epoch(self.ledger), get_epoch(self.ledger) + 1):
            following = get_validators(self.ledger, epoch)
            self.sets[compute_validator_set_hash(following)] = following

    def step(self, *signed: SignedTransaction, after_ms: int = 50, skip: int = 0) -> BuiltBlock:
        """Build the next block of these, which must all be valid, and go on from it."""
        built = self.build([encode(each) for each in signed], after_ms=after_ms, skip=skip)
        assert len(built.block.body) == len(signed), [describe(each) for each in signed]
        self.take(built.block)
        assert self.ledger.state_root == built.ledger.state_root
        return built

    def run(self, blocks: int, after_ms: int = 50) -> None:
        """Empty blocks."""
        for _ in range(blocks):
            self.step(after_ms=after_ms)

    def finish_epoch(self, epochs: int = 1, *, absent: Sequence[str] = (), after_ms: int = 50) -> None:
        """Empty blocks up to and with a boundary, the next block's epoch's the first; the named validators propose nothing."""
        boundary = compute_boundary(self.genesis.params, get_epoch(self.ledger) + epochs - 1)
        while self.header.height < boundary:
            self.step(after_ms=after_ms, skip=self.count_passed(absent))

    def count_passed(self, absent: Sequence[str]) -> int:
        """How many of the next views have leaders among these, before one that has not."""
        return next(skip for skip in count() if self.get_leader(self.header.view + 1 + skip) not in absent)

    def get_leader(self, view: int) -> str:
        """The name of a view's leader, in the next block's epoch."""
        return self.names[self.validators.members[get_onion_gap(self.ledger, self.header, view)[0]].node]

    # --- transactions

    def sign(self, name: str, body: Transaction) -> SignedTransaction:
        """The transaction signed by a named node."""
        return sign_transaction(make_key(name), self.ledger.constants.chain_id, body)

    def next_nonce(self, name: str) -> int:
        """The next nonce of a named node."""
        return get_account(self.ledger, make_key(name).public).nonce + 1

    def transfer(self, sender: str, recipient: str, amount: int, *, nonce: int | None = None) -> SignedTransaction:
        """A signed transfer."""
        body = Transfer(
            make_key(sender).public, nonce or self.next_nonce(sender), FOREVER, make_key(recipient).public, amount
        )
        return self.sign(sender, body)

    def bond(self, name: str, amount: int) -> SignedTransaction:
        """A signed Bond."""
        return self.sign(name, Bond(make_key(name).public, self.next_nonce(name), FOREVER, amount))

    def unbond(self, name: str, amount: int) -> SignedTransaction:
        """A signed Unbond."""
        return self.sign(name, Unbond(make_key(name).public, self.next_nonce(name), FOREVER, amount))

    def renew(self, name: str) -> SignedTransaction:
        """A signed RenewOnion of a node's next onion."""
        node = make_key(name).public
        stored = get_onion(self.ledger, node)
        renewal = 1 if stored is None else stored.renewals + 1
        tip = make_onion(f"{name} {renewal}").tip
        return self.sign(name, RenewOnion(node, self.next_nonce(name), FOREVER, tip, renewal))

    def ask(self, request: JobRequest | None = None, *, sender: str = "asker") -> SignedTransaction:
        """A signed Submit."""
        body = Submit(make_key(sender).public, self.next_nonce(sender), FOREVER, request or make_request())
        return self.sign(sender, body)

    def commit(self, job: JobId, node: NodeId, payload: RevealPayload) -> SignedTransaction:
        """A member's signed Commit to a payload."""
        commitment = compute_commitment(self.ledger.constants.chain_id, job, node, payload, make_salt(job, node))
        return self.sign(self.names[node], Commit(node, job, commitment))

    def reveal(self, job: JobId, node: NodeId, payload: RevealPayload) -> SignedTransaction:
        """A member's signed Reveal of it."""
        return self.sign(self.names[node], Reveal(node, job, payload, make_salt(job, node)))

    # --- jobs

    def view(self, job: JobId) -> JobView:
        """The job as queries show it."""
        view = get_job(self.ledger, job)
        assert view is not None
        return view

    def submit(self, request: JobRequest | None = None) -> JobId:
        """Ask, and go on to the block that draws the committee."""
        signed = self.ask(request)
        job = compute_transaction_id(signed.body)
        self.step(signed)
        for _ in range(self.genesis.params.beacon_max_blocks):
            if self.view(job).phase is not Phase.SUBMITTED:
                break
            self.step()
        return job

    def due(self, job: JobId) -> tuple[NodeId, ...]:
        """Who owes something for this job now, ascending."""
        return tuple(
            sorted(node for node in self.names if any(duty.job == job for duty in list_duties(self.ledger, node)))
        )

    def commit_all(self, job: JobId, answers: Mapping[NodeId, RevealPayload]) -> None:
        """One block with the commits of these members."""
        self.step(*(self.commit(job, node, payload) for node, payload in answers.items()))

    def reveal_all(self, job: JobId, answers: Mapping[NodeId, RevealPayload]) -> None:
        """One block with the reveals of these members."""
        self.step(*(self.reveal(job, node, payload) for node, payload in answers.items()))

    def members(self, job: JobId) -> tuple[NodeId, ...]:
        """The holders of the seats, each once, in the order of the seats."""
        return tuple(dict.fromkeys(seat.member for seat in self.view(job).seats if seat.member is not None))

    def close_window(self, job: JobId, *, half: bool = False) -> None:
        """Empty blocks until the running window (its half) is over by time and by heights."""
        before = self.view(job)
        heights = self.genesis.params.min_phase_heights // (2 if half else 1)
        assert before.window_ends_ms is not None
        window_ms = before.request.commit_ms if before.phase is Phase.COMMITTING else before.request.reveal_ms
        end_ms = before.window_ends_ms - (window_ms - window_ms // 2 if half else 0)
        self.run(max(0, heights - 1))
        self.step(after_ms=max(50, end_ms - self.header.time_ms))

    def settle(
        self, request: JobRequest | None = None, answers: Callable[[int], RevealPayload] = lambda _: make_payload()
    ) -> Settlement:
        """A whole job in which every member takes part: `answers` maps a seat's index to what its holder says."""
        job = self.submit(request)
        said = {node: answers(index) for index, node in enumerate(self.members(job))}
        self.commit_all(job, said)
        self.reveal_all(job, said)
        settlement = self.view(job).settlement
        assert settlement is not None
        return settlement

    def fork(self) -> TestChain:
        """Another chain on the same tip."""
        return TestChain(self.genesis, self.names, self.ledger, self.header, list(self.blocks), dict(self.sets))


def describe(signed: SignedTransaction) -> str:
    """For failing asserts."""
    return f"{type(signed.body).__name__} by {author_of(signed.body).hex()[:8]}"


def make_salt(job: JobId, node: NodeId) -> Hash:
    """A member's salt for a job."""
    return sha256(b"salt" + job + node).digest()


def start_chain(
    genesis: Genesis | None = None, names: Iterable[str] = ("v0", "v1", "v2", "v3", "v4", "asker", "other")
) -> TestChain:
    """A chain at its genesis; `names` are all whose keys are at hand."""
    genesis = genesis or make_genesis()
    ledger, header = create_genesis(genesis)
    by_node = {make_key(name).public: name for name in names}
    return TestChain(genesis, by_node, ledger, header)


def _find_reveal(onion: Onion, tip: Hash, gap: int) -> Hash:
    known = _SLOTS.setdefault(onion.tip, {onion.tip: 0})
    slot = known[tip] + gap
    reveal = onion.reveal(slot)
    known[reveal] = slot
    return reveal


_SLOTS: dict[Hash, dict[Hash, int]] = {}
