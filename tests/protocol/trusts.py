"""A chain whose validators change, as a stranger sees it: boundary headers, the votes that make them final, the sets that follow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from protocol.block import Header, compute_header_hash
from protocol.genesis import Genesis, compute_chain_id, compute_validator_set
from protocol.ordering.messages import QuorumCert, VoteKind
from protocol.trust import ChainStep, TrustedHeader
from protocol.units import ZERO_HASH
from protocol.validators import Validator, ValidatorSet, compute_validator_set_hash
from protocol.voting import vote_signing_bytes
from tests.protocol.builders import START_MS, make_genesis, make_hash, make_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMES = tuple(f"v{index}" for index in range(40))
KEYS = {make_key(name).public: make_key(name) for name in NAMES}
BLOCK_MS = 100


def make_set(*names: str, weight: int = 100) -> ValidatorSet:
    """These validators, equally heavy."""
    return ValidatorSet(tuple(Validator(make_key(name).public, weight) for name in names))


def sign_final(
    header: Header, validators: ValidatorSet, signers: Sequence[int] | None = None, view: int | None = None
) -> QuorumCert:
    """The votes of these validators (by default of all) that make a block final."""
    indexes = tuple(range(len(validators.members))) if signers is None else tuple(signers)
    block_hash, at = compute_header_hash(header), header.view if view is None else view
    message = vote_signing_bytes(VoteKind.FINAL, header.chain_id, header.epoch, at, block_hash)
    signatures = tuple(KEYS[validators.members[index].node].sign(message) for index in indexes)
    return QuorumCert(VoteKind.FINAL, header.epoch, at, block_hash, indexes, signatures)


@dataclass
class Line:
    """A chain of which only headers exist. `sets` says which set votes from which epoch on."""

    sets: dict[int, ValidatorSet] = field(default_factory=dict)
    genesis: Genesis = field(default_factory=make_genesis)

    def get_set(self, epoch: int) -> ValidatorSet:
        """The set of an epoch."""
        return {0: compute_validator_set(self.genesis), **self.sets}[max(at for at in (0, *self.sets) if at <= epoch)]

    def make_header(self, height: int, /, **changes: object) -> Header:
        """The header of a height; every view after the first was used up twice."""
        epoch = (height - 1) // self.genesis.params.epoch_heights
        header = Header(
            chain_id=compute_chain_id(self.genesis),
            epoch=epoch,
            leader_seed=make_hash(f"seed {epoch}"),
            view=2 * height,
            height=height,
            parent_view=2 * height - 2,
            parent_hash=make_hash(f"block {height - 1}"),
            tx_root=ZERO_HASH,
            state_root=make_hash(f"state {height}"),
            valset_hash=compute_validator_set_hash(self.get_set(epoch)),
            next_valset_hash=compute_validator_set_hash(self.get_set(epoch + 1)),
            candidates_root=ZERO_HASH,
            beacon_reveal=make_hash(f"reveal {height}"),
            beacon=make_hash(f"beacon {height}"),
            time_ms=START_MS + height * BLOCK_MS,
        )
        return replace(header, **changes)

    def make_boundary(self, epoch: int, /, **changes: object) -> Header:
        """The header of an epoch's last block."""
        return self.make_header((epoch + 1) * self.genesis.params.epoch_heights, **changes)

    def make_step(
        self,
        epoch: int,
        signers: Sequence[int] | None = None,
        cast_at: int | None = None,
        changes: Mapping[str, object] | None = None,
    ) -> ChainStep:
        """The change at the end of an epoch."""
        header = self.make_boundary(epoch, **(changes or {}))
        return ChainStep(header, sign_final(header, self.get_set(epoch), signers, cast_at), self.get_set(epoch + 1))

    def list_steps(self) -> tuple[ChainStep, ...]:
        """All changes."""
        return tuple(self.make_step(epoch - 1) for epoch in sorted(self.sets))

    def make_trusted(self, height: int, *, is_proven: bool = True) -> TrustedHeader:
        """The header of a height with its set."""
        header = self.make_header(height)
        validators = self.get_set(header.epoch)
        return TrustedHeader(header, validators, sign_final(header, validators) if is_proven else None)


def make_line() -> Line:
    """A chain whose set changed with epochs 2, 3 and 7; that of epoch 3 came back with epoch 9."""
    third = make_set("v2", "v3", "v4", "v5", "v6", "v7")
    return Line(
        {
            2: make_set("v0", "v1", "v2", "v3", "v4", "v5"),
            3: third,
            7: make_set("v10", "v11", "v12", "v13"),
            9: third,
        }
    )
