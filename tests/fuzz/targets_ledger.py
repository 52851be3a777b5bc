"""What the ledger judges: transactions of every kind, blocks, evidence, geneses, certificates, and the entries of its state."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from msgspec.structs import replace

from protocol.block import BLOCK_CODEC, compute_transactions_root
from protocol.certificate import check_certificate
from protocol.certificate_format import attach_output
from protocol.codec import encode
from protocol.crypto import is_signature_valid
from protocol.errors import InvalidBlock, InvalidMessage, InvalidTransaction
from protocol.evidence import EVIDENCE_CODEC, check_evidence
from protocol.genesis import GENESIS_CODEC, compute_validator_set
from protocol.jobs.reputation import RECORD_CODEC
from protocol.jobs.settlement import JOB_CODEC, SETTLEMENT_CODEC
from protocol.ledger import entries
from protocol.ledger.epochs import find_validators
from protocol.ledger.state import build_block, check_block, check_transaction, create_genesis
from protocol.transactions import TRANSACTION_CODEC, Report, check_transaction_signature
from tests.fuzz.machines import list_stages, tell_apart
from tests.fuzz.served import get_served
from tests.fuzz.shapes import Packed
from tests.fuzz.target import Target, name_refusal
from tests.fuzz.targets_wire import list_transactions
from tests.protocol.builders import make_genesis
from tests.protocol.certificates import ANSWER, certify
from tests.vectors import samples as pinned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.codec import Codec
    from protocol.genesis import Genesis
    from tests.fuzz.machines import Stage


def _choose_stage(content: bytes) -> Stage:
    return list_stages()[tell_apart(content, len(list_stages()))]


def _take_transaction(content: bytes) -> str:
    """By itself, and as what a leader finds waiting: first judged with its signature, then as if that were known to be good."""
    signed, stage = TRANSACTION_CODEC.decode(content), _choose_stage(content)
    ledger = stage.ledger
    context = stage.chain.fork()
    context.ledger, context.header = ledger, stage.header
    built = build_block(ledger, stage.header, context.context([content, *stage.block.body]), verified={content})
    assert len(built.block.body) <= 1 + len(stage.block.body), content.hex()
    child = check_block(ledger, stage.header, built.block, verified={content})
    assert child.state_root == built.ledger.state_root, content.hex()
    check_transaction(ledger, signed)
    check_transaction_signature(ledger.constants.chain_id, signed)
    return "admitted"


def _take_block(content: bytes) -> str:
    """Whole, with whatever roots it has; then, where these are all that is wrong, with the root of its body."""
    block = BLOCK_CODEC.decode(content)
    fitting = [stage for stage in list_stages() if stage.block.header.height == block.header.height]
    stage = fitting[0] if fitting else _choose_stage(content)
    bodies = frozenset(block.body)
    sealed = replace(block, header=replace(block.header, tx_root=compute_transactions_root(block.body)))
    said = ""
    for offered in (block, sealed):
        try:
            check_block(stage.ledger, stage.header, offered, verified=bodies)
        except InvalidBlock as refusal:
            said += f"{name_refusal(refusal)} "
        else:
            said += "executed "
    return said


def _list_blocks() -> list[bytes]:
    return [encode(stage.block) for stage in list_stages()] + [encode(pinned.BLOCK)]


def _take_evidence(content: bytes) -> str:
    """As a report, and by itself: with true signatures, and to somebody who believes them all."""
    evidence, stage = EVIDENCE_CODEC.decode(content), _choose_stage(content)
    validators = find_validators(stage.ledger, evidence.epoch)
    if validators is None:
        return "of an epoch that the state does not know"
    for verify in (lambda *_: True, is_signature_valid):
        check_evidence(evidence, stage.ledger.constants.chain_id, validators, verify)
    return "proven"


def _list_evidence() -> list[bytes]:
    reports = [TRANSACTION_CODEC.decode(encoded).body for encoded in list_transactions()]
    return [encode(body.evidence) for body in reports if isinstance(body, Report)]


def _take_genesis(content: bytes) -> str:
    genesis = GENESIS_CODEC.decode(content)
    ledger, _ = create_genesis(genesis)
    assert len(compute_validator_set(genesis).members) > 0
    return f"starts with {min(9, len(ledger.entries) // 8)}"


def _list_geneses() -> list[bytes]:
    small = make_genesis(("v0",), ("asker",))
    return [encode(each) for each in (make_genesis(), small, pinned.GENESIS)]


@cache
def _get_certified() -> tuple[bytes, Genesis]:
    encoded, chain, _ = certify()
    return encoded, chain.genesis


def _take_certificate(content: bytes) -> str:
    said = check_certificate(content, _get_certified()[1])
    bare = attach_output(content, None)
    assert bare in _list_certificates(), "no byte may change unnoticed"
    return f"valid: {said.decision}"


@cache
def _list_certificates() -> list[bytes]:
    """A certificate with its output, and without."""
    encoded, _ = _get_certified()
    return [encoded, attach_output(encoded, None)]


def _take_attachment(content: bytes) -> str:
    """What `output_get` and a node's shelf do with a certificate that they hold."""
    return f"{len(attach_output(content, ANSWER)) > len(content)}"


# --- entries of the state, as a snapshot brings them

ENTRY_CODECS: dict[str, Codec] = {
    "account": entries.ACCOUNT_CODEC,
    "attendance": entries.ATTENDANCE_CODEC,
    "candidates": entries.CANDIDATES_CODEC,
    "card": entries.CARD_CODEC,
    "chain": entries.CHAIN_CODEC,
    "conviction": entries.CONVICTION_CODEC,
    "milestones": entries.MILESTONES_CODEC,
    "named": entries.NAMED_CODEC,
    "onion": entries.ONION_CODEC,
    "serving": entries.SERVING_CODEC,
    "snapshot": entries.SNAPSHOT_CODEC,
    "validators": entries.VALIDATORS_CODEC,
    "unbonding": entries.UNBONDING_CODEC,
    "job": JOB_CODEC,
    "settlement": SETTLEMENT_CODEC,
    "record": RECORD_CODEC,
}


def _list_entries() -> Sequence[bytes]:
    """Values of every kind: pinned ones, and those of a real state."""
    known = {id(codec) for codec in ENTRY_CODECS.values()}
    made = [encode(sample.message) for sample in pinned.list_samples() if id(sample.codec) in known]
    return [*made, *sorted(set(get_served().snapshot.entries.values()))[:32]]


def _take_entry(content: bytes) -> str:
    taken: list[str] = []
    for name, codec in ENTRY_CODECS.items():
        try:
            codec.decode(content)
        except InvalidMessage:
            continue
        taken.append(name)
    return " ".join(taken) or "refused"


_STATE = (
    *(
        f"protocol/ledger/entries.py::{name.upper()}_CODEC"
        for name in ENTRY_CODECS
        if name not in {"job", "settlement", "record"}
    ),
    "protocol/jobs/settlement.py::JOB_CODEC",
    "protocol/jobs/settlement.py::SETTLEMENT_CODEC",
    "protocol/jobs/reputation.py::RECORD_CODEC",
)
TARGETS = (
    Target(
        "transaction",
        ("protocol/transactions.py::TRANSACTION_CODEC",),
        Packed(),
        list_transactions,
        _take_transaction,
        (InvalidMessage, InvalidTransaction),
        allowance=256 * 1024,
    ),
    Target(
        "block",
        ("protocol/block.py::BLOCK_CODEC",),
        Packed(),
        _list_blocks,
        _take_block,
        (InvalidMessage,),
        allowance=256 * 1024,
    ),
    Target(
        "evidence",
        ("protocol/evidence.py::EVIDENCE_CODEC",),
        Packed(),
        _list_evidence,
        _take_evidence,
        (InvalidMessage,),
    ),
    Target(
        "genesis", ("protocol/genesis.py::GENESIS_CODEC",), Packed(), _list_geneses, _take_genesis, allowance=256 * 1024
    ),
    Target(
        "certificate",
        ("protocol/certificate_format.py::_CODEC",),
        Packed(4),
        _list_certificates,
        _take_certificate,
        allowance=256 * 1024,
    ),
    Target("certificate-output", (), Packed(4), _list_certificates, _take_attachment),
    Target("state-entry", _STATE, Packed(), _list_entries, _take_entry, ()),
)
