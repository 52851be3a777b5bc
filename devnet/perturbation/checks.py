"""What must hold after a run, as pure functions of what was gathered: one chain, nothing lost that was final, nobody punished."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from devnet.perturbation.load import Acknowledged
from devnet.perturbation.sightings import Look


@dataclass(frozen=True, slots=True)
class BlockSeen:
    """A final block as a node tells it after the run."""

    height: int
    block_hash: str
    state_root: str
    transactions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Estate:
    """A state on a stopped node's disk, added up. Units: micro-units; `bonds` by node id, unbonding included."""

    height: int
    state_root: str
    held: int
    burned: int
    bonds: Mapping[str, int]
    convicted: tuple[str, ...]


def find_forks(chains: Mapping[int, Sequence[BlockSeen]], looks: Iterable[Look]) -> list[str]:
    """Every height with more than one block: among the nodes' chains now, and against what any node ever told was final."""
    told: dict[int, dict[str, set[int]]] = {}
    for node, chain in chains.items():
        for block in chain:
            told.setdefault(block.height, {}).setdefault(block.block_hash, set()).add(node)
    for look in looks:
        if look.height:
            told.setdefault(look.height, {}).setdefault(look.block_hash, set()).add(look.node)
    return [
        f"height {height}: " + "; ".join(f"{name[:16]} at {sorted(nodes)}" for name, nodes in sorted(hashes.items()))
        for height, hashes in sorted(told.items())
        if len(hashes) > 1
    ]


def find_unequal_states(chains: Mapping[int, Sequence[BlockSeen]]) -> list[str]:
    """Every height at which nodes that have the same block say different states of it."""
    roots: dict[tuple[int, str], set[str]] = {}
    for chain in chains.values():
        for block in chain:
            roots.setdefault((block.height, block.block_hash), set()).add(block.state_root)
    return [
        f"height {height}: {len(found)} state roots" for (height, _), found in sorted(roots.items()) if len(found) > 1
    ]


def find_missing_heights(chains: Mapping[int, Sequence[BlockSeen]], height: int) -> list[str]:
    """Every node without a block that it should have."""
    problems: list[str] = []
    for node, chain in sorted(chains.items()):
        missing = set(range(1, height + 1)) - {block.height for block in chain}
        if missing:
            problems.append(
                f"node {node} lacks {len(missing)} blocks up to height {height}, the first at {min(missing)}"
            )
    return problems


def find_lost(acknowledged: Iterable[Acknowledged], chains: Mapping[int, Sequence[BlockSeen]]) -> list[str]:
    """Every transaction that a node told was final and that some node does not have."""
    held = {node: {name for block in chain for name in block.transactions} for node, chain in chains.items()}
    lost: list[str] = []
    for each in acknowledged:
        without = sorted(node for node, names in held.items() if each.transaction not in names)
        if without:
            lost.append(f"{each.transaction[:16]}, told final by node {each.node}, is absent at nodes {without}")
    return lost


def compute_missing_units(minted: int, estates: Iterable[Estate]) -> int:
    """How far the worst of the states is from holding or having burned what the genesis made. Units: micro-units"""
    return max((abs(minted - estate.held - estate.burned) for estate in estates), default=0)


def compute_lost_bonds(bonds: Mapping[str, int], estate: Estate) -> int:
    """What honest validators' bonds have lost without a conviction: commits whose reveal did not come. Units: micro-units"""
    return sum(bond - estate.bonds.get(node, 0) for node, bond in bonds.items() if node not in estate.convicted)


def find_progress_without_quorum(looks: Iterable[Look], from_s: float, to_s: float) -> int:
    """How many heights became final between these times, at the node that tells most. Units: monotonic seconds"""
    heights: dict[int, list[int]] = {}
    for look in looks:
        if look.began_s >= from_s and look.ended_s <= to_s:
            heights.setdefault(look.node, []).append(look.height)
    return max((max(each) - min(each) for each in heights.values()), default=0)
