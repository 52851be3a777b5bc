"""What the training programs share: a fresh Llama, a fixed schedule, and a model directory that the verifier loads.

Everything is seeded, on one thread, for a fixed number of steps: the same torch on the same instruction set gives the same bytes.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import torch
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType] - its PathLike is not parametrised
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from protocol.digest import DigestFamily
from protocol.models import ModelCard
from verifier.card import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, write_card
from verifier.llama import Llama, LlamaConfig, build_llama, compute_logits, compute_shapes

MODELS: Final = Path(__file__).parent
IGNORED: Final = -100  # cross_entropy's mark for a position that is not to be learned
WARM_UP_STEPS: Final = 50


def build_config(
    vocabulary: int, width: int, inner_width: int, layers: int, heads: int, context: int, *, is_tied: bool
) -> LlamaConfig:
    """A plain Llama without grouped heads, biases or rope scaling."""
    return LlamaConfig(
        vocabulary=vocabulary,
        width=width,
        inner_width=inner_width,
        layers=layers,
        heads=heads,
        key_heads=heads,
        head_width=width // heads,
        context=context,
        norm_epsilon=1e-6,
        rope_theta=10_000.0,
        rope_scaling=None,
        is_tied=is_tied,
        has_attention_bias=False,
        has_mlp_bias=False,
    )


def build_untrained(config: LlamaConfig, seed: int, spread: float) -> Llama:
    """A model with normally distributed weights that take gradients."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.ones(shape) if "norm" in name else torch.randn(shape, generator=generator) * spread
        for name, shape in compute_shapes(config).items()
    }
    return build_llama(config, {name: weight.requires_grad_() for name, weight in weights.items()})


def train(
    llama: Llama,
    draw_batch: Callable[[], tuple[Tensor, Tensor]],
    steps: int,
    rate: float,
    weight_decay: float,
    report: Callable[[int, float], None],
    *,
    is_mixed: bool = False,
) -> None:
    """Changes the weights in place: AdamW, a short warm-up, then a cosine down to 2 % of the rate; mixed: products in bfloat16, sums in float32.

    Shapes: a batch is inputs and targets, [rows, positions] int64 each, targets IGNORED where nothing is asked
    """
    torch.set_num_threads(1)
    weights = list(llama.weights.values())
    optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=weight_decay, betas=(0.9, 0.98))
    for step in range(steps):
        cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / WARM_UP_STEPS) * cosine
        inputs, targets = draw_batch()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_mixed):
            logits, _ = compute_logits(llama, inputs)
        loss = functional.cross_entropy(
            logits.float().reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=IGNORED
        )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        if (step + 1) % 200 == 0:
            report(step + 1, loss.item())


def save_model(
    directory: Path, llama: Llama, tokenizer: Tokenizer, end: int, storage: torch.dtype, token_ms: int
) -> ModelCard:
    """The directory's card, after everything it pins has been written in Hugging Face layout.

    Whatever type the weights are stored in, the card asks for float32: there honest machines agree to the bit.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = describe_config(llama.config, end, storage)
    (directory / CONFIG_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")
    tokenizer.save(str(directory / TOKENIZER_FILE))
    weights = {name: weight.detach().to(storage).contiguous() for name, weight in llama.weights.items()}
    save_file(weights, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    (directory / WEIGHTS_FILE).chmod(0o644)  # safetensors writes for the owner alone
    return write_card(directory, directory.name, "float32", DigestFamily.TEXT_MINHASH256, token_ms)


def describe_config(config: LlamaConfig, end: int, storage: torch.dtype) -> dict[str, object]:
    """config.json as transformers writes it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.inner_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.is_tied,
        "attention_bias": config.has_attention_bias,
        "mlp_bias": config.has_mlp_bias,
        "bos_token_id": None,
        "eos_token_id": end,
        "torch_dtype": str(storage).removeprefix("torch."),
    }
