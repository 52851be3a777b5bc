"""A probe tells number formats apart, calls kernels of one format alike, and knows its own machine to the last bit."""

from __future__ import annotations

from pathlib import Path

from verifier.engine import LlamaEngine, widen_engine
from verifier.llama import Attention
from verifier.model import load_model
from verifier.probe import compare_probe, probe_engine


def test_an_engine_is_known_as_what_it_is_and_not_as_what_it_says(untrained: Path) -> None:
    eager, fused = (load_model(untrained, attention=attention).engine for attention in Attention)
    half = load_model(untrained, dtype="bfloat16").engine
    probes = {engine.compute_class.name: probe_engine(engine) for engine in (eager, fused, half)}
    assert probe_engine(load_model(untrained).engine) == probes[eager.compute_class.name]
    for engine in (eager, half):
        own = compare_probe(probe_engine(engine), engine.compute_class, probes)
        assert (own.is_declared, own.is_identical, own.distance) == (True, True, 0)
    lying = compare_probe(probes[half.compute_class.name], eager.compute_class, probes)
    assert (lying.nearest, lying.is_declared) == (half.compute_class.name, False)
    assert isinstance(eager, LlamaEngine)
    wide = compare_probe(probe_engine(widen_engine(eager)), eager.compute_class, probes)
    assert wide.is_declared and not wide.is_identical  # another float32 machine would look so


def test_without_a_probe_of_its_class_nothing_is_confirmed(untrained: Path) -> None:
    engine = load_model(untrained).engine
    assert not compare_probe(probe_engine(engine), engine.compute_class, {}).is_declared
    other = {load_model(untrained, dtype="bfloat16").engine.compute_class.name: probe_engine(engine)}
    assert not compare_probe(probe_engine(engine), engine.compute_class, other).is_declared
