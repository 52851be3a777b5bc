"""The table of everything that comes from outside: what decodes it, and the target that tries it.

tests/fuzz/test_table.py compares it with the product: a decoder that is neither tried here nor excused fails the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fuzz import (
    targets_fetch,
    targets_files,
    targets_gossip,
    targets_ledger,
    targets_rpc,
    targets_trust,
    targets_verifier,
    targets_wire,
    targets_worker,
)

if TYPE_CHECKING:
    from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (
        targets_wire,
        targets_gossip,
        targets_fetch,
        targets_trust,
        targets_ledger,
        targets_rpc,
        targets_files,
        targets_worker,
        targets_verifier,
    )
    for target in module.TARGETS
}

_OWN = "reads what this program wrote or computed itself"
_BENCH = "a measuring command reads its own processes"
_JUDGE = "the judge of a perturbed devnet reads what its own commands exported"
EXCUSED: dict[str, str] = {
    "protocol/codec.py::Codec.__init__": "the decoder of every codec",
    "node/bench_votes.py::_DECODER": _BENCH,
    "node/bench_votes.py::main": _BENCH,
    "node/bench_votes.py::measure_votes": _BENCH,
    "node/commands/bench_compare.py::measure_comparison": _BENCH,
    "devnet/perturbation/gather.py::_decode": _JUDGE,
    "devnet/perturbation/gather.py::add_up": _JUDGE,
    "devnet/perturbation/gather.py::check_disk": _JUDGE,
    "devnet/demo.py::_ask": "the demo reads its own commands",
    "devnet/demo.py::_verify": "the demo reads its own commands",
    "devnet/demo.py::load_questions": "a file of the package",
    "node/commands/connect.py::list_devnet_nodes": "the file of `devnet-file`, read for its nodes",
    "node/commands/init.py::_list_settings": _OWN,
    "node/jsonrpc.py::_describe_method": _OWN,
    "node/member.py::_PAYLOAD_CODEC": "an own answer, from the own database",
    "node/commands/bench_audit.py::measure_audit": _BENCH,
    "verifier/calibrate_run.py::_load": _OWN,
    "verifier/image_calibration.py::measure": _OWN,
    "verifier/calibrate_run.py::_open_journal": _OWN,
    "verifier/weights.py::load_tensors": "weights are hashed against the card before they are read; safetensors holds no code",
    "verifier/weights.py::_load_shard": "weights are hashed against the card before they are read; safetensors holds no code",
}
"""Decoders that no target tries, and why."""
