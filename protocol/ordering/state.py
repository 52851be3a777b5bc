"""What the ordering machine knows: frozen between steps, one local draft within a step.

It is of one epoch; the next one begins with a fresh state (epochs.py).

Bounds: votes and second proposals only for views in [final - view_window_behind, view + view_window_ahead], one vote of each kind
per validator and view, one body per leader and view; everything about older views is dropped when a block becomes final.
"""

from dataclasses import dataclass
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from protocol.block import Block, Header
from protocol.evidence import Evidence
from protocol.ordering.context import Context, Tip
from protocol.ordering.effects import Effect, SetTimer
from protocol.ordering.events import CertReceived, ProposalReceived, Record, Timer, VoteReceived
from protocol.ordering.messages import Proposal, QuorumCert, Vote, VoteKind
from protocol.units import Epoch, Hash, Milliseconds, NodeId, View
from protocol.validators import compute_leader
from protocol.voting import SignedProposal


def make_tip(block_hash: Hash, header: Header) -> Tip:
    """What of a header its children depend on."""
    return Tip(header.view, header.height, block_hash, header.time_ms)


class BlockStatus(Enum):
    """How far a held body has come."""

    HELD = "held"  # its parent is not executed yet, or its proposal may not be voted for yet
    CHECKING = "checking"  # a CheckBlock is under way
    VALID = "valid"  # executed: it can be voted for, built on, finalized
    INVALID = "invalid"


class HeldBlock(Struct, frozen=True):
    """A body above the finalized tip; it is the one its header commits to."""

    block: Block
    status: BlockStatus


class SeenProposal(Struct, frozen=True):
    """The first acceptable proposal of a view: signed by its leader, structure and carried justification complete and valid."""

    block_hash: Hash
    proposal: Proposal


class ViewRecord(Struct, frozen=True):
    """Everything known about one view; every vote, certificate and proposal in it has been verified."""

    leader: int
    proposal: SeenProposal | None = None
    second: SignedProposal | None = None  # of another block, by the same leader
    signed: SignedProposal | None = None  # the first that the leader signed, acceptable or not
    is_refused: bool = False  # it was not: a reason for Null (rule R4), and no other one is looked at
    is_declined: bool = False  # this node leads the view and cannot propose (rule R4)
    is_building: bool = False  # this node leads the view and the application was asked for a block
    votes: dict[tuple[VoteKind, int], Vote] = {}  # the first of each kind and signer; never changed in place
    notar: QuorumCert | None = None
    null: QuorumCert | None = None
    final: QuorumCert | None = None
    evidence: tuple[Evidence, ...] = ()

    @property
    def certs(self) -> tuple[QuorumCert, ...]:
        """The certificates held for this view, the strongest first."""
        return tuple(cert for cert in (self.final, self.notar, self.null) if cert is not None)


class EarlyMessage(Struct, frozen=True):
    """A message of the next epoch, read by nobody yet."""

    event: ProposalReceived | VoteReceived | CertReceived
    size: int  # in bytes


class Claim(Struct, frozen=True):
    """A peer says that it is in a later epoch: a reason to ask, no more."""

    epoch: Epoch
    asked_ms: Milliseconds


class SimplexState(Struct, frozen=True):
    """The machine between two events. Mappings are never changed in place."""

    context: Context
    tip: Tip
    tip_cert: QuorumCert | None  # None while the tip is the genesis; of the epoch before while it is the start
    tip_since_ms: Milliseconds
    view: View
    finalized: dict[View, Hash]  # recent final blocks, for rule R7
    is_started: bool = False
    is_halted: bool = False
    has_work: bool = False
    entered_ms: Milliseconds = 0
    syncing: QuorumCert | None = None
    views: dict[View, ViewRecord] = {}
    blocks: dict[Hash, HeldBlock] = {}
    wanted: dict[Hash, View] = {}  # bodies asked for, with their view
    deadlines: dict[Timer, Milliseconds] = {}
    opened_ms: Milliseconds = 0  # when this node began the epoch
    early: dict[NodeId, tuple[EarlyMessage, ...]] = {}  # of the next epoch, by who sent them
    later: tuple[Record, ...] = ()  # of later epochs, from the log
    answered: dict[NodeId, Milliseconds] = {}  # who was told lately that its epoch is over
    ahead: dict[NodeId, Claim] = {}  # who spoke of a later epoch lately, and was asked how this one ended

    @property
    def is_over(self) -> bool:
        """Whether the epoch's last block is final: nothing is ordered until the next one starts."""
        return self.tip.height >= self.context.boundary

    def get_record(self, view: View) -> ViewRecord | None:
        """What is known about a view."""
        return self.views.get(view)

    def get_certs(self, view: View) -> tuple[QuorumCert, ...]:
        """The answer to a peer's FetchCerts: the certificates held for a view; what is final stands for all views up to it."""
        if view <= self.tip.view:
            return () if self.tip_cert is None else (self.tip_cert,)
        record = self.views.get(view)
        return () if record is None else record.certs

    def get_block(self, block_hash: Hash) -> Block | None:
        """A held body above the finalized tip (invalid ones too: they are what their hash says)."""
        held = self.blocks.get(block_hash)
        return None if held is None else held.block


def make_state(context: Context, tip: Tip, tip_cert: QuorumCert | None, now_ms: Milliseconds) -> SimplexState:
    """The machine as it starts in an epoch on a stored finalized tip of it, or on the epoch's start; its first event must be Replayed."""
    assert (context.own is None) == (context.signer is None), context.own
    return SimplexState(context, tip, tip_cert, now_ms, tip.view + 1, {tip.view: tip.block_hash}, opened_ms=now_ms)


@dataclass(slots=True)
class Draft:
    """The local, mutable copy of one step: the state as it becomes, and the effects so far. It never outlives the step."""

    base: SimplexState
    state: SimplexState
    now_ms: Milliseconds
    effects: list[Effect]
    touched: set[View]  # views whose rules have to be looked at again

    def get_record(self, view: View) -> ViewRecord:
        """What is known about a view: a new record where nothing is."""
        record = self.state.views.get(view)
        if record is not None:
            return record
        context = self.state.context
        return ViewRecord(compute_leader(context.validators, context.chain, context.epoch, context.seed, view))

    def put_record(self, view: View, record: ViewRecord) -> None:
        """Replaces a view's record; its rules will be looked at."""
        if self.state.views is self.base.views:
            self.state = replace(self.state, views=dict(self.base.views))
        self.state.views[view] = record
        self.touched.add(view)

    def put_block(self, block_hash: Hash, held: HeldBlock) -> None:
        """Holds a body, or changes its status; the rules of its view, and of those in which it is proposed again, will be looked at."""
        if self.state.blocks is self.base.blocks:
            self.state = replace(self.state, blocks=dict(self.base.blocks))
        self.state.blocks[block_hash] = held
        self.touched.add(held.block.header.view)
        self.touched.update(self.list_proposing(block_hash))

    def list_proposing(self, block_hash: Hash) -> tuple[View, ...]:
        """The views in which a block is proposed: one, or several where it is an epoch's last."""
        proposals = ((view, record.proposal) for view, record in self.state.views.items())
        return tuple(view for view, seen in proposals if seen is not None and seen.block_hash == block_hash)

    def set_timer(self, timer: Timer, at_ms: Milliseconds) -> None:
        """Starts a timer, instead of its earlier setting."""
        if self.state.deadlines.get(timer) == at_ms:
            return
        self.state = replace(self.state, deadlines=self.state.deadlines | {timer: at_ms})
        self.effects.append(SetTimer(timer, at_ms))

    def get_own_vote(self, kind: VoteKind, view: View) -> Vote | None:
        """This node's own vote of a kind in a view, where it cast one."""
        record = self.state.views.get(view)
        if record is None or self.state.context.own is None:
            return None
        return record.votes.get((kind, self.state.context.own))


def open_draft(state: SimplexState, now_ms: Milliseconds) -> Draft:
    """A draft that shares everything with the state until it is changed."""
    return Draft(state, state, now_ms, [], set())
