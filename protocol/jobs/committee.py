"""Who answers a job: candidates frozen in a snapshot, a tree of their weights, and the draw of seats that anyone can repeat.

The draw needs of a candidate only where its interval of the total weight begins and ends. A sum tree proves exactly that, so a
certificate carries the paths of the drawn and the skipped, and a stranger repeats the draw without the other candidates.

Attempt a takes a ticket below the weight that is still in, from SHAKE256(DRAW, job, R, a, round); the ticket is moved over the
intervals of those taken out, in order, and falls into one candidate's interval. Source: rules D1-D8.

Signatures beyond the plan: `draw_replacements` takes the first draw, and its result holds only what came after it; `DrawReplay`
is the same draw from proven intervals, for certificates.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count, pairwise
from typing import Annotated, Final

from msgspec import Meta

from protocol.codec import Message
from protocol.crypto import HashDomain, compute_hash, compute_stream
from protocol.merkle import MerkleTree
from protocol.transactions import AgreementRule
from protocol.units import Hash, JobId, ModelId, NodeId, Uint

MAX_PATH: Final = 17  # 65,536 candidates, and one level to spare
MAX_SKIPPED: Final = 512  # a draw that hits more nodes without free bond ends there: job and certificate stay bounded

Sums = tuple[int, int, int]
"""Stake, reputation and executor weight of one candidate or of a subtree."""


class Candidate(Message, frozen=True):
    """A node that may be drawn for a model, with its frozen weights."""

    node: NodeId
    weight_stake: Uint
    weight_reputation: Uint
    weight_executor: Uint


class PathStep(Message, frozen=True):
    """The sibling at one level: whether it stands left, its hash and its sums."""

    is_left: bool
    sibling: Hash
    sum_stake: Uint
    sum_reputation: Uint
    sum_executor: Uint


class CandidatePath(Message, frozen=True):
    """A candidate and its way up to its model's root."""

    candidate: Candidate
    steps: Annotated[tuple[PathStep, ...], Meta(max_length=MAX_PATH)]


@dataclass(frozen=True, slots=True)
class Interval:
    """The part of the total weight, under one rule, that belongs to a node: [start, start + weight)."""

    start: int
    weight: int
    node: NodeId


@dataclass(frozen=True, slots=True)
class Draw:
    """Drawn nodes in order, None where no candidate was left, and who was taken out for not being eligible, in order."""

    members: tuple[NodeId | None, ...]
    skipped: tuple[NodeId, ...]


def weight_of(candidate: Candidate, rule: AgreementRule) -> int:
    """What a candidate weighs in a draw by this rule."""
    match rule:
        case AgreementRule.MAJORITY:
            return candidate.weight_stake
        case AgreementRule.REPUTATION:
            return candidate.weight_reputation


def compute_seat_cap(seats: int, cap_divisor: int) -> int:
    """How many of a job's seats one node may hold."""
    return max(1, seats // cap_divisor)  # D4


# --- the draw


def draw(
    job: JobId,
    beacon: Hash,
    candidates: Sequence[Candidate],
    rule: AgreementRule,
    seats: int,
    cap_divisor: int,
    is_eligible: Callable[[NodeId], bool],
) -> Draw:
    """The holders of a job's n seats, drawn with replacement in proportion to weight."""
    nothing = Draw((), ())
    return draw_replacements(nothing, job, beacon, candidates, rule, seats, cap_divisor, is_eligible, seats)


def draw_replacements(
    earlier: Draw,
    job: JobId,
    beacon: Hash,
    candidates: Sequence[Candidate],
    rule: AgreementRule,
    seats: int,
    cap_divisor: int,
    is_eligible: Callable[[NodeId], bool],
    number: int,
) -> Draw:
    """The next `number` nodes of the same list, behind an earlier draw: caps and skips go on counting."""  # D7
    replay = DrawReplay(job, beacon, compute_seat_cap(seats, cap_divisor), list_intervals(candidates, rule))
    replay.resume(earlier)
    members: list[NodeId | None] = []
    skipped: list[NodeId] = []
    while len(members) < number:
        node = replay.compute_next()
        if node is None:
            members.append(None)
        elif is_eligible(node):
            replay.seat(node)
            members.append(node)
        else:
            replay.skip(node)
            skipped.append(node)
    return Draw(tuple(members), tuple(skipped))


def list_intervals(candidates: Sequence[Candidate], rule: AgreementRule) -> tuple[int, list[Interval]]:
    """The total weight and every candidate's part of it."""
    weights = [weight_of(candidate, rule) for candidate in candidates]
    starts = accumulate(weights, initial=0)
    found = [
        Interval(start, weight, each.node) for start, weight, each in zip(starts, weights, candidates, strict=False)
    ]
    return sum(weights), found


class DrawReplay:
    """A draw under way: the one local copy that changes. It may know only some candidates' intervals."""

    __slots__ = (
        "_attempt",
        "_beacon",
        "_by_node",
        "_cap",
        "_held",
        "_job",
        "_known",
        "_out",
        "_skips",
        "_starts",
        "_total",
    )

    def __init__(self, job: JobId, beacon: Hash, cap: int, weights: tuple[int, Iterable[Interval]]) -> None:
        self._job, self._beacon, self._cap = job, beacon, cap
        self._total, known = weights
        # D2: a candidate without weight has no interval, so nothing falls into it
        self._known = sorted((each for each in known if each.weight), key=lambda each: each.start)
        self._starts = [each.start for each in self._known]
        self._by_node = {each.node: each for each in self._known}
        self._out: list[tuple[int, int]] = []  # start and weight of those taken out, ascending
        self._held: dict[NodeId, int] = {}
        self._attempt = 0
        self._skips = 0

    @property
    def weight_left(self) -> int:
        """The weight of those still in."""
        return self._total - sum(weight for _, weight in self._out)

    def resume(self, earlier: Draw) -> None:
        """Take over what an earlier part of the same list did."""
        for node in earlier.skipped:
            self.skip(node)
        for node in earlier.members:
            if node is not None:
                self.seat(node)

    def compute_next(self) -> NodeId | None:
        """Whom the next ticket falls on, or None where no weight is left or too many were skipped.

        Raises: KeyError if it falls into an interval that is not known: never in a draw from all candidates.
        """
        left = self.weight_left
        if not left or self._skips == MAX_SKIPPED:  # D6
            return None
        place = compute_ticket(self._job, self._beacon, self._attempt, left)
        for start, weight in self._out:  # D3
            if start > place:
                break
            place += weight
        index = bisect_right(self._starts, place) - 1
        if index < 0 or place >= self._starts[index] + self._known[index].weight:
            raise KeyError(place)
        return self._known[index].node

    def seat(self, node: NodeId) -> None:
        """Give the node a seat; at its cap it is taken out."""
        self._attempt += 1
        self._held[node] = self._held.get(node, 0) + 1
        if self._held[node] == self._cap:
            self._take_out(node)

    def skip(self, node: NodeId) -> None:
        """Take a node out that is not eligible."""
        self._attempt += 1  # D5
        self._skips += 1
        self._take_out(node)

    def _take_out(self, node: NodeId) -> None:
        gone = self._by_node[node]
        insort(self._out, (gone.start, gone.weight))


def compute_ticket(job: JobId, beacon: Hash, attempt: int, limit: int) -> int:
    """A number below `limit`, each equally likely: the first of the stream's numbers of that many bits which is below it."""
    bits = (limit - 1).bit_length()
    for turn in count():  # each turn succeeds with a chance of at least one half
        stream = compute_stream(HashDomain.DRAW, 16, job, beacon, attempt.to_bytes(4, "big"), turn.to_bytes(4, "big"))
        ticket = int.from_bytes(stream, "big") >> (128 - bits)
        if ticket < limit:  # D1
            return ticket
    raise AssertionError(limit)


# --- the tree of sums


@dataclass(frozen=True, slots=True)
class SumNode:
    """A node of the sum tree: its hash and the sums under it."""

    digest: Hash
    sums: Sums


@dataclass(frozen=True, slots=True)
class Location:
    """What a path proves: its model's root, the weights left of the candidate, and those of all candidates."""

    root: Hash
    before: Sums = field(default=(0, 0, 0))
    total: Sums = field(default=(0, 0, 0))


def compute_model_root(candidates: Sequence[Candidate]) -> Hash:
    """The sum-tree root over one model's candidates, ordered by node id; none: H(ROOT)."""
    levels = _build_levels(candidates)
    return levels[-1][0].digest if candidates else compute_hash(HashDomain.ROOT)


def prove_candidate(candidates: Sequence[Candidate], index: int) -> CandidatePath:
    """The path of the candidate at an index."""
    steps: list[PathStep] = []
    at = index
    for level in _build_levels(candidates)[:-1]:
        if at ^ 1 < len(level):
            sibling = level[at ^ 1]
            steps.append(PathStep(bool(at & 1), sibling.digest, *sibling.sums))
        at >>= 1
    return CandidatePath(candidates[index], tuple(steps))


def compute_location(path: CandidatePath) -> Location:
    """Where a path leads, and which interval of the total weight it gives its candidate."""
    node = _leaf(path.candidate)
    before: Sums = (0, 0, 0)
    for step in path.steps:
        sibling = SumNode(step.sibling, (step.sum_stake, step.sum_reputation, step.sum_executor))
        if step.is_left:
            before = _add(before, sibling.sums)
            node = _inner(sibling, node)
        else:
            node = _inner(node, sibling)
    return Location(node.digest, before, node.sums)


def check_candidate(root: Hash, path: CandidatePath) -> bool:
    """Whether the candidate with these weights is under its model's root."""
    return compute_location(path).root == root


def get_interval(location: Location, candidate: Candidate, rule: AgreementRule) -> tuple[int, Interval]:
    """The total weight under a rule and the candidate's interval of it."""
    column = 0 if rule is AgreementRule.MAJORITY else 1
    return location.total[column], Interval(location.before[column], weight_of(candidate, rule), candidate.node)


def build_candidates_tree(candidates: Mapping[ModelId, Sequence[Candidate]]) -> MerkleTree:
    """The sorted Merkle tree of model id -> sum-tree root, for proofs; models that nobody serves are left out."""
    served = sorted(model for model, nodes in candidates.items() if nodes)
    return MerkleTree.build((model, compute_model_root(candidates[model])) for model in served)


def compute_candidates_root(candidates: Mapping[ModelId, Sequence[Candidate]]) -> Hash:
    """What a header carries as candidates_root."""
    return build_candidates_tree(candidates).root  # D8


def _build_levels(candidates: Sequence[Candidate]) -> list[list[SumNode]]:
    assert all(left.node < right.node for left, right in pairwise(candidates)), "order by node"
    levels = [[_leaf(candidate) for candidate in candidates]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        row = [_inner(left, right) for left, right in zip(below[::2], below[1::2], strict=False)]
        levels.append([*row, below[-1]] if len(below) & 1 else row)
    return levels


def _leaf(candidate: Candidate) -> SumNode:
    sums = (candidate.weight_stake, candidate.weight_reputation, candidate.weight_executor)
    return SumNode(compute_hash(HashDomain.CANDIDATE_LEAF, candidate.node, _encode_sums(sums)), sums)


def _inner(left: SumNode, right: SumNode) -> SumNode:
    parts = (left.digest, _encode_sums(left.sums), right.digest, _encode_sums(right.sums))
    return SumNode(compute_hash(HashDomain.CANDIDATE_NODE, *parts), _add(left.sums, right.sums))


def _add(left: Sums, right: Sums) -> Sums:
    return (left[0] + right[0], left[1] + right[1], left[2] + right[2])


def _encode_sums(sums: Sums) -> bytes:
    """16 bytes each: 2^17 subtrees of at most 2^63 fit."""
    return b"".join(value.to_bytes(16, "big") for value in sums)
