"""The bounded integers and byte strings that every message is made of.

The bounds are part of the type, so the decoder refuses what does not fit before any other code sees it. They are aliases, not
NewTypes: arithmetic on heights and stakes stays plain, and the bound that matters is checked where bytes come in.
"""

from typing import Annotated, TypeAlias

from msgspec import Meta

MAX_UINT = 2**63 - 1  # the largest integer msgspec can bound; far above every sum of units that params allow

Uint: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_UINT)]
Hash: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
PublicKey: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature: TypeAlias = Annotated[bytes, Meta(min_length=64, max_length=64)]

NodeId: TypeAlias = PublicKey
"""A node is its Ed25519 public key; the same key names its account."""

ChainId: TypeAlias = Hash
JobId: TypeAlias = Hash
ModelId: TypeAlias = Hash

Height: TypeAlias = Uint
View: TypeAlias = Uint
Epoch: TypeAlias = Uint
Nonce: TypeAlias = Uint
Micro: TypeAlias = Uint
"""Units: millionths of a unit of value; stakes, balances and fees."""
Milliseconds: TypeAlias = Uint
PartsPerMillion: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000)]

ZERO_HASH = bytes(32)
