"""Mutated samples and raw bytes into every target: nothing but the named refusals comes out, at a bounded cost.

The bounds of 5 ms and four times the memory are the long run's (`make fuzz`); here time is bounded only as far as a busy machine lets it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.choices import DrawnChoices, SeededChoices
from tests.fuzz.corpus import load_inputs
from tests.fuzz.measure import is_heavy, time_input, weigh_input
from tests.fuzz.mutation import mutate
from tests.fuzz.table import TARGETS
from tests.fuzz.target import Target, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEDED = 60
WEIGHED = 6
MUCH_MS = 1_000


def count_open() -> int:
    """How many files and sockets this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def draw_inputs(target: Target, count: int) -> Iterator[bytes]:
    """The same mutated samples in every run, others for every target."""
    random = Random(crc32(target.name.encode()))
    samples, choices = target.samples(), SeededChoices(random)
    mutated = (mutate(random.choice(samples), samples, target.shape, choices) for _ in range(count))
    return (content[: target.max_bytes] for content in mutated)


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_samples_lead_to_a_word_or_a_named_refusal(name: str) -> None:
    target = TARGETS[name]
    judge(target, target.samples()[0])
    before = threading.active_count(), count_open()
    for content in draw_inputs(target, SEEDED):
        assert time_input(target, content).cpu_ms < MUCH_MS, content.hex()
    assert (threading.active_count(), count_open()) == before, "what an input starts ends with it"


@settings(
    max_examples=600, phases=(Phase.generate,), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(data=st.data(), name=st.sampled_from(sorted(TARGETS)))
def test_any_mutation_that_hypothesis_thinks_of_leads_to_a_word_or_a_named_refusal(
    data: st.DataObject, name: str
) -> None:
    target, choices = TARGETS[name], DrawnChoices(data)
    samples = target.samples()
    content = mutate(samples[choices.below(len(samples))], samples, target.shape, choices)
    assert judge(target, content).word


@settings(max_examples=200)
@given(content=st.binary(max_size=64), name=st.sampled_from(sorted(TARGETS)))
def test_raw_bytes_lead_to_a_word_or_a_named_refusal(content: bytes, name: str) -> None:
    assert judge(TARGETS[name], content).word


@pytest.mark.parametrize("name", TARGETS)
def test_memory_stays_within_four_times_the_input_and_an_allowance(name: str) -> None:
    target = TARGETS[name]
    for content in (*target.samples()[:1], *draw_inputs(target, WEIGHED)):
        judge(target, content)  # what is imported and cached once is not the input's
        cost = weigh_input(target, content)
        assert not is_heavy(target, content, cost.peak_bytes), (cost, content.hex())


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_that_were_worth_keeping_lead_to_a_word_or_a_named_refusal(name: str) -> None:
    for content in load_inputs(name):
        assert judge(TARGETS[name], content).word, content.hex()


def test_what_broke_a_decoder_once_is_still_tried() -> None:
    target = TARGETS["hello"]
    with pytest.raises(ZeroDivisionError):  # a fault of the product is no refusal: it must come out
        judge(Target("broken", (), target.shape, target.samples, lambda _: str(1 // 0)), b"")
