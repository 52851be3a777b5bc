"""What must hold whatever the network and less than a third of the weight do: watched at every step of every honest node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from protocol.block import compute_header_hash
from protocol.errors import InvalidMessage
from protocol.evidence import Evidence, check_evidence, find_vote_conflict
from protocol.ordering.messages import Proposal, QuorumCert, Vote, VoteKind
from protocol.ordering.state import Context
from protocol.ordering.votes import check_quorum_cert
from protocol.units import Hash, NodeId
from protocol.validators import compute_leader

Place: TypeAlias = tuple[int, int]
"""An epoch and a view."""


class Violation(AssertionError):
    """An invariant is broken; the first word names it."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


@dataclass(slots=True)
class Watch:
    """What all honest nodes have shown together."""

    context: Context  # of the first epoch; only its public part is used
    byzantine: frozenset[int]  # by identity: the place in `names`
    names: tuple[NodeId, ...] = ()  # the first epoch's validators, and whoever may join; empty: nobody joins
    chain: list[Hash] = field(default_factory=list)  # final blocks by height - 1
    epochs: dict[int, Context] = field(default_factory=dict)
    notar: dict[Place, Hash] = field(default_factory=dict)
    null: set[Place] = field(default_factory=set)
    final: dict[Place, Hash] = field(default_factory=dict)
    cast: dict[tuple[NodeId, int, int], dict[Vote, None]] = field(default_factory=dict)
    proposed: dict[tuple[NodeId, int, int], Hash] = field(default_factory=dict)
    evidence: set[tuple[int, int, int]] = field(default_factory=set)
    charged: set[int] = field(default_factory=set)
    ignored: frozenset[str] = frozenset()  # invariants not judged: to see what a mutant does to the others

    def __post_init__(self) -> None:
        self.epochs[self.context.epoch] = self.context
        self.names = self.names or tuple(member.node for member in self.context.validators.members)

    def break_rule(self, name: str, text: str) -> None:
        """A broken invariant ends the schedule."""
        if name not in self.ignored:
            raise Violation(name, text)

    def see_epoch(self, context: Context) -> None:
        """An honest node is in an epoch: the same block, validators and leaders for everybody."""
        known = self.epochs.setdefault(context.epoch, context)
        if describe_epoch(known) != describe_epoch(context):
            self.break_rule("same-epoch", f"two nodes differ about epoch {context.epoch}")

    def see_signed(self, node: NodeId, message: Vote | Proposal) -> None:
        """An honest node says what it signed: never, whatever it has forgotten, what contradicts something that it said before."""
        if isinstance(message, Proposal):
            place = node, message.block.header.epoch, message.view
            block_hash = compute_header_hash(message.block.header)
            if self.proposed.setdefault(place, block_hash) != block_hash:
                self.break_rule("framed", f"an honest validator proposed two blocks in view {place[1:]}")
            return
        votes = self.cast.setdefault((node, message.epoch, message.view), {})
        if any(find_vote_conflict(message, other) is not None for other in votes):
            self.break_rule("framed", f"an honest validator contradicted itself in view {message.view}")
        votes[message] = None

    def see_cert(self, cert: QuorumCert) -> None:
        """An honest node accepted a certificate: one notarized block a view, never final and null."""
        place = cert.epoch, cert.view
        match cert.kind:
            case VoteKind.NOTAR:
                if self.notar.setdefault(place, cert.block_hash) != cert.block_hash:
                    self.break_rule("unique-notar", f"two blocks of view {place} are notarized")
            case VoteKind.NULL:
                self.null.add(place)
            case VoteKind.FINAL:
                if self.final.setdefault(place, cert.block_hash) != cert.block_hash:
                    self.break_rule("unique-final", f"two blocks of view {place} are final")
        if place in self.final and place in self.null:
            self.break_rule("final-and-null", f"view {place} is both final and skipped")

    def see_final(self, height: int, block_hashes: tuple[Hash, ...], cert: QuorumCert) -> None:
        """An honest node made blocks final, the first at a height: all honest nodes' chains are prefixes of one."""
        for offset, block_hash in enumerate(block_hashes):
            place = height + offset - 1
            if place < len(self.chain):
                if self.chain[place] != block_hash:
                    self.break_rule("prefix", f"two blocks of height {height + offset} are final")
            elif place == len(self.chain):
                self.chain.append(block_hash)
            else:
                self.break_rule("prefix", f"height {height + offset} is final before {len(self.chain) + 1}")
        context = self.epochs[cert.epoch]
        if cert.kind != VoteKind.FINAL or cert.block_hash != block_hashes[-1]:
            self.break_rule("light-client", f"the certificate of height {height} is not the last block's")
        try:
            check_quorum_cert(cert, context.chain, context.epoch, context.validators, context.verify)
        except InvalidMessage as error:
            self.break_rule("light-client", str(error))

    def see_evidence(self, evidence: Evidence) -> None:
        """Somebody can be proved to have broken a rule: never an honest node."""
        context = self.epochs[evidence.epoch]
        try:
            check_evidence(evidence, context.chain, context.validators, context.verify)
        except InvalidMessage as error:
            self.break_rule("false-evidence", str(error))
            return
        accused = self.names.index(context.validators.members[evidence.signer].node)
        if accused not in self.byzantine:
            self.break_rule("framed", f"honest validator {accused} is accused of {evidence.kind.name}")
        self.evidence.add((accused, evidence.view, evidence.kind))

    def see_charge(self, peer: NodeId, text: str) -> None:
        """A peer was charged with a fault: never an honest one."""
        index = self.names.index(peer)
        if index not in self.byzantine:
            self.break_rule("charged", f"honest node {index} is charged: {text}")
        self.charged.add(index)

    def list_null_leaders(self) -> set[int]:
        """Who led the views that were skipped."""
        contexts = ((self.epochs[epoch], view) for epoch, view in self.null)
        leaders = (
            (context, compute_leader(context.validators, context.chain, context.epoch, context.seed, view))
            for context, view in contexts
        )
        return {self.names.index(context.validators.members[leader].node) for context, leader in leaders}


def describe_epoch(context: Context) -> tuple[object, ...]:
    """What must be the same for everybody in an epoch."""
    return context.start, context.validators, context.seed, context.boundary
