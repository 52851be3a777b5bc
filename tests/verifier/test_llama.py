"""Our forward pass is transformers' eager one, to the bit, in float32; the cache moves no more than rounding."""

from __future__ import annotations

import pytest
import torch

from verifier.llama import Llama, LlamaConfig, RopeScaling, build_llama, compute_logits, compute_shapes, select_rows

PLAIN = LlamaConfig(97, 48, 80, 2, 6, 6, 8, 128, 1e-6, 10_000.0, None, False, False, False)
GROUPED = LlamaConfig(97, 48, 80, 2, 6, 2, 16, 128, 1e-5, 500_000.0, None, True, False, False)
BIASED = LlamaConfig(97, 48, 80, 1, 6, 3, 8, 128, 1e-6, 10_000.0, None, False, True, True)
SCALED = LlamaConfig(97, 48, 80, 2, 6, 3, 8, 128, 1e-6, 10_000.0, RopeScaling(8.0, 1.0, 4.0, 16), False, False, False)


def build(config: LlamaConfig, dtype: torch.dtype = torch.float32) -> Llama:
    random = torch.Generator().manual_seed(7)
    return build_llama(
        config,
        {
            name: (torch.randn(shape, generator=random) * (0.3 if len(shape) > 1 else 1.0)).to(dtype)
            for name, shape in compute_shapes(config).items()
        },
    )


def draw_ids(rows: int, positions: int) -> torch.Tensor:
    return torch.randint(0, 97, (rows, positions), generator=torch.Generator().manual_seed(3))


def build_theirs(ours: Llama, dtype: torch.dtype) -> torch.nn.Module:
    from transformers import LlamaConfig as TheirConfig
    from transformers import LlamaForCausalLM

    c = ours.config
    rope: dict[str, object] = {"rope_type": "default", "rope_theta": c.rope_theta}
    if (scaling := c.rope_scaling) is not None:
        rope |= {"rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low_frequency_factor}
        rope |= {"high_freq_factor": scaling.high_frequency_factor}
        rope |= {"original_max_position_embeddings": scaling.original_context}
    config = TheirConfig(
        vocab_size=c.vocabulary,
        hidden_size=c.width,
        intermediate_size=c.inner_width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.key_heads,
        head_dim=c.head_width,
        max_position_embeddings=c.context,
        rms_norm_eps=c.norm_epsilon,
        rope_parameters=rope,
        tie_word_embeddings=c.is_tied,
        attention_bias=c.has_attention_bias,
        mlp_bias=c.has_mlp_bias,
        attn_implementation="eager",
    )
    theirs = LlamaForCausalLM(config)
    theirs.load_state_dict(dict(ours.weights), strict=False, assign=True)
    theirs.tie_weights()
    return theirs.eval()


@pytest.mark.parametrize("config", [PLAIN, GROUPED, BIASED, SCALED], ids=["plain", "grouped", "biased", "scaled"])
def test_logits_are_bit_equal_to_transformers_eager(config: LlamaConfig) -> None:
    ours = build(config)
    theirs = build_theirs(ours, torch.float32)
    ids = draw_ids(2, 40)
    with torch.inference_mode():
        expected = theirs(input_ids=ids, use_cache=True)
        logits, cache = compute_logits(ours, ids)
        assert torch.equal(logits, expected.logits)
        for step in draw_ids(4, 2):
            expected = theirs(input_ids=step[:, None], past_key_values=expected.past_key_values, use_cache=True)
            logits, cache = compute_logits(ours, step[:, None], cache)
            assert torch.equal(logits, expected.logits)


def test_bfloat16_logits_are_bit_equal_to_transformers_eager() -> None:
    ours = build(GROUPED, torch.bfloat16)
    ids = draw_ids(1, 24)
    with torch.inference_mode():
        assert torch.equal(compute_logits(ours, ids)[0], build_theirs(ours, torch.bfloat16)(input_ids=ids).logits)


def test_cached_decoding_moves_logits_by_rounding_only() -> None:
    model = build(GROUPED)
    ids = draw_ids(1, 60)
    with torch.inference_mode():
        full, _ = compute_logits(model, ids)
        part, cache = compute_logits(model, ids[:, :20])
        rows = [part]
        for at in range(20, 60):
            part, cache = compute_logits(model, ids[:, at : at + 1], cache)
            rows.append(part)
    stepwise = torch.cat(rows, 1)
    assert (stepwise - full).abs().max() < 1e-3
    assert torch.equal(stepwise.argmax(-1), full.argmax(-1))


def test_a_prompt_in_chunks_gives_what_one_pass_gives() -> None:
    model = build(PLAIN)
    ids = draw_ids(1, 30)
    with torch.inference_mode():
        full, _ = compute_logits(model, ids)
        _, cache = compute_logits(model, ids[:, :13])
        rest, _ = compute_logits(model, ids[:, 13:], cache)
    assert (rest - full[:, 13:]).abs().max() < 1e-3


def test_the_last_position_alone_differs_by_rounding_only() -> None:
    model = build(PLAIN)
    ids = draw_ids(3, 11)
    with torch.inference_mode():
        full, alone = compute_logits(model, ids)[0], compute_logits(model, ids, only_last=True)[0]
    assert alone.shape == (3, 1, 97)
    assert (alone - full[:, -1:]).abs().max() < 1e-3


def test_selected_rows_go_on_as_their_originals() -> None:
    model = build(GROUPED)
    ids = draw_ids(3, 9)
    with torch.inference_mode():
        _, cache = compute_logits(model, ids)
        step = torch.tensor([[5], [5], [5]])
        whole, _ = compute_logits(model, step, cache)
        chosen, _ = compute_logits(model, step, select_rows(cache, [2, 0, 2]))
    assert torch.equal(chosen, whole[[2, 0, 2]])
