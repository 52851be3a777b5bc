"""The RPC methods that give what certificates are judged by: the changes of the validator set, and headers to be trusted."""

from typing import Annotated

import msgspec
from msgspec import Meta

from node.faults import Fault, Trouble
from node.jsonrpc import Context
from protocol.block import compute_header_hash
from protocol.chain_file import encode_chain_file, encode_trusted_header
from protocol.trust import STEP_CODEC
from protocol.units import MAX_UINT


class ChainParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The changes at the end of this epoch and of later ones."""

    from_epoch: Annotated[int, Meta(ge=0, le=MAX_UINT)] = 0


class ChainResult(msgspec.Struct, frozen=True):
    """A chain file with as many changes as one answer holds; the rest begins at next_epoch, none where it is empty."""

    chain: bytes
    steps: int
    next_epoch: int


class CheckpointParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A final block; without a height, the last that has votes of its own."""

    height: Annotated[int, Meta(ge=1, le=MAX_UINT)] | None = None


class CheckpointResult(msgspec.Struct, frozen=True):
    """A final block's header with its validators, as the file of a trusted header holds it; its hash is what people compare."""

    height: int
    hash: str
    epoch: int
    time_ms: int
    trusted_header: bytes


async def read_chain(context: Context, params: ChainParams) -> ChainResult:
    """The changes of the validator set, as a chain file."""
    steps = [STEP_CODEC.decode(encoded) for encoded in context.api.get_steps(params.from_epoch)]
    chain = encode_chain_file(context.api.get_snapshot().chain_id, steps)
    return ChainResult(chain, len(steps), steps[-1].header.epoch + 1 if steps else params.from_epoch)


async def read_checkpoint(context: Context, params: CheckpointParams) -> CheckpointResult:
    """A final block's header to trust, with the validators of its epoch."""
    trusted = context.api.get_trusted_header(params.height)
    if trusted is None:
        tip = context.api.get_snapshot().header.height
        wanted = "no final block yet" if params.height is None else f"no final block {params.height}"
        raise Fault(Trouble.UNKNOWN_BLOCK, f"this node holds {wanted}; its last is {tip}")
    header = trusted.header
    return CheckpointResult(
        height=header.height,
        hash=compute_header_hash(header).hex(),
        epoch=header.epoch,
        time_ms=header.time_ms,
        trusted_header=encode_trusted_header(trusted),
    )
