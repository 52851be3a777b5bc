"""The ledger as ordering's application (protocol/ordering/engine.py): what an engine's effects about blocks mean here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from node.chain import Chain, FinalizedBlock
from node.contexts import Contexts
from node.telemetry import Level, Telemetry
from protocol.block import MAX_BLOCK_BYTES, Block
from protocol.errors import InvalidBlock
from protocol.ledger.draft import Ledger
from protocol.ledger.state import BuildContext, get_onion_gap
from protocol.ordering.effects import BuildBlock
from protocol.ordering.messages import MAX_PROPOSAL_BYTES, QuorumCert
from protocol.ordering.state import Context, make_tip
from protocol.units import Hash, Milliseconds

EMPTY_BLOCK_BYTES: Final = 4 * 1024
SIGNATURE_BYTES: Final = (
    70  # in a certificate, with its signer and msgpack's marks; one more stands for the certificate's own fields
)


class BlockSource(Protocol):
    """Where a leader's transactions come from."""

    def list_candidates(self, ledger: Ledger) -> list[bytes]:
        """Encoded transactions for a block on this state, in the order they should be tried."""
        ...

    @property
    def verified(self) -> frozenset[bytes] | set[bytes]:
        """Encoded transactions whose signatures were checked already."""
        ...


@dataclass(frozen=True, slots=True)
class LedgerApp:
    """See App. `finalized` gathers what became final until the end of the engine's turn."""

    chain: Chain
    contexts: Contexts
    source: BlockSource
    telemetry: Telemetry
    reveal: Callable[
        [Ledger, int], Hash | None
    ]  # the preimage `gap` slots after this node's last; None where the onion has none left
    get_position: Callable[[], int]  # how far the vote log has come; stored with every finalized block
    finalized: list[FinalizedBlock]

    def build(self, request: BuildBlock, context: Context, now_ms: Milliseconds) -> Block | None:
        """See App."""
        parent = self.chain.get_executed(request.parent_hash)
        assert parent is not None, request
        proposer, gap, _ = get_onion_gap(parent.ledger, parent.header, request.view)
        reveal = self.reveal(parent.ledger, gap)
        if reveal is None:
            self.telemetry.emit(Level.ERROR, "onion_exhausted", view=request.view, gap=gap)
            return None
        room = _compute_room(request, context)
        if room < EMPTY_BLOCK_BYTES:
            self.telemetry.emit(Level.ERROR, "justification_too_large", view=request.view, parent=request.parent_view)
            return None
        build = BuildContext(
            epoch=context.epoch,
            view=request.view,
            proposer=proposer,
            time_ms=max(now_ms, request.not_before_ms),
            beacon_reveal=reveal,
            candidates=self.source.list_candidates(parent.ledger) if room >= MAX_BLOCK_BYTES else (),
        )
        return self.chain.build(request.parent_hash, build, self.source.verified).block

    def check(self, block: Block) -> bool:
        """See App."""
        try:
            self.chain.check(block, self.source.verified)
        except InvalidBlock as error:
            header = block.header
            self.telemetry.emit(
                Level.WARNING, "block_refused", height=header.height, view=header.view, reason=error.reason.value,
                text=str(error),
            )  # fmt: skip
            return False
        return True

    def finalize(self, block_hashes: tuple[Hash, ...], cert: QuorumCert) -> None:
        """See App."""
        self.finalized.extend(self.chain.finalize(block_hashes, cert, self.get_position()))

    def start_epoch(self, cert: QuorumCert) -> Context:
        """See App: the validators whom the state names."""
        final = self.chain.final
        context = self.contexts.make(final.ledger, make_tip(final.hash, final.header), cert)
        self.telemetry.emit(
            Level.INFO, "epoch_started", epoch=context.epoch, height=final.header.height,
            validators=len(context.validators.members), signs=context.own is not None,
        )  # fmt: skip
        return context


def _compute_room(request: BuildBlock, context: Context) -> int:
    """The bytes that a proposal's justification leaves for the block: one certificate for each skipped view."""
    certs = request.view - request.parent_view
    return MAX_PROPOSAL_BYTES - certs * SIGNATURE_BYTES * (len(context.validators.members) + 1)
