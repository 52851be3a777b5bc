"""Compute classes: which code, number format, attention and hardware family a node computes with.

Inside one class honest machines differ in the last bits; between classes by as much as the calibrated profile says.
"""

import hashlib
from typing import Annotated, Final

import torch
from msgspec import Meta

from protocol.codec import Message, encode

CLASS_ID_BYTES: Final = 8
_ID_PURPOSE: Final = b"quorate compute class 1"
_DTYPE_NAMES: Final = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float64: "float64"}


class ComputeClass(Message, frozen=True):
    """What a node declares, and its probe confirms (verifier/probe.py). float64 is for disputes alone."""

    engine: Annotated[str, Meta(pattern=r"^(quorate|transformers|diffusers)\Z")]
    dtype: Annotated[str, Meta(pattern=r"^(float32|bfloat16|float64)\Z")]
    attention: Annotated[str, Meta(pattern=r"^(eager|sdpa)\Z")]
    hardware: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,31}\Z")]

    @property
    def name(self) -> str:
        return f"{self.engine}/{self.dtype}/{self.attention}/{self.hardware}"

    @property
    def is_exact(self) -> bool:
        """Whether it computes in at least 24 bits, where honest machines hardly differ."""
        return self.dtype != "bfloat16"


def compute_class_id(declared: ComputeClass) -> bytes:
    """The eight bytes that a sketch carries."""
    return hashlib.sha256(_ID_PURPOSE + encode(declared)).digest()[:CLASS_ID_BYTES]


def describe_hardware(device: torch.device) -> str:
    """The hardware family: any CPU, or a GPU's compute capability. CPUs' instruction sets differ in the last bits only."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"cuda-{major}.{minor}"
    return "cpu"


def name_dtype(dtype: torch.dtype) -> str:
    """A number format as cards and classes write it."""
    return _DTYPE_NAMES[dtype]
