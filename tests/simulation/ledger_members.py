"""Members of committees: what a simulated node says for the jobs it is drawn for. The honest one is what node/member.py does.

An answer is a pure function of the request and its seed. Answers and salts are durable; what is being generated is not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256
from typing import Final

from protocol.crypto import SigningKey
from protocol.digest import Digest, DigestFamily
from protocol.jobs.settlement import JOB_CODEC
from protocol.ledger.draft import Ledger
from protocol.ledger.entries import open_job_key
from protocol.ledger.queries import GenerateDuty, RevealDuty, list_duties
from protocol.models import SamplingKind, StopReason, TextOutput, compute_output_hash
from protocol.transactions import Commit, JobRequest, JobTransaction, Reveal, RevealPayload, compute_commitment
from protocol.units import ZERO_HASH, Hash, JobId, NodeId
from tests.protocol.builders import ABSTENTION


class Conduct(Enum):
    """How a member behaves."""

    HONEST = "honest"
    HASTY = "hasty"  # reveals together with its commit, before the commits are closed
    CHEAP = "cheap"  # runs a smaller model; all that do agree with each other
    ABSTAINER = "abstainer"
    ABSENT = "absent"  # never commits
    MUTE = "mute"  # commits, never reveals
    COPIER = "copier"  # commits to the commitment of another, and tries to open it with the other's reveal


CORRECT: Final = frozenset({Conduct.HONEST, Conduct.HASTY})
"""Who gives the right answer."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What storage keeps of an answer."""

    payload: RevealPayload
    salt: Hash
    output: TextOutput | None


def answer(request: JobRequest, seed: Hash, member: NodeId, *, is_cheap: bool) -> TextOutput:
    """The model: greedy answers depend on the prompt alone, sampled ones on the seed as well; images differ a little by machine."""
    drawn = seed if request.settings.kind is SamplingKind.SAMPLE else b""
    text = sha256(b"cheap" * is_cheap + request.prompt + drawn).hexdigest()[:8]
    return TextOutput(request.model, tuple(text.encode()), text, StopReason.END)


def make_digest(family: DigestFamily, output: TextOutput, member: NodeId) -> tuple[TextOutput, Digest]:
    """The output as this member's machine makes it, and its digest."""
    bits = sha256(b"digest" + output.text.encode()).digest()
    if family is not DigestFamily.SYNTHETIC64:
        return output, Digest(family, bits)
    noise = (
        1 << member[0] % 64 | 1 << member[1] % 64
    )  # two bits: any two machines are at most 4 of the tolerated 10 apart
    noisy = (int.from_bytes(bits[:8], "big") ^ noise).to_bytes(8, "big")
    text = f"{output.text} on {member[:2].hex()}"
    return TextOutput(output.model, tuple(text.encode()), text, output.stop), Digest(family, noisy)


@dataclass(slots=True)
class Member:
    """One account that holds seats, and its conduct. `heard` are the reveals of others, which only a copier uses."""

    key: SigningKey
    chain: Hash
    conduct: Conduct
    variant: bytes = b""  # twins have the same key and different salts
    answers: dict[JobId, KeptAnswer] = field(default_factory=dict)  # durable
    generating: set[JobId] = field(default_factory=set)
    heard: dict[JobId, Reveal] = field(default_factory=dict)

    @property
    def node(self) -> NodeId:
        return self.key.public

    def list_requests(self, final: Ledger) -> list[GenerateDuty]:
        """What to start generating now."""
        if self.conduct is Conduct.ABSENT:
            return []
        duties = [
            duty
            for duty in list_duties(final, self.node)
            if isinstance(duty, GenerateDuty) and duty.job not in self.answers and duty.job not in self.generating
        ]
        self.generating.update(duty.job for duty in duties)
        return duties

    def keep_answer(self, duty: GenerateDuty) -> None:
        """An answer is there, durable before anything that binds it leaves."""
        self.generating.discard(duty.job)
        salt = sha256(b"salt" + self.variant + duty.job + self.node).digest()
        if self.conduct is Conduct.ABSTAINER:
            self.answers[duty.job] = KeptAnswer(ABSTENTION, salt, None)
            return
        plain = answer(duty.request, duty.seed, self.node, is_cheap=self.conduct is Conduct.CHEAP)
        output, digest = make_digest(duty.card.family, plain, self.node)
        payload = RevealPayload(False, compute_output_hash(output), digest, ZERO_HASH, 1_000_000)
        self.answers[duty.job] = KeptAnswer(payload, salt, output)

    def list_owed(self, final: Ledger) -> list[JobTransaction]:
        """What this member sends on this final state, again and again until it is in a block."""
        owed: list[JobTransaction] = []
        for duty in list_duties(final, self.node):
            kept = self.answers.get(duty.job)
            if kept is None:
                continue
            match duty:
                case GenerateDuty():
                    owed.extend(self._commit(final, duty.job, kept))
                case RevealDuty():
                    owed.extend(self._reveal(duty.job, kept))
        return owed

    def _commit(self, final: Ledger, job: JobId, kept: KeptAnswer) -> list[JobTransaction]:
        if self.conduct is Conduct.COPIER:
            entries = JOB_CODEC.decode(final.entries[open_job_key(job)]).entries
            return [Commit(self.node, job, entry.commitment) for entry in entries if entry.member != self.node][:1]
        commitment = compute_commitment(self.chain, job, self.node, kept.payload, kept.salt)
        commit = Commit(self.node, job, commitment)
        if self.conduct is Conduct.HASTY:
            return [commit, Reveal(self.node, job, kept.payload, kept.salt)]
        return [commit]

    def _reveal(self, job: JobId, kept: KeptAnswer) -> list[JobTransaction]:
        if self.conduct is Conduct.MUTE:
            return []
        if self.conduct is Conduct.COPIER:
            other = self.heard.get(job)
            return [] if other is None else [Reveal(self.node, job, other.payload, other.salt)]
        return [Reveal(self.node, job, kept.payload, kept.salt)]
