"""A tolerance profile: for each pair of compute classes, how far an honest output may be from what an auditor computes.

`quorate models calibrate` writes one (verifier/calibrate.py), with the error rates that were measured and the command that measures
them again. It is signed, names its model by id, and is of no use for another. Limits are integers, so that auditors agree on them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from protocol.crypto import SignatureDomain, SigningKey, is_signature_valid, signing_bytes
from protocol.units import ModelId
from verifier import sketch
from verifier.card import ModelRefused, load_json
from verifier.classes import ComputeClass

FORMAT: Final = 1
PROFILE_FILE: Final = "profile.json"
MAX_PROFILE_BYTES: Final = 4 * 1024 * 1024
NO_CHAIN: Final = bytes(32)  # a profile belongs to a model, not to a network

Hex = Annotated[str, Meta(pattern=r"^([0-9a-f]{2})*\Z", max_length=4096)]
Limit = Annotated[int, Meta(ge=0, le=2**40)]
Length = Annotated[int, Meta(ge=1, le=2**24)]
Table = Annotated[tuple[tuple[Length, Limit], ...], Meta(min_length=1, max_length=64)]
Share = Annotated[float, Meta(ge=0, le=1)]


class ProfileRefused(Exception):
    """A profile that cannot be used: unreadable, not as signed, of another model, or made for other sketches."""


class ClassRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A compute class that was calibrated, and what its probe said there (verifier/probe.py)."""

    engine: str
    dtype: str
    attention: str
    hardware: str
    probe: Hex

    @property
    def compute_class(self) -> ComputeClass:
        return ComputeClass(self.engine, self.dtype, self.attention, self.hardware)


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits between one executor's class and one auditor's. Beyond a limit is softly rejected, beyond its double hard.

    Units: margins in 2^-16 nats, distances in sixteenths of a code step, score in thousandths of a standard deviation, slack in
    2^-16 nats. Tables: (tokens, limit), ascending; a row holds for that many tokens and more
    """

    executor: str
    auditor: str
    slack: Limit
    margin_largest: Limit
    margin_means: Table
    distances: Table
    score: Limit


class FalseAlarm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Honest jobs of the held-out half that any auditor's class rejected; with an exact upper bound at 95 %."""

    rate: Share
    upper95: Share
    windows: int
    hard: int


class Cell(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often one kind of output was rejected, of those that tolerances were not set on. Bounds are exact, two-sided at 95 %.

    `by_likelihood`: rejected where neither seed nor sketch is known; it counts for nothing else.
    """

    cheat: str
    executor: str
    auditor: str
    tokens: Length
    runs: int
    caught: int
    hard: int
    by_margin: int
    by_sketch: int
    by_likelihood: int
    lower95: Share
    upper95: Share


class ProfileBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that is signed."""

    format: int
    model: Hex
    name: str
    sketch: tuple[int, int]
    command: str
    classes: Annotated[tuple[ClassRecord, ...], Meta(min_length=1, max_length=64)]
    tolerances: Annotated[tuple[Tolerance, ...], Meta(min_length=1, max_length=4096)]
    false_alarm: FalseAlarm
    detection: dict[str, dict[str, Share]]
    cells: Annotated[tuple[Cell, ...], Meta(max_length=65536)]


class ProfileFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """profile.json."""

    body: ProfileBody
    signer: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    signature: Annotated[str, Meta(pattern=r"^[0-9a-f]{128}\Z")]


def encode_profile(body: ProfileBody, key: SigningKey) -> bytes:
    """The file's content, signed with this key."""
    signed = signing_bytes(SignatureDomain.PROFILE, NO_CHAIN, msgspec.json.encode(body))
    file = ProfileFile(body, key.public.hex(), key.sign(signed).hex())
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def load_profile(path: Path, model: ModelId, signers: Sequence[bytes] | None = None) -> ProfileBody:
    """The profile in a file; `signers`: whose signature is accepted, or anybody's.

    Raises: ProfileRefused
    """
    try:
        file = load_json(path, ProfileFile, MAX_PROFILE_BYTES)
    except ModelRefused as error:
        raise ProfileRefused(str(error)) from error
    signer, body = bytes.fromhex(file.signer), file.body
    signed = signing_bytes(SignatureDomain.PROFILE, NO_CHAIN, msgspec.json.encode(body))
    if not is_signature_valid(signer, signed, bytes.fromhex(file.signature)):
        raise ProfileRefused(
            f"{path}: the signature is not {file.signer[:12]}'s for this content; fetch the file again"
        )
    if signers is not None and signer not in signers:
        raise ProfileRefused(
            f"{path}: expected a signature of {[key.hex()[:12] for key in signers]}, got {file.signer[:12]}'s"
        )
    if body.format != FORMAT:
        raise ProfileRefused(f"{path}: expected format {FORMAT}, got {body.format}; calibrate the model anew")
    if bytes.fromhex(body.model) != model:
        raise ProfileRefused(
            f"{path}: expected a profile of model {model.hex()[:12]}, got {body.model[:12]} ({body.name})"
        )
    if body.sketch != (sketch.FAMILY, sketch.VERSION):
        raise ProfileRefused(
            f"{path}: expected sketches of family and version {(sketch.FAMILY, sketch.VERSION)}, got {body.sketch}; calibrate anew"
        )
    return body


def find_tolerance(profile: ProfileBody, executor: ComputeClass, auditor: ComputeClass) -> Tolerance | None:
    """The limits for this pair, where it was calibrated."""
    names = (executor.name, auditor.name)
    return next((limits for limits in profile.tolerances if (limits.executor, limits.auditor) == names), None)


def widen_tolerance(profile: ProfileBody, auditor: ComputeClass) -> Tolerance | None:
    """The limits for an executor of whatever calibrated class, as seen by this auditor: limit by limit the widest."""
    found = [limits for limits in profile.tolerances if limits.auditor == auditor.name]
    if not found:
        return None
    return Tolerance(
        "any",
        auditor.name,
        max(limits.slack for limits in found),
        max(limits.margin_largest for limits in found),
        _merge([limits.margin_means for limits in found]),
        _merge([limits.distances for limits in found]),
        max(limits.score for limits in found),
    )


def look_up(table: Table, tokens: int) -> int:
    """The limit for so many tokens: the longest row that is not longer, or else the shortest."""
    return next((limit for length, limit in reversed(table) if length <= tokens), table[0][1])


def _merge(tables: Sequence[Table]) -> Table:
    lengths = sorted({length for table in tables for length, _ in table})
    return tuple((length, max(look_up(table, length) for table in tables)) for length in lengths)
