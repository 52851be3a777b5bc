"""One value of every message type and of every hash, from fixed bytes: what the pinned vectors are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from protocol.block import BLOCK_CODEC, Block, Header, compute_header_hash, compute_transactions_root
from protocol.certificate_format import Certificate, Opened, Unopened
from protocol.certificate_headers import compress_headers
from protocol.chain_file import ChainFile
from protocol.codec import Codec, Message, encode
from protocol.crypto import SigningKey
from protocol.digest import Digest, DigestFamily
from protocol.evidence import EVIDENCE_CODEC, Evidence, EvidenceKind
from protocol.genesis import GENESIS_CODEC, Genesis, GenesisAccount, GenesisValidator, compute_chain_id
from protocol.jobs.agreement import Decision
from protocol.jobs.beacon import Onion, compute_beacon, compute_onion_layer
from protocol.jobs.committee import (
    Candidate,
    CandidatePath,
    compute_candidates_root,
    compute_model_root,
    compute_ticket,
    draw,
    prove_candidate,
)
from protocol.jobs.reputation import NEW_RECORD, RECORD_CODEC, Record, apply_seat_missed
from protocol.jobs.settlement import (
    JOB_CODEC,
    SETTLEMENT_CODEC,
    Drawn,
    Entry,
    Job,
    Payment,
    Phase,
    Seat,
    SeatEnd,
    SettledSeat,
    Settlement,
    compute_reveal_set_hash,
    compute_sampling_seed,
)
from protocol.ledger import entries
from protocol.merkle import (
    ExclusionProof,
    MerkleTree,
    compute_leaf,
    compute_root,
    compute_value_hash,
)
from protocol.merkle_range import RangeProof
from protocol.models import (
    OUTPUT_CODEC,
    GenerationSettings,
    ImageOutput,
    ModelCard,
    SamplingKind,
    StopReason,
    TextOutput,
    compute_model_id,
    compute_output_hash,
    greedy,
)
from protocol.ordering.messages import (
    PROPOSAL_CODEC,
    QUORUM_CERT_CODEC,
    VOTE_CODEC,
    Justification,
    Proposal,
    QuorumCert,
    Vote,
    VoteKind,
    compute_justification_hash,
)
from protocol.params import DEVNET, INTERNET, MINIMAL
from protocol.transactions import (
    TRANSACTION_CODEC,
    AgreementRule,
    Bond,
    Commit,
    JobRequest,
    RegisterModel,
    RenewOnion,
    Report,
    Reveal,
    RevealPayload,
    Serve,
    Submit,
    Transfer,
    Unbond,
    Unjail,
    Withdraw,
    compute_commitment,
    compute_transaction_id,
    sign_transaction,
)
from protocol.trust import STEP_CODEC, ChainStep, TrustedHeader
from protocol.validators import Validator, ValidatorSet, compute_leader, compute_validator_set_hash
from protocol.voting import SignedProposal, proposal_signing_bytes, vote_signing_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    codec: Codec[Any]
    message: Message


def fill(letter: str, size: int = 32) -> bytes:
    return letter.encode() * size


KEY = SigningKey(bytes(range(32)))
MEMBER, JOB, CHAIN = KEY.public, fill("j"), fill("c")
CARD = ModelCard("arith-s", fill("m"), fill("t"), "float32", DigestFamily.TEXT_MINHASH256, 0, 32, 64, 50)
MODEL = compute_model_id(CARD)
SETTINGS = GenerationSettings(SamplingKind.SAMPLE, 1, 700_000, 900_000, 16)
REQUEST = JobRequest(MODEL, b"23+58=", SETTINGS, AgreementRule.REPUTATION, 5, 50_000, 10_800, 60_000)
OUTPUT = TextOutput(MODEL, (8, 1, 300), "81", StopReason.END)
PICTURE = ImageOutput(MODEL, 2, 3, 1, bytes((0, 255, 128, 1, 2, 3)))
DIGEST = Digest(DigestFamily.SYNTHETIC64, fill("d", 8))
PAYLOAD = RevealPayload(False, compute_output_hash(OUTPUT), DIGEST, fill("k"), 900_000)
ABSTAINED = RevealPayload(True, bytes(32), None, bytes(32), 0)
SALT = fill("s")
COMMITMENT = compute_commitment(CHAIN, JOB, MEMBER, PAYLOAD, SALT)
TWO_VOTES = tuple(Vote(VoteKind.NOTAR, 0, 300, fill(letter), 2, fill(letter, 64)) for letter in "hH")
EVIDENCE = Evidence(EvidenceKind.TWO_NOTAR, 0, 300, 2, None, (TWO_VOTES[0], TWO_VOTES[1]))
BODIES = (
    Transfer(MEMBER, 1, 1000, fill("r"), 250_000),
    Bond(MEMBER, 2, 1000, 5_000_000),
    Serve(MEMBER, 3, 1000, MODEL),
    RegisterModel(MEMBER, 4, 1000, CARD),
    Submit(MEMBER, 5, 1000, REQUEST),
    Commit(MEMBER, JOB, COMMITMENT),
    Reveal(MEMBER, JOB, PAYLOAD, SALT),
    Unbond(MEMBER, 6, 1000, 2_000_000),
    Withdraw(MEMBER, 7, 1000, MODEL),
    Report(MEMBER, EVIDENCE),
    RenewOnion(MEMBER, 8, 1000, fill("n"), 2),
    Unjail(MEMBER, 9, 1000),
)
SIGNED = tuple(sign_transaction(KEY, CHAIN, body) for body in BODIES)
VALIDATORS = ValidatorSet((Validator(MEMBER, 30), Validator(fill("v"), 20), Validator(fill("w"), 2**53)))
HEADER = Header(
    chain_id=CHAIN,
    epoch=0,
    leader_seed=fill("s"),
    view=300,
    height=200,
    parent_view=298,
    parent_hash=fill("p"),
    tx_root=compute_transactions_root(tuple(encode(each) for each in SIGNED)),
    state_root=fill("S"),
    valset_hash=compute_validator_set_hash(VALIDATORS),
    next_valset_hash=compute_validator_set_hash(VALIDATORS),
    candidates_root=fill("C"),
    beacon_reveal=fill("R"),
    beacon=compute_beacon(fill("b"), fill("R")),
    time_ms=1_800_000_000_000,
)
BLOCK = Block(HEADER, tuple(encode(each) for each in SIGNED))
NOTAR = VoteKind.NOTAR
CERT = QuorumCert(NOTAR, 0, 298, fill("p"), (0, 2), (fill("x", 64), fill("y", 64)))
SKIPPED = QuorumCert(VoteKind.NULL, 0, 299, bytes(32), (1, 2), (fill("x", 64), fill("y", 64)))
JUSTIFICATION = Justification(CERT, (SKIPPED,))
GENESIS = Genesis(
    version=1,
    name="vectors",
    time_ms=1_800_000_000_000,
    seed=fill("g"),
    params=MINIMAL,
    validators=(GenesisValidator(MEMBER, 10_000_000, fill("o"), (MODEL,)),),
    accounts=(GenesisAccount(MEMBER, 1_000_000_000),),
    models=(CARD,),
)
CANDIDATES = tuple(
    Candidate(fill(letter), stake, stake >> 4, stake >> 1)
    for letter, stake in zip("abcde", (16, 300, 70_000, 32, 2**40), strict=True)
)
ENTRIES = tuple((fill(letter, 3), fill(letter.upper(), number)) for number, letter in enumerate("abcdefg"))
TREE = MerkleTree.build(ENTRIES)
DRAWN = Drawn(203, 305, fill("P"), fill("R"), compute_sampling_seed(fill("R"), JOB), (fill("e"),), (fill("b"),))
ENTRY = Entry(MEMBER, COMMITMENT, fill("i"), 205, PAYLOAD, fill("I"), 208)
SETTLED_SEAT = SettledSeat(fill("a"), MEMBER, SeatEnd.WINNING, 205, 208)
SETTLEMENT = Settlement(
    job=JOB,
    submit_height=200,
    snapshot_height=192,
    candidates_root=fill("C"),
    maturity_height=203,
    maturity_view=305,
    maturity_parent=fill("P"),
    beacon=fill("R"),
    seats=(SETTLED_SEAT, SettledSeat(None, None, SeatEnd.EMPTY, 0, 0)),
    skipped=(fill("e"),),
    decision=Decision.ACCEPTED,
    winner_hash=PAYLOAD.output_hash,
    agreement_ppm=600_000,
    entropy_millibits=918,
    reveal_set=compute_reveal_set_hash((fill("i"), fill("I"))),
    payments=(Payment(MEMBER, 10_000),),
    forfeits=(Payment(fill("f"), 100_000),),
    refund=0,
    burned=40_000,
    settle_height=208,
)


def list_samples() -> list[Sample]:
    """Every message type that is signed, hashed, stored in the state or proved."""
    return [
        *_list_models(),
        *_list_transactions(),
        *_list_ordering(),
        *_list_jobs(),
        *_list_state(),
        *_list_certificate(),
        *_list_trust(),
    ]


def _plain(message: Message, name: str = "") -> Sample:
    kind = type(message)
    return Sample(name or kind.__name__, Codec(kind, LIMIT), message)


def _list_models() -> Iterator[Sample]:
    yield _plain(SETTINGS)
    yield _plain(greedy(16), "GenerationSettings greedy")
    yield _plain(CARD)
    yield _plain(DIGEST)
    yield Sample("Output", OUTPUT_CODEC, OUTPUT)
    yield Sample("Output with a picture", OUTPUT_CODEC, PICTURE)
    for name, params in (("internet", INTERNET), ("devnet", DEVNET), ("minimal", MINIMAL)):
        yield _plain(params, f"Params {name}")
    yield _plain(VALIDATORS.members[0])
    yield _plain(VALIDATORS)
    yield _plain(GENESIS.validators[0])
    yield _plain(GENESIS.accounts[0])
    yield Sample("Genesis", GENESIS_CODEC, GENESIS)


def _list_transactions() -> Iterator[Sample]:
    yield _plain(REQUEST)
    yield _plain(PAYLOAD)
    yield _plain(ABSTAINED, "RevealPayload abstained")
    for body in BODIES:
        yield _plain(body)
    for signed in SIGNED:
        yield Sample(f"SignedTransaction {type(signed.body).__name__}", TRANSACTION_CODEC, signed)


def _list_ordering() -> Iterator[Sample]:
    yield _plain(HEADER)
    yield Sample("Block", BLOCK_CODEC, BLOCK)
    for kind in VoteKind:
        block_hash = bytes(32) if kind is VoteKind.NULL else fill("h")
        vote = Vote(kind, 0, 300, block_hash, 2, KEY.sign(vote_signing_bytes(kind, CHAIN, 0, 300, block_hash)))
        yield Sample(f"Vote {kind.name}", VOTE_CODEC, vote)
    yield Sample("QuorumCert", QUORUM_CERT_CODEC, CERT)
    yield _plain(JUSTIFICATION)
    signature = KEY.sign(
        proposal_signing_bytes(CHAIN, 0, 300, compute_header_hash(HEADER), compute_justification_hash(JUSTIFICATION))
    )
    yield Sample("Proposal", PROPOSAL_CODEC, Proposal(BLOCK, JUSTIFICATION, 300, 0, signature))
    proposed = SignedProposal(
        0, 300, compute_header_hash(HEADER), compute_justification_hash(JUSTIFICATION), 0, signature
    )
    yield _plain(proposed)
    yield Sample("Evidence", EVIDENCE_CODEC, EVIDENCE)
    accused = Evidence(EvidenceKind.TWO_PROPOSALS, 0, 300, 0, (proposed, replace(proposed, block_hash=fill("H"))), None)
    yield Sample("Evidence of proposals", EVIDENCE_CODEC, accused)


def _list_jobs() -> Iterator[Sample]:
    yield _plain(CANDIDATES[1])
    path: CandidatePath = prove_candidate(CANDIDATES, 1)
    yield _plain(path.steps[0])
    yield _plain(path)
    yield Sample("Record", RECORD_CODEC, NEW_RECORD)
    missed: Record = NEW_RECORD
    for _ in range(11):
        missed = apply_seat_missed(missed, INTERNET, 300, 1_800_000_000_000)
    yield Sample("Record suspended", RECORD_CODEC, missed)
    yield _plain(Seat(fill("a"), None))
    yield _plain(ENTRY)
    yield _plain(DRAWN)
    yield Sample("Job", JOB_CODEC, _make_job())
    yield _plain(SETTLED_SEAT)
    yield _plain(SETTLEMENT.payments[0])
    yield Sample("Settlement", SETTLEMENT_CODEC, SETTLEMENT)


def _make_job() -> Job:
    return Job(
        job=JOB,
        requester=MEMBER,
        request=REQUEST,
        submit_height=200,
        snapshot_height=192,
        candidates_root=fill("C"),
        phase=Phase.REVEALING,
        draw=DRAWN,
        phase_height=206,
        phase_ms=1_800_000_005_000,
        window_ms=60_000,
        halved=True,
        seats=(Seat(fill("a"), MEMBER), Seat(None, None)),
        entries=(ENTRY,),
    )


def _list_state() -> Iterator[Sample]:
    yield _plain(TREE.prove_inclusion(fill("c", 3)))
    exclusion: ExclusionProof = TREE.prove_exclusion(b"cd", dict(ENTRIES))
    assert exclusion.left is not None
    yield _plain(exclusion.left)
    yield _plain(exclusion)
    yield _plain(RangeProof(3, 7, (fill("l"),), (fill("r"), fill("R"))))
    yield Sample("Account", entries.ACCOUNT_CODEC, entries.Account(1_000_000, 5_000_000, 100_000, 5))
    yield Sample("Unbonding", entries.UNBONDING_CODEC, entries.Unbonding(2_000_000, 1_800_000_600_000))
    milestone = entries.Milestone(192, 290, 1_799_999_990_000)
    yield _plain(milestone)
    yield Sample("Milestones", entries.MILESTONES_CODEC, entries.Milestones((milestone,)))
    conviction = entries.Conviction(
        EvidenceKind.TWO_NOTAR, 0, 300, 201, 1_800_000_000_050, MEMBER, 100_000, 5_000_000, 1_500_000
    )
    yield Sample("Conviction", entries.CONVICTION_CODEC, conviction)
    attendance = entries.Attendance(0b1011, entries.Jail(1_800_000_000_050, 100_000, is_over=True))
    yield _plain(entries.Jail(1_800_000_000_050, 100_000, is_over=False))
    yield Sample("Attendance", entries.ATTENDANCE_CODEC, attendance)
    yield Sample("Attendance, never jailed", entries.ATTENDANCE_CODEC, entries.Attendance(0, None))
    yield Sample("ValidatorSet, as an entry", entries.VALIDATORS_CODEC, VALIDATORS)
    chain = entries.Chain(
        200, 300, 1_800_000_000_000, fill("b"), fill("s"), (MEMBER, fill("v")), 192, fill("C"), 10**12, 7_500
    )
    yield Sample("Chain", entries.CHAIN_CODEC, chain)
    yield Sample("Onion", entries.ONION_CODEC, entries.Onion(fill("o"), 12, 11, 1, entries.NextOnion(fill("n"), 512)))
    yield _plain(entries.NextOnion(fill("n"), 512))
    yield Sample("Onion, nothing next", entries.ONION_CODEC, entries.Onion(fill("o"), 0, 0, 0, None))
    yield Sample("Serving", entries.SERVING_CODEC, entries.Serving(64))
    yield Sample("Named", entries.NAMED_CODEC, entries.Named(MODEL))
    yield Sample("Snapshot", entries.SNAPSHOT_CODEC, entries.Snapshot(fill("C")))
    yield Sample("Candidates", entries.CANDIDATES_CODEC, entries.Candidates(CANDIDATES))


def _list_certificate() -> Iterator[Sample]:
    headers = compress_headers([HEADER, HEADER])
    opened = Opened(fill("x", 64), PAYLOAD, SALT, fill("y", 64))
    unopened = Unopened(fill("x", 64), COMMITMENT)
    yield _plain(headers.cores[0])
    yield _plain(headers)
    yield _plain(opened)
    yield _plain(unopened)
    submit = BODIES[4]
    assert isinstance(submit, Submit)
    certificate = Certificate(
        chain_id=CHAIN,
        submit=submit,
        submit_signature=fill("z", 64),
        card=CARD,
        settlement=SETTLEMENT,
        settlement_proof=TREE.prove_inclusion(fill("c", 3)),
        waiting=headers,
        maturity_reveal=fill("R"),
        model_proof=TREE.prove_inclusion(fill("a", 3)),
        candidates=(prove_candidate(CANDIDATES, 1),),
        members=(opened, unopened, None),
        settled=headers,
        final_view=300,
        signers=(0, 2),
        signatures=(fill("x", 64), fill("y", 64)),
        output=OUTPUT,
    )
    yield _plain(certificate)  # its bytes, not its truth: a true one is in certificate.json


def _list_trust() -> Iterator[Sample]:
    final = QuorumCert(VoteKind.FINAL, 0, 301, fill("h"), (0, 2), (fill("x", 64), fill("y", 64)))
    step = ChainStep(HEADER, final, VALIDATORS)
    yield Sample("ChainStep", STEP_CODEC, step)
    yield _plain(ChainFile(CHAIN, (step, step)))
    yield _plain(TrustedHeader(HEADER, VALIDATORS, final))
    yield _plain(TrustedHeader(HEADER, VALIDATORS, None), "TrustedHeader, without votes")


def list_hashes() -> Iterator[tuple[str, bytes]]:
    """Every rule that makes a hash, a ticket or signed bytes out of these samples."""
    yield "chain id", compute_chain_id(GENESIS)
    yield "model id", MODEL
    yield "output hash", compute_output_hash(OUTPUT)
    yield "header hash", compute_header_hash(HEADER)
    yield "transactions root", compute_transactions_root(BLOCK.body)
    yield "transactions root, empty", compute_transactions_root(())
    yield "validator set hash", compute_validator_set_hash(VALIDATORS)
    for signed in SIGNED:
        yield f"transaction id {type(signed.body).__name__}", compute_transaction_id(signed.body)
    yield "commitment", COMMITMENT
    yield "reveal set hash", SETTLEMENT.reveal_set
    yield "sampling seed", DRAWN.seed
    yield "justification hash", compute_justification_hash(JUSTIFICATION)
    yield "vote signing bytes", vote_signing_bytes(VoteKind.FINAL, CHAIN, 1, 2, fill("h"))
    yield "proposal signing bytes", proposal_signing_bytes(CHAIN, 1, 2, fill("h"), fill("J"))
    yield "onion layer 3", compute_onion_layer(fill("o"), 3)
    yield "onion tip", Onion(fill("o"), 10, 4).tip
    yield "beacon", compute_beacon(fill("b"), fill("R"))
    yield from _list_tree_hashes()
    yield from _list_draws()


def _list_tree_hashes() -> Iterator[tuple[str, bytes]]:
    yield "merkle value", compute_value_hash(b"value")
    yield "merkle leaf", compute_leaf(b"key", compute_value_hash(b"value"))
    for count in (0, 1, 2, 3, 7):
        yield f"merkle root of {count}", compute_root(ENTRIES[:count])
    for count in (0, 1, 2, 3, 5):
        yield f"sum tree root of {count}", compute_model_root(CANDIDATES[:count])
    yield "candidates root", compute_candidates_root({MODEL: CANDIDATES, fill("z"): CANDIDATES[:2], fill("y"): ()})


def _list_draws() -> Iterator[tuple[str, bytes]]:
    for attempt in range(3):
        yield f"ticket {attempt} below 70359", compute_ticket(JOB, fill("R"), attempt, 70_359).to_bytes(8, "big")
    for rule in AgreementRule:
        result = draw(JOB, fill("R"), CANDIDATES, rule, 7, 3, lambda node: node != fill("c"))
        seats = b"".join(b"-" if node is None else node[:1] for node in (*result.members, *result.skipped))
        yield f"draw of 7 by {rule.name.lower()}, then the skipped", seats
    leaders = bytes(compute_leader(VALIDATORS, CHAIN, 0, fill("g"), view) for view in range(16))
    yield "leaders of views 0 to 15", leaders
