"""What is in a certificate, and its bytes: "QRC", a version byte, the canonical message.

Nothing is carried that follows from the rest: chain id, epochs and parents of headers, validator tables, the ids of transactions,
commitments that were opened. What is left is bound by a hash or a signature, so no byte can change unnoticed. Rules C1-C14: certificate.py.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta
from msgspec.structs import replace

from protocol.certificate_headers import HeaderChain, refuse
from protocol.codec import Codec, Message, encode
from protocol.errors import InvalidCertificate, InvalidMessage, Rejection
from protocol.jobs.committee import MAX_SKIPPED, CandidatePath, DrawReplay
from protocol.jobs.settlement import Settlement
from protocol.merkle import InclusionProof
from protocol.models import MAX_OUTPUT_BYTES, MAX_OUTPUT_TOKENS, ModelCard, Output
from protocol.transactions import MAX_SEATS, RevealPayload, Submit
from protocol.units import ChainId, Hash, NodeId, Signature, View
from protocol.validators import MAX_VALIDATORS

CERTIFICATE_VERSION: Final = 1
MAX_CERTIFICATE_BYTES: Final = 1024 * 1024  # without the output
MAX_FINAL_HEADERS: Final = 64  # from the settlement to the first final block
_MAGIC: Final = b"QRC"
_MAX_HOLDERS: Final = MAX_SEATS
_MAX_TOUCHED: Final = MAX_SEATS + MAX_SEATS // 3 + MAX_SKIPPED


class Opened(Message, frozen=True, tag=1):
    """A member that committed and revealed. Its commitment follows from what it revealed."""

    commit_signature: Signature
    payload: RevealPayload
    salt: Hash
    reveal_signature: Signature


class Unopened(Message, frozen=True, tag=2):
    """A member that committed and never revealed."""

    commit_signature: Signature
    commitment: Hash


class Certificate(Message, frozen=True):
    """Why a job ended as it did, for somebody who trusts nothing but the genesis."""

    chain_id: ChainId
    submit: Submit
    submit_signature: Signature
    card: ModelCard | None  # None: the genesis has it
    settlement: Settlement
    settlement_proof: InclusionProof  # under the state root of the first of `settled`
    waiting: HeaderChain  # from the submit's height h to the one before the beacon's, h' - 1
    maturity_reveal: Hash  # of the leader at h'
    model_proof: InclusionProof  # under the settlement's candidates root
    candidates: Annotated[tuple[CandidatePath, ...], Meta(max_length=_MAX_TOUCHED)]  # in the order the draw hit them
    members: Annotated[
        tuple[Opened | Unopened | None, ...], Meta(max_length=_MAX_HOLDERS)
    ]  # by `list_holders`; None: absent
    settled: HeaderChain  # from the settlement's block to the one that the quorum made final, of one epoch
    final_view: View  # of the votes: the block's own, or a later one for an epoch's last block, which is proposed again
    signers: Annotated[tuple[Annotated[int, Meta(ge=0, lt=MAX_VALIDATORS)], ...], Meta(max_length=MAX_VALIDATORS)]
    signatures: Annotated[tuple[Signature, ...], Meta(max_length=MAX_VALIDATORS)]
    output: Output | None  # attached: the winning output, where one won and somebody kept it


_MAX_OUTPUT_BYTES: Final = MAX_OUTPUT_BYTES + 5 * MAX_OUTPUT_TOKENS + 64
_CODEC: Final = Codec[Certificate](Certificate, MAX_CERTIFICATE_BYTES + _MAX_OUTPUT_BYTES)


def encode_certificate(certificate: Certificate) -> bytes:
    """The file's bytes."""
    return _MAGIC + bytes((CERTIFICATE_VERSION,)) + encode(certificate)


def decode_certificate(encoded: bytes) -> Certificate:
    """The certificate in a file's bytes.

    Raises: InvalidCertificate(MALFORMED | NEWER_VERSION | TOO_LARGE | NOT_CANONICAL).
    """
    head, version, body = encoded[:3], encoded[3:4], encoded[4:]
    if head != _MAGIC or not version or version == b"\x00":  # C1
        raise InvalidCertificate(
            Rejection.MALFORMED,
            f"this is no certificate: expected a file that starts with QRC and a version, got {encoded[:4].hex() or 'nothing'}",
        )
    if version[0] > CERTIFICATE_VERSION:
        raise InvalidCertificate(
            Rejection.NEWER_VERSION,
            f"this certificate has format {version[0]}, this program reads up to {CERTIFICATE_VERSION}: install a newer quorate",
        )
    try:
        return _CODEC.decode(body)
    except InvalidMessage as error:
        raise InvalidCertificate(
            error.reason, f"this certificate is truncated or altered ({error}): ask another node for it"
        ) from error


def attach_output(encoded: bytes, output: Output | None) -> bytes:
    """The same certificate with this output attached (None: with none). Raises: as `decode_certificate`."""
    return encode_certificate(replace(decode_certificate(encoded), output=output))


# --- what both sides derive from a settlement


def list_holders(settlement: Settlement) -> tuple[NodeId, ...]:
    """Who owed an answer at the end, each once, at its first seat."""
    holders = dict.fromkeys(seat.holder for seat in settlement.seats)
    return tuple(node for node in holders if node is not None)


def repeat_draw(replay: DrawReplay, settlement: Settlement) -> tuple[NodeId, ...]:
    """Everybody the draw hit, in order, skipped ones included, if it gives exactly the settlement's seats and takers.

    Raises: InvalidCertificate(BAD_DRAW).
    """
    skipped = frozenset(settlement.skipped)
    takers = (seat.taker for seat in settlement.seats if seat.taker is not None)
    touched: dict[NodeId, None] = {}
    for place, expected in enumerate((*(seat.drawn for seat in settlement.seats), *takers)):
        landed = _draw_next(replay, skipped, touched)
        if landed != expected:  # C7
            refuse(
                Rejection.BAD_DRAW,
                f"says place {place} of the draw went to {_name(expected)}, but the beacon gives {_name(landed)}",
            )
        if landed is not None:
            touched[landed] = None
            replay.seat(landed)
    return tuple(touched)


def _draw_next(replay: DrawReplay, skipped: frozenset[NodeId], touched: dict[NodeId, None]) -> NodeId | None:
    while True:
        try:
            landed = replay.compute_next()
        except KeyError:
            refuse(Rejection.BAD_DRAW, "lacks the path of a candidate that the beacon hits")
        if landed is None or landed not in skipped:
            return landed
        touched[landed] = None
        replay.skip(landed)


def _name(node: NodeId | None) -> str:
    return "nobody" if node is None else node.hex()[:12]
