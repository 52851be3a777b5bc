"""What must hold whatever the network and less than a third of the weight do: watched at every step of every honest node."""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol.errors import InvalidMessage
from protocol.evidence import Evidence, check_evidence
from protocol.ordering.messages import QuorumCert, VoteKind
from protocol.ordering.state import Context
from protocol.ordering.votes import check_quorum_cert
from protocol.units import Hash, NodeId


class Violation(AssertionError):
    """An invariant is broken; the first word names it."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


@dataclass(slots=True)
class Watch:
    """What all honest nodes have shown together."""

    context: Context  # only its public part is used
    byzantine: frozenset[int]
    chain: list[Hash] = field(default_factory=list)  # final blocks by height - 1
    notar: dict[int, Hash] = field(default_factory=dict)
    null: set[int] = field(default_factory=set)
    final: dict[int, Hash] = field(default_factory=dict)
    evidence: set[tuple[int, int, int]] = field(default_factory=set)
    charged: set[int] = field(default_factory=set)
    ignored: frozenset[str] = frozenset()  # invariants not judged: to see what a mutant does to the others

    def break_rule(self, name: str, text: str) -> None:
        """A broken invariant ends the schedule."""
        if name not in self.ignored:
            raise Violation(name, text)

    def see_cert(self, cert: QuorumCert) -> None:
        """An honest node accepted a certificate: one notarized block a view, never final and null."""
        match cert.kind:
            case VoteKind.NOTAR:
                if self.notar.setdefault(cert.view, cert.block_hash) != cert.block_hash:
                    self.break_rule("unique-notar", f"two blocks of view {cert.view} are notarized")
            case VoteKind.NULL:
                self.null.add(cert.view)
            case VoteKind.FINAL:
                if self.final.setdefault(cert.view, cert.block_hash) != cert.block_hash:
                    self.break_rule("unique-final", f"two blocks of view {cert.view} are final")
        if cert.view in self.final and cert.view in self.null:
            self.break_rule("final-and-null", f"view {cert.view} is both final and skipped")

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
        context = self.context
        if cert.kind != VoteKind.FINAL or cert.block_hash != block_hashes[-1]:
            self.break_rule("light-client", f"the certificate of height {height} is not the last block's")
        try:
            check_quorum_cert(cert, context.chain, context.epoch, context.validators, context.verify)
        except InvalidMessage as error:
            self.break_rule("light-client", str(error))

    def see_evidence(self, evidence: Evidence) -> None:
        """Somebody can be proved to have broken a rule: never an honest node."""
        context = self.context
        try:
            check_evidence(evidence, context.chain, context.validators, context.verify)
        except InvalidMessage as error:
            self.break_rule("false-evidence", str(error))
            return
        if evidence.signer not in self.byzantine:
            self.break_rule("framed", f"honest validator {evidence.signer} is accused of {evidence.kind.name}")
        self.evidence.add((evidence.signer, evidence.view, evidence.kind))

    def see_charge(self, peer: NodeId, text: str) -> None:
        """A peer was charged with a fault: never an honest one."""
        index = next(place for place, member in enumerate(self.context.validators.members) if member.node == peer)
        if index not in self.byzantine:
            self.break_rule("charged", f"honest validator {index} is charged: {text}")
        self.charged.add(index)
