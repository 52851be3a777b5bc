"""What a member commits to beside its answer, and the signed tolerances by which that is judged. Both need torch, so it is imported late."""

from __future__ import annotations

from functools import cache

from tests.fuzz.served import make_place
from tests.fuzz.shapes import Json, Opaque
from tests.fuzz.target import Target
from tests.protocol.builders import make_hash, make_key

TOKENS = 5
MODEL = make_hash("model")


class _Torch:
    """The names that need torch, imported when the first input comes."""

    def __init__(self) -> None:
        from verifier import sketch, tolerances
        from verifier.classes import ComputeClass

        self.sketch, self.tolerances = sketch, tolerances
        self.declared = ComputeClass("quorate", "float32", "sdpa", "cpu-avx2")


@cache
def _torch() -> _Torch:
    return _Torch()


def _take_sketch(content: bytes) -> str:
    torch = _torch()
    try:
        codes = torch.sketch.decode_sketch(content, TOKENS, torch.declared)
    except torch.sketch.SketchRefused as refusal:
        return refusal.fault.value
    own = torch.sketch.decode_sketch(_list_sketches()[0], TOKENS, torch.declared)
    return f"far: {torch.sketch.compute_distance(torch.sketch.measure_gaps(own, codes)) > 16}"


@cache
def _list_sketches() -> tuple[bytes, ...]:
    import numpy as np

    torch = _torch()
    codes = np.arange(3 * TOKENS, dtype=np.int16).reshape(TOKENS, 3)
    return tuple(torch.sketch.encode_sketch(codes * factor, torch.declared) for factor in (1, -2_000))


def _take_profile(content: bytes) -> str:
    """As it is, and where only its signature is wrong, signed again."""
    torch = _torch()
    path = make_place() / "profile.json"
    said = ""
    for written in (content, _sign_again(content)):
        path.write_bytes(written)
        try:
            said += f"{len(torch.tolerances.load_profile(path, MODEL).tolerances)} pairs "
        except torch.tolerances.ProfileRefused as refusal:
            said += f"{str(refusal).partition(': ')[2][:24]} "
    return said


def _sign_again(content: bytes) -> bytes:
    import msgspec

    torch = _torch()
    try:
        file = msgspec.json.decode(content, type=torch.tolerances.ProfileFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return content
    return torch.tolerances.encode_profile(file.body, make_key("v0"))


@cache
def _list_profiles() -> tuple[bytes, ...]:
    torch = _torch()
    tolerances, declared = torch.tolerances, torch.declared
    record = tolerances.ClassRecord(declared.engine, declared.dtype, declared.attention, declared.hardware, "")
    body = tolerances.ProfileBody(
        tolerances.FORMAT,
        MODEL.hex(),
        "fuzz",
        (torch.sketch.FAMILY, torch.sketch.VERSION),
        "by hand",
        (record,),
        (tolerances.Tolerance(declared.name, declared.name, 64, 64, ((1, 64), (16, 8)), ((1, 32),), 5_000),),
        tolerances.FalseAlarm(0.0, 1.0, 0, 0),
        {"quantized": {"64": 0.9}},
        (tolerances.Cell("quantized", declared.name, declared.name, 64, 10, 9, 8, 7, 6, 5, 0.5, 1.0),),
    )
    return (tolerances.encode_profile(body, make_key("v0")),)


TARGETS = (
    Target("sketch", ("verifier/sketch.py::decode_sketch",), Opaque(), _list_sketches, _take_sketch, ()),
    Target(
        "profile",
        ("verifier/tolerances.py::load_profile",),
        Json(),
        _list_profiles,
        _take_profile,
        (),
        allowance=64 * 1024 * 1024,
    ),
)
