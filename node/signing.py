"""From when this node may sign votes (rule R10).

A log that was written beside this chain from its first block on has every vote of its node. Any other may lack some: it was lost, it is an
older copy, or the home is new and its key is not. Then the other validators have to say what they remember. Validators of more than two
thirds of the weight, this node among them, share an honest one with every quorum that it ever signed for; so no epoch in which it can have
signed is more than one above the highest that they are in. Who has lost votes signs again two epochs above that. Who has an empty log, and
of whom none of them remembers a signature that is not in it, signs at once.
"""

from collections.abc import Callable
from typing import Final

from node.records import Place, place_of
from node.stored import LogState
from node.telemetry import Level, Telemetry
from node.vote_log import VoteLog
from node.wire import Recollection
from protocol.crypto import is_signature_valid
from protocol.errors import InvalidMessage, Rejection
from protocol.ordering.events import Record
from protocol.ordering.messages import Proposal, Vote
from protocol.units import ChainId, Epoch, NodeId, View
from protocol.validators import ValidatorSet, index_of, is_quorum
from protocol.voting import vote_signing_bytes

RECOVERY_EPOCHS: Final = 2
AHEAD_EPOCHS: Final = 1  # an honest node that this one has caught up with is at most so far ahead


class Signing:
    """One node's permission to sign; owned by the engine."""

    def __init__(
        self,
        node: NodeId,
        chain: ChainId,
        log: VoteLog,
        state: LogState,
        trust: Callable[[], None],
        telemetry: Telemetry,
    ) -> None:
        self._node: Final = node
        self._chain: Final = chain
        self._log: Final = log
        self._trust: Final = trust
        self._telemetry: Final = telemetry
        self._heard: dict[NodeId, Recollection] = {}
        kept = log.permission
        self._is_lost = state is LogState.BEHIND or (kept is not None and kept.epoch is None)
        self._least: Epoch = 0 if kept is None or kept.epoch is None else kept.epoch
        is_known = state is LogState.COMPLETE and kept is not None and not self._is_lost
        self._from: Epoch | None = self._least if is_known else None
        self._is_bound: Final = (
            is_known  # the log's own votes bind ordering; otherwise nothing is signed up to the last of them
        )
        self._signed: Final = log.signed
        self._report_start()

    @property
    def is_asking(self) -> bool:
        """Whether validators have to say first what they remember."""
        return self._from is None

    @property
    def is_lost(self) -> bool:
        """Whether votes are known to be lost."""
        return self._is_lost

    @property
    def from_epoch(self) -> Epoch | None:
        """The first epoch in which this node may sign; None while that is not known."""
        return self._from

    def may_sign(self, epoch: Epoch) -> bool:
        """Whether this node may sign in an epoch."""
        return self._from is not None and epoch >= max(self._from, self._bound[0])

    def compute_floor(self, epoch: Epoch) -> View:
        """The view up to which nothing is signed in an epoch; in epochs before the bound's nothing is at all."""
        return self._bound[1] if self._bound[0] == epoch else 0

    def is_replayed(self, record: Record) -> bool:
        """Whether ordering gets a record of the log back: own votes only where it may sign again beside them."""
        if not isinstance(record, Vote | Proposal):
            return True
        return self._is_bound and self.may_sign(place_of(record)[0])

    def list_unheard(self, table: ValidatorSet) -> tuple[NodeId, ...]:
        """Which validators are still to be asked; none where nothing has to be known."""
        if not self._needs_answers(table):
            return ()
        return tuple(
            member.node for member in table.members if member.node != self._node and member.node not in self._heard
        )

    def take(self, peer: NodeId, recollection: Recollection, table: ValidatorSet) -> None:
        """Note what a validator said.

        Raises: InvalidMessage(BAD_SIGNATURE) where the vote that it shows is not this node's; StorageFailure.
        """
        if self._from is not None or index_of(table, peer) is None:
            return
        vote = recollection.vote
        if vote is not None:
            self._check_own(vote)
            if not self._is_known(vote) and not self._is_lost:
                self._lose(vote, peer)
        self._heard[peer] = recollection

    def decide(self, table: ValidatorSet, epoch: Epoch) -> bool:
        """Whether it has just become known from when this node may sign; it is durable then.

        Claims of epochs that this node cannot see from its own do not count: it has to catch up first, or they are lies.
        """
        if not self._needs_answers(table):
            return False
        reported = {node: said.epoch for node, said in self._heard.items() if said.epoch <= epoch + AHEAD_EPOCHS} | {
            self._node: epoch
        }
        indexes = {index for node in reported if (index := index_of(table, node)) is not None}
        if not is_quorum(table, indexes):
            return False
        highest = max(reported.values())
        self._from = highest + RECOVERY_EPOCHS if self._is_lost else max(highest, self._least)
        self._log.permit(self._from)
        self._trust()
        self._heard.clear()
        self._report_decision(epoch)
        return True

    @property
    def _bound(self) -> Place:
        """How far there may be signatures that ordering does not get back: not in the log, or in one that is in doubt."""
        return self._log.watermark if self._is_bound else max(self._log.watermark, self._signed)

    def _needs_answers(self, table: ValidatorSet) -> bool:
        return self._from is None and (self._is_lost or index_of(table, self._node) is not None)

    def _check_own(self, vote: Vote) -> None:
        message = vote_signing_bytes(vote.kind, self._chain, vote.epoch, vote.view, vote.block_hash)
        if not is_signature_valid(self._node, message, vote.signature):
            raise InvalidMessage(
                Rejection.BAD_SIGNATURE, f"vote of view {vote.view}: expected one that this node signed, got another's"
            )

    def _is_known(self, vote: Vote) -> bool:
        """Whether the log accounts for a signature: it has the vote, or one behind it, or a watermark that covers it."""
        place = (vote.epoch, vote.view)
        if place <= self._log.watermark or place < self._log.signed:
            return True
        return any(
            (record.kind, record.epoch, record.view, record.block_hash)
            == (vote.kind, vote.epoch, vote.view, vote.block_hash)
            for record in self._log.records
            if isinstance(record, Vote)
        )

    def _lose(self, vote: Vote, peer: NodeId) -> None:
        self._is_lost = True
        self._log.permit(None)
        self._telemetry.emit(
            Level.ERROR, "votes_forgotten", epoch=vote.epoch, view=vote.view, peer=peer,
            text="this key has signed a vote that is not in votes.wal: it ran in another home, or the file was lost. The node follows, and"
            " signs again by itself two epochs above the network's. Never run one key in two homes at once",
        )  # fmt: skip

    def _report_start(self) -> None:
        if self._is_lost:
            self._telemetry.emit(
                Level.ERROR, "votes_wal_behind",
                text="votes.wal was lost, or is older than the chain: this node follows, and signs again by itself two epochs above the"
                " highest that more than two thirds of the weight report. Nothing is to be done but to leave it running",
            )  # fmt: skip
        elif self._from is not None and self._from > 0:
            self._telemetry.emit(Level.INFO, "signing_from", epoch=self._from)

    def _report_decision(self, epoch: Epoch) -> None:
        assert self._from is not None
        if self._is_lost:
            self._telemetry.emit(
                Level.WARNING, "signing_from", epoch=self._from, now_epoch=epoch,
                text=f"this node signs again from epoch {self._from} on, by itself; it is epoch {epoch} now",
            )  # fmt: skip
        else:
            self._telemetry.emit(Level.INFO, "signing_from", epoch=self._from, now_epoch=epoch)
