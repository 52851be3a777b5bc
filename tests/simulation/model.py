"""An explicit-state model of the voting rules: every state that honest validators can get into, whatever is delivered when.

    python -m tests.simulation.model [--views 3] [--byzantine 1] [--broken RULE]

Four equal validators. A message, once sent, may reach anybody at any later time, or never; so a step of the model is one honest vote, and
it is possible as soon as the votes that justify it exist: its delivery is the moment of its use. The Byzantine have no state: any
vote of theirs, and as leaders any proposal with a complete justification, exists when it is useful. Timers and current views are left out: a
validator may give up on any view at any time, ahead of it and behind it (R4, R6 and R8 only take possibilities away). Bodies are
always held, blocks always valid (application). Honest validators are interchangeable, and so are two blocks of a leader on one parent.

Rules kept: R2 (one Notar a view, a certified parent, a NullCert for every view between), R3 (own Notar on the notarized block, no own Null),
R4 (no own Final), R5 (a quorum is three of four), R7 (what is final, and which blocks contradict each other).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final, TypeAlias

VALIDATORS: Final = 4
QUORUM: Final = 3
BREAKABLE: Final = ("one-notar", "own-notar", "final-after-null", "null-after-final", "gap")

ViewVotes: TypeAlias = tuple[
    int, int, int
]  # blocks with a Notar (bits), Null (0 or 1), the block with a Final (bit) or 0
Ballot: TypeAlias = tuple[ViewVotes, ...]  # of one honest validator, by view
State: TypeAlias = tuple[Ballot, ...]  # of all of them, sorted

NO_VOTES: Final = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class ModelBlock:
    """A block that could be proposed: `bit` names it, the genesis has bit 0."""

    bit: int
    view: int
    parent: int
    parent_view: int
    twin: int  # the first block of a Byzantine leader on this parent, where this is the second; else 0
    ancestors: int  # bits, itself included


@dataclass(frozen=True, slots=True)
class Certs:
    """What quorums exist in a state: blocks by bits, skipped views by bits."""

    notar: int
    null: int
    final: int
    voted: int  # blocks that some honest validator voted for


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to; `broken` is empty where every state is good."""

    states: int
    seconds: float
    broken: str
    state: State | None


@dataclass(frozen=True, slots=True)
class Model:
    """A table of blocks and which rules hold. `led` are the views with a Byzantine leader."""

    views: int
    byzantine: int
    led: frozenset[int]
    broken: str
    blocks: tuple[ModelBlock, ...]
    proposable: tuple[int, ...]  # the blocks of each view, by bits

    def start(self) -> State:
        return ((NO_VOTES,) * self.views,) * (VALIDATORS - self.byzantine)

    def count_certs(self, state: State) -> Certs:
        """Quorums of honest votes with the help of all Byzantine ones."""
        needed = max(1, QUORUM - self.byzantine)
        notar = null = final = voted = 0
        for view in range(self.views):
            votes = [ballot[view] for ballot in state]
            if sum(vote[1] for vote in votes) >= needed:
                null |= 1 << view + 1
            masks = [vote[0] for vote in votes]
            for mask in masks:
                voted |= mask
            finals = [vote[2] for vote in votes]
            notar |= at_least(needed, masks)
            final |= at_least(needed, finals)
        return Certs(notar, null, final, voted)

    def list_steps(self, state: State, certs: Certs) -> Iterator[State]:
        """Every state that one honest vote leads to."""
        acceptable = sum(block.bit for block in self.blocks if self.is_acceptable(block, certs))
        for place, ballot in enumerate(state):
            if place and ballot == state[place - 1]:
                continue
            for view in range(self.views):
                known = self.proposable[view]
                for votes in self.list_votes(ballot[view], known & acceptable, known & certs.notar):
                    changed = (*ballot[:view], votes, *ballot[view + 1 :])
                    yield tuple(sorted((*state[:place], changed, *state[place + 1 :])))

    def list_votes(self, votes: ViewVotes, acceptable: int, notarized: int) -> Iterator[ViewVotes]:
        """What a validator's votes of a view can become."""
        notar, null, final = votes
        if not null and (not final or self.broken == "null-after-final"):  # R4
            yield notar, 1, final
        if not notar or self.broken == "one-notar":  # R2
            for bit in split_bits(acceptable & ~notar):
                yield notar | bit, null, final
        if not final and (not null or self.broken == "final-after-null"):  # R3
            for bit in split_bits(notarized if self.broken == "own-notar" else notarized & notar):
                yield notar, null, bit

    def is_acceptable(self, block: ModelBlock, certs: Certs) -> bool:
        """R2: a leader could have proposed it, with a complete justification."""
        if block.parent and not (certs.notar | certs.final) & block.parent:
            return False
        between = (1 << block.view) - (1 << block.parent_view + 1)
        if certs.null & between != between and self.broken != "gap":
            return False
        if block.view in self.led:
            return not block.twin or bool(certs.voted & block.twin)
        return not certs.voted & self.proposable[block.view - 1] & ~block.bit  # an honest leader proposes once

    def find_fault(self, state: State, certs: Certs) -> str:
        """The first broken invariant, or nothing."""
        for block in self.blocks:
            if not (certs.notar | certs.final) & block.bit:
                continue
            if certs.notar & block.bit and certs.notar & self.proposable[block.view - 1] & ~block.bit:
                return "two NotarCerts of one view"
            if certs.final & block.bit and (fault := self.find_contested(block, certs)):
                return fault
        return next((fault for ballot in state for votes in ballot if (fault := find_contradiction(votes))), "")

    def find_contested(self, block: ModelBlock, certs: Certs) -> str:
        """What contradicts a final block."""
        if certs.null & 1 << block.view:
            return "FinalCert and NullCert of one view"
        if not certs.notar & block.bit:
            return "FinalCert without NotarCert"
        for other in self.blocks:
            is_linked = other.ancestors & block.bit or block.ancestors & other.bit
            if certs.final & other.bit and not is_linked:
                return "two FinalCerts that no chain contains"
            if certs.notar & other.bit and other.view > block.view and not is_linked:
                return "a NotarCert beside a final block"
        return ""

    def is_stuck(self, certs: Certs) -> bool:
        """Whether some view has no certificate: checked where nobody honest has anything left to vote."""
        views = certs.null
        for block in self.blocks:
            if certs.notar & block.bit:
                views |= 1 << block.view
        return views != (1 << self.views + 1) - 2


def split_bits(mask: int) -> Iterator[int]:
    """The single bits of a mask."""
    while mask:
        bit = mask & -mask
        yield bit
        mask ^= bit


def at_least(needed: int, masks: list[int]) -> int:
    """The bits that so many masks share."""
    found = 0
    for chosen in combinations(masks, min(needed, len(masks))):
        common = chosen[0]
        for mask in chosen[1:]:
            common &= mask
        found |= common
    return found


def find_contradiction(votes: ViewVotes) -> str:
    """What one honest validator's votes of a view prove against it."""
    notar, null, final = votes
    if null and final:
        return "an honest validator signed Null and Final"
    if notar & (notar - 1):
        return "an honest validator signed two Notars"
    return "an honest validator signed Final without that Notar" if final & ~notar else ""


def make_model(views: int, byzantine: int, led: frozenset[int], broken: str = "") -> Model:
    """All blocks that leaders could propose: a Byzantine one two on each parent, an honest one any one."""
    blocks: list[ModelBlock] = []
    for view in range(1, views + 1):
        parents = [(0, 0, 0), *((block.bit, block.view, block.ancestors) for block in blocks if block.view < view)]
        for parent, parent_view, ancestors in parents:
            first = 0
            for _ in range(2 if view in led else 1):
                bit = 1 << len(blocks)
                blocks.append(ModelBlock(bit, view, parent, parent_view, first, ancestors | bit))
                first = bit
    proposable = tuple(sum(block.bit for block in blocks if block.view == view) for view in range(1, views + 1))
    return Model(views, byzantine, led, broken, tuple(blocks), proposable)


def search(model: Model, *, judged: bool = True) -> Found:
    """Breadth first through every reachable state; ends at the first that is not good.

    `judged`: honest validators' own contradictions count too; without it only what the certificates of a state say.
    """
    started = time.perf_counter()
    seen = {model.start()}
    front = list(seen)
    while front:
        following: list[State] = []
        for state in front:
            certs = model.count_certs(state)
            fault = model.find_fault(state if judged else (), certs)
            steps = list(model.list_steps(state, certs))
            if not fault and not steps and model.is_stuck(certs):
                fault = "nobody can vote any more, and a view has no certificate"
            if fault:
                return Found(len(seen), time.perf_counter() - started, fault, state)
            fresh = [step for step in steps if step not in seen]
            seen.update(fresh)
            following.extend(dict.fromkeys(fresh))
        front = following
    return Found(len(seen), time.perf_counter() - started, "", None)


def list_schedules(views: int) -> list[frozenset[int]]:
    """Which views the Byzantine lead: every subset."""
    every = range(1, views + 1)
    return [frozenset(chosen) for size in range(views + 1) for chosen in combinations(every, size)]


def main(arguments: list[str]) -> int:
    """The exit code: 1 where some state is not good."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.model", description="All states of the voting rules."
    )
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--byzantine", type=int, default=1, help="how many of the four")
    parser.add_argument("--broken", choices=BREAKABLE, default="", help="a rule that honest validators do not keep")
    options = parser.parse_args(arguments)
    is_bad, total, seconds = False, 0, 0.0
    for led in list_schedules(options.views):
        found = search(make_model(options.views, options.byzantine, led, options.broken))
        leaders = "".join("B" if view in led else "H" for view in range(1, options.views + 1))
        print(
            f"leaders {leaders}: {found.states} states, {found.seconds:.1f} s, {found.broken or 'all good'}", flush=True
        )
        if found.state is not None:
            print(f"  {found.state}")
        is_bad, total, seconds = is_bad or bool(found.broken), total + found.states, seconds + found.seconds
    print(f"{options.views} views, {options.byzantine} of {VALIDATORS} Byzantine: {total} states in {seconds:.1f} s")
    return 1 if is_bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
