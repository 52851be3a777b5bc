"""The diffusion transformer: rows do not see one another, both kinds of attention agree, patches go back where they came from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from devnet.models.train_digits import build_config, build_untrained
from verifier.dit import Dit, compute_shapes, compute_velocity
from verifier.llama import Attention


@pytest.fixture(scope="module")
def dit() -> Dit:
    config = build_config(32, 2)
    weights = {name: weight.detach() for name, weight in build_untrained(config, 3, spread=0.9).items()}
    return Dit(config, weights, Attention.EAGER)


def draw_rows(count: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = torch.randn((count, 1, 8, 8), generator=generator)
    return images, torch.arange(count) * 111.0, torch.arange(count) % 10


def test_every_tensor_is_used_and_named_once(dit: Dit) -> None:
    used: set[str] = set()

    class Watching(dict[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            used.add(name)
            return super().__getitem__(name)

    compute_velocity(replace(dit, weights=Watching(dit.weights)), *draw_rows(1))
    assert used == set(compute_shapes(dit.config))


def test_a_row_is_the_same_alone_and_among_others(dit: Dit) -> None:
    images, moments, prompts = draw_rows(9)
    together = compute_velocity(dit, images, moments, prompts)
    for row in range(9):
        alone = compute_velocity(dit, images[row : row + 1], moments[row : row + 1], prompts[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], rtol=1e-5, atol=1e-6)


def test_moment_and_prompt_matter(dit: Dit) -> None:
    images, moments, prompts = draw_rows(1)
    velocity = compute_velocity(dit, images, moments, prompts)
    assert not torch.allclose(velocity, compute_velocity(dit, images, moments + 40, prompts), atol=1e-3)
    assert not torch.allclose(velocity, compute_velocity(dit, images, moments, prompts + 1), atol=1e-3)


@pytest.mark.parametrize("dtype, apart", [(torch.float32, 1e-5), (torch.float64, 1e-12), (torch.bfloat16, 0.2)])
def test_both_kinds_of_attention_agree(dit: Dit, dtype: torch.dtype, apart: float) -> None:
    weights = {name: weight.to(dtype) for name, weight in dit.weights.items()}
    images, moments, prompts = draw_rows(4)
    eager = compute_velocity(replace(dit, weights=weights), images.to(dtype), moments, prompts)
    fused = compute_velocity(Dit(dit.config, weights, Attention.SDPA), images.to(dtype), moments, prompts)
    assert eager.dtype == dtype
    torch.testing.assert_close(eager, fused, rtol=0, atol=apart)


def test_a_patch_answers_for_its_own_place(dit: Dit) -> None:
    """Without blocks and places each patch is computed alone, so a change of one changes that one."""
    alone = Dit(replace(dit.config, layers=0), dit.weights, Attention.EAGER)
    images, moments, prompts = draw_rows(1)
    altered = images.clone()
    altered[0, 0, 2:4, 6:8] += 1
    changed = (compute_velocity(alone, altered, moments, prompts) != compute_velocity(alone, images, moments, prompts))[
        0, 0
    ]
    assert changed[2:4, 6:8].all() and int(changed.sum()) == 4
