"""Honest texts that parted at a near tie are both acceptable to every honest judge; a text that nobody honest writes is not."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
import torch

from devnet.models.training import MODELS
from protocol.jobs.judging import Judgement
from protocol.models import SamplingKind, TextOutput, greedy
from tests.verifier.audits import SEED, make_profile, sample
from verifier.audit import Auditor
from verifier.generate import generate
from verifier.judge import find_parting, judge_outputs, judge_parting
from verifier.model import Model, load_model

WISH = sample(100)
PROMPT = "class Reader:\n    def "


@pytest.fixture(scope="module")
def members() -> tuple[Model, Model]:
    """An honest float32 node and an honest bfloat16 one."""
    return load_model(MODELS / "code-2m"), load_model(MODELS / "code-2m", dtype="bfloat16")


@pytest.fixture(scope="module")
def split(members: tuple[Model, Model]) -> tuple[bytes, TextOutput, TextOutput]:
    """A seed at which the two write different texts, and the texts."""
    for number in range(40):
        seed = bytes([number]) * 32
        left, right = (generate(member, PROMPT, WISH, seed, lambda: False) for member in members)
        if left != right:
            return seed, left, right
    raise AssertionError("they never parted")


def test_an_honest_float32_and_an_honest_bfloat16_node_accept_each_other(
    members: tuple[Model, Model], split: tuple[bytes, TextOutput, TextOutput]
) -> None:
    seed, left, right = split
    classes = [member.engine.compute_class for member in members]
    for member in members:
        judge = Auditor(member, make_profile(members[0], *classes))
        parting = judge_parting(judge, PROMPT, WISH, seed, left, right)
        assert parting is not None
        assert parting.position == find_parting(left, right)
        assert left.tokens[: parting.position] == right.tokens[: parting.position]
        assert (parting.left.judgement, parting.right.judgement) == (Judgement.ACCEPT, Judgement.ACCEPT)
        # One of the two is this judge's own text.
        assert min(parting.left_margin, parting.right_margin) == 0
        assert max(parting.left_margin, parting.right_margin) > 0


def test_a_text_that_goes_on_dishonestly_after_the_tie_is_rejected(
    members: tuple[Model, Model], split: tuple[bytes, TextOutput, TextOutput]
) -> None:
    seed, left, right = split
    judge = Auditor(members[0], make_profile(members[0], members[1].engine.compute_class))
    at = find_parting(left, right)
    assert at is not None and at < 90
    tokens = (*right.tokens[:-3], *(5 for _ in range(3)))
    text = members[0].tokenizer.tokenizer.decode(list(tokens), skip_special_tokens=True)
    lazy = msgspec.structs.replace(right, tokens=tokens, text=text)
    accepted, rejected = judge_outputs(judge, PROMPT, WISH, seed, [right, lazy])
    assert (accepted.judgement, rejected.judgement) == (Judgement.ACCEPT, Judgement.REJECT)


def test_what_is_wrong_on_its_face_is_rejected_and_the_rest_still_judged(members: tuple[Model, Model]) -> None:
    judge = Auditor(members[0], make_profile(members[0]))
    honest = generate(members[0], PROMPT, greedy(12), SEED, lambda: False)
    empty = msgspec.structs.replace(honest, tokens=(), text="")
    judged = judge_outputs(judge, PROMPT, greedy(12), SEED, [empty, honest, honest])
    assert [one.judgement for one in judged] == [Judgement.REJECT, Judgement.ACCEPT, Judgement.ACCEPT]
    assert judge_parting(judge, PROMPT, greedy(12), SEED, honest, honest) is None
    assert find_parting(empty, honest) == 0


def test_a_judge_that_cannot_tell_says_so(members: tuple[Model, Model]) -> None:
    honest = generate(members[0], PROMPT, greedy(12), SEED, lambda: False)
    profile = make_profile(members[0])
    other = msgspec.structs.replace(profile, model="00" * 32)
    stranger = replace(members[1], id=members[0].id)
    beams = msgspec.structs.replace(greedy(12), kind=SamplingKind.BEAM, beams=2)
    for judge, prompt, settings in (
        (Auditor(members[0], other), PROMPT, greedy(12)),
        (Auditor(stranger, profile), PROMPT, greedy(12)),
        (Auditor(members[0], profile), "", greedy(12)),
        (Auditor(members[0], profile), PROMPT, beams),
    ):
        (judged,) = judge_outputs(judge, prompt, settings, SEED, [honest])
        assert judged.judgement is Judgement.INCONCLUSIVE
        assert judged.detail
    assert torch.get_num_threads() == 1
