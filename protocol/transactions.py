"""Every transaction, and how it is signed and named.

Account transactions carry sender, nonce and a last valid height and pay the base fee. Job transactions carry none of these: they
are unique by (job, member, phase) and only drawn members may send them, so a late or lost one never blocks a later one. Nor do
reports of broken rules, which are unique by the validator they convict.
"""

from enum import IntEnum
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from protocol.block import MAX_TRANSACTION_BYTES
from protocol.codec import Codec, Message, encode
from protocol.crypto import HashDomain, SignatureDomain, SigningKey, compute_hash, is_signature_valid, signing_bytes
from protocol.digest import Digest
from protocol.errors import InvalidTransaction, Rejection
from protocol.evidence import Evidence
from protocol.models import MAX_PROMPT_BYTES, GenerationSettings, ModelCard
from protocol.units import (
    ChainId,
    Hash,
    Height,
    JobId,
    Micro,
    Milliseconds,
    ModelId,
    NodeId,
    Nonce,
    PartsPerMillion,
    Signature,
    Uint,
)

MAX_SEATS: Final = 101


class AgreementRule(IntEnum):
    """How seats are drawn for a replicate job: by stake alone, or by stake x integrity x reliability."""

    MAJORITY = 0
    REPUTATION = 1


class JobRequest(Message, frozen=True):
    """What is asked, how it is decided, and what is paid for it (mode replicate)."""

    model: ModelId
    prompt: Annotated[bytes, Meta(max_length=MAX_PROMPT_BYTES)]  # UTF-8
    settings: GenerationSettings
    rule: AgreementRule
    seats: Annotated[int, Meta(ge=0, le=MAX_SEATS)]
    fee: Micro  # held in escrow; split over the seats
    commit_ms: Milliseconds
    reveal_ms: Milliseconds


class AccountTransaction(Message, frozen=True):
    """What every account transaction starts with."""

    sender: NodeId
    nonce: Nonce  # one above the account's last
    valid_until: Height


class Transfer(AccountTransaction, frozen=True, tag=1):
    """Move units to another account."""

    recipient: NodeId
    amount: Micro


class Bond(AccountTransaction, frozen=True, tag=2):
    """Put units of the sender's balance at risk as its stake."""

    amount: Micro


class Serve(AccountTransaction, frozen=True, tag=3):
    """Announce that the sender answers jobs for a model, from the next snapshot on."""

    model: ModelId


class RegisterModel(AccountTransaction, frozen=True, tag=4):
    """Put a model card on the ledger; the model id is its hash."""

    card: ModelCard


class Submit(AccountTransaction, frozen=True, tag=5):
    """Ask for an answer; the job's id is this transaction's id."""

    job: JobRequest


class Unbond(AccountTransaction, frozen=True, tag=8):
    """Take units of the bond back; they stay at risk for the unbonding time."""

    amount: Micro


class Withdraw(AccountTransaction, frozen=True, tag=9):
    """Stop answering jobs for a model, from the next snapshot on."""

    model: ModelId


class RenewOnion(AccountTransaction, frozen=True, tag=11):
    """The tip of a validator's next hash onion, registered long before its first layer is revealed."""

    tip: Hash
    renewal: Uint  # the how-manieth, from 1: sent twice by a node that forgot, it is registered once


class Unjail(AccountTransaction, frozen=True, tag=12):
    """End a jail for absence whose time is over: the sender votes again from the next set computed on."""


class Commit(Message, frozen=True, tag=6):
    """A member's promise of an answer that nobody can read yet."""

    member: NodeId
    job: JobId
    commitment: Hash


class RevealPayload(Message, frozen=True):
    """Everything a member says about its answer. An abstention (an engine error, said openly) has a zero output hash."""

    abstained: bool
    output_hash: Hash
    digest: Digest | None
    sketch_root: Hash
    confidence_ppm: PartsPerMillion


class Reveal(Message, frozen=True, tag=7):
    """The opening of a member's commitment."""

    member: NodeId
    job: JobId
    payload: RevealPayload
    salt: Hash


class Report(Message, frozen=True, tag=10):
    """The proof that a validator broke a voting rule, by whoever has it: no account is needed, nothing is paid for it."""

    reporter: NodeId
    evidence: Evidence


Transaction: TypeAlias = (
    Transfer
    | Bond
    | Serve
    | RegisterModel
    | Submit
    | Commit
    | Reveal
    | Unbond
    | Withdraw
    | Report
    | RenewOnion
    | Unjail
)
JobTransaction: TypeAlias = Commit | Reveal
FreeTransaction: TypeAlias = Report | Commit | Reveal
"""Without nonce and fee: unique by what it is about."""


class SignedTransaction(Message, frozen=True):
    """A transaction and its author's signature over `signing_bytes(TRANSACTION, chain, canonical body)`."""

    body: Transaction
    signature: Signature


TRANSACTION_CODEC: Final = Codec[SignedTransaction](SignedTransaction, MAX_TRANSACTION_BYTES)


def author_of(body: Transaction) -> NodeId:
    """The node that must have signed it."""
    match body:
        case Report():
            return body.reporter
        case Commit() | Reveal():
            return body.member
        case _:
            return body.sender


def compute_transaction_id(body: Transaction) -> Hash:
    """The transaction's name: over its body without signatures, since Ed25519 signatures are not unique."""
    return compute_hash(HashDomain.TRANSACTION, encode(body))


def sign_transaction(key: SigningKey, chain: ChainId, body: Transaction) -> SignedTransaction:
    """The transaction signed by its author for one chain."""
    assert author_of(body) == key.public, (author_of(body).hex(), key.public.hex())
    return SignedTransaction(body, key.sign(signing_bytes(SignatureDomain.TRANSACTION, chain, encode(body))))


def check_transaction_signature(chain: ChainId, signed: SignedTransaction) -> None:
    """Accept only what its author signed for this chain.

    Raises: InvalidTransaction(BAD_SIGNATURE).
    """
    author = author_of(signed.body)
    message = signing_bytes(SignatureDomain.TRANSACTION, chain, encode(signed.body))
    if not is_signature_valid(author, message, signed.signature):
        raise InvalidTransaction(
            Rejection.BAD_SIGNATURE,
            f"the signature of {type(signed.body).__name__} is not by {author.hex()} for chain {chain.hex()[:12]}: sign it with that key, for this chain",
        )


def compute_commitment(chain: ChainId, job: JobId, member: NodeId, payload: RevealPayload, salt: Hash) -> Hash:
    """What a Commit carries: bound to chain, job and member, so that a copied commitment opens for nobody else."""
    payload_hash = compute_hash(HashDomain.PAYLOAD, encode(payload))
    return compute_hash(HashDomain.COMMITMENT, chain, job, member, payload_hash, salt)
