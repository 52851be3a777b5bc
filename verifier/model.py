"""A model from a local directory, exactly as its card pins it, ready to run.

Files are judged in this order: size, hash, structure, shape against the configuration, finite values. The Llama family runs through verifier/llama.py, other listed architectures through transformers.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
import torch
from msgspec import Meta

from protocol.digest import IMAGE_FAMILIES
from protocol.models import ModelCard, compute_model_id
from protocol.units import ModelId
from verifier import llama
from verifier.card import (
    CARD_FILE,
    CONFIG_FILE,
    GENERATION_FILE,
    MAX_CONFIG_BYTES,
    ModelRefused,
    check_files,
    load_card,
    load_config,
    load_json,
)
from verifier.engine import Engine, LlamaEngine
from verifier.sampling import MAX_VOCABULARY
from verifier.tokens import TextTokenizer, load_tokenizer
from verifier.weights import load_weights

LLAMA_ARCHITECTURE: Final = "LlamaForCausalLM"
FOREIGN_ARCHITECTURES: Final = (
    *("GPT2LMHeadModel", "GPTNeoXForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"),
    *("GemmaForCausalLM", "PhiForCausalLM", "Phi3ForCausalLM"),
)
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Count = Annotated[int, Meta(ge=1, le=2**24)]
Factor = Annotated[float, Meta(gt=0, le=1e12)]


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model. `ends` are the tokens that end a text."""

    id: ModelId
    card: ModelCard
    tokenizer: TextTokenizer
    engine: Engine
    ends: frozenset[int]


class RopeParameters(msgspec.Struct, frozen=True):
    """rope_parameters (transformers 5) or rope_scaling (before) of config.json."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: Factor | None = None
    factor: Factor | None = None
    low_freq_factor: Factor | None = None
    high_freq_factor: Factor | None = None
    original_max_position_embeddings: Count | None = None


class ArchitectureFields(msgspec.Struct, frozen=True):
    """What every configuration says."""

    architectures: list[str]
    eos_token_id: int | list[int] | None = None


class GenerationFields(msgspec.Struct, frozen=True):
    """What is taken from generation_config.json."""

    eos_token_id: int | list[int] | None = None


class LlamaFields(msgspec.Struct, frozen=True):
    """What decides a Llama's forward pass; absent fields have transformers' defaults."""

    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Annotated[int, Meta(ge=1, le=1024)]
    num_attention_heads: Annotated[int, Meta(ge=1, le=4096)]
    max_position_embeddings: Count
    num_key_value_heads: Annotated[int, Meta(ge=1, le=4096)] | None = None
    head_dim: Annotated[int, Meta(ge=2, le=4096)] | None = None
    hidden_act: str = "silu"
    rms_norm_eps: Annotated[float, Meta(gt=0, lt=1)] = 1e-6
    rope_theta: Factor | None = None
    rope_scaling: RopeParameters | None = None
    rope_parameters: RopeParameters | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False


def load_model(
    directory: Path,
    device: str = "cpu",
    expected: ModelId | None = None,
    *,
    dtype: str | None = None,
    attention: llama.Attention = llama.Attention.EAGER,
) -> Model:
    """The model that the directory's card pins; `expected` is the id that the caller was told.

    Another dtype than the card's, or another attention, is another compute class of the same model (verifier/classes.py).

    Raises: ModelRefused naming the file, what was expected and what is there
    """
    card = load_card(directory)
    model_id = compute_model_id(card)
    if expected is not None and model_id != expected:
        raise ModelRefused(f"{directory}: expected model {expected.hex()}, got {model_id.hex()} ({card.name})")
    check_files(directory)
    if card.family in IMAGE_FAMILIES:
        raise ModelRefused(f"{directory / CARD_FILE}: expected a family of digests of texts, got {card.family.name}")
    architecture = _get_architecture(directory)
    tokenizer = load_tokenizer(directory)
    if tokenizer.size > card.vocabulary:
        raise ModelRefused(
            f"{directory}: expected at most {card.vocabulary} tokens, the tokenizer has {tokenizer.size}"
        )
    number, place = DTYPES[dtype or card.dtype], get_device(device)
    if architecture == LLAMA_ARCHITECTURE:
        config = load_llama_config(directory)
        weights = load_weights(directory, llama.compute_shapes(config), number, place)
        engine: Engine = LlamaEngine(llama.build_llama(config, weights, attention))
    else:
        from verifier.foreign import load_foreign_engine  # transformers takes 2 s and 300 MB to import

        engine = load_foreign_engine(directory, architecture, number, place, attention)
    if (engine.vocabulary, engine.context) != (card.vocabulary, card.context_tokens):
        raise ModelRefused(
            f"{directory}: card.json says {card.vocabulary} tokens and a context of {card.context_tokens}, "
            f"{CONFIG_FILE} says {engine.vocabulary} and {engine.context}; write the card anew"
        )
    if engine.vocabulary > MAX_VOCABULARY:
        raise ModelRefused(f"{directory}: expected a vocabulary of at most {MAX_VOCABULARY}, got {engine.vocabulary}")
    return Model(model_id, card, tokenizer, engine, load_ends(directory, card.vocabulary))


def use_deterministic_settings() -> None:
    """One thread and no kernel that answers differently from run to run, for the whole process."""
    torch.set_num_threads(1)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it cuBLAS refuses to be deterministic
    # The same switch as use_deterministic_algorithms(True), which also loads torch's compiler: 0.7 s, and a folder in /tmp.
    torch.set_deterministic_debug_mode("error")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def load_llama_config(directory: Path) -> llama.LlamaConfig:
    """config.json as the forward pass takes it. Raises: ModelRefused where it asks for what that does not do."""
    fields = load_config(directory, LlamaFields)
    path = directory / CONFIG_FILE
    if fields.hidden_act != "silu":
        raise ModelRefused(f"{path}: expected hidden_act silu, got {fields.hidden_act[:40]!r}")
    key_heads = fields.num_key_value_heads or fields.num_attention_heads
    head_width = fields.head_dim or fields.hidden_size // fields.num_attention_heads
    if fields.num_attention_heads % key_heads or head_width < 2 or head_width % 2:
        raise ModelRefused(
            f"{path}: expected query heads in whole groups and an even head width, got {fields.num_attention_heads} heads, "
            f"{key_heads} key heads, width {head_width}"
        )
    theta, scaling = _read_rope(path, fields)
    return llama.LlamaConfig(
        vocabulary=fields.vocab_size,
        width=fields.hidden_size,
        inner_width=fields.intermediate_size,
        layers=fields.num_hidden_layers,
        heads=fields.num_attention_heads,
        key_heads=key_heads,
        head_width=head_width,
        context=fields.max_position_embeddings,
        norm_epsilon=fields.rms_norm_eps,
        rope_theta=theta,
        rope_scaling=scaling,
        is_tied=fields.tie_word_embeddings,
        has_attention_bias=fields.attention_bias,
        has_mlp_bias=fields.mlp_bias,
    )


def load_ends(directory: Path, vocabulary: int) -> frozenset[int]:
    """The tokens that end a text: generation_config.json's where it names any, otherwise config.json's."""
    named = None
    if (directory / GENERATION_FILE).is_file():
        named = load_json(directory / GENERATION_FILE, GenerationFields, MAX_CONFIG_BYTES).eos_token_id
    if named is None:
        named = load_config(directory, ArchitectureFields).eos_token_id
    ends = frozenset([] if named is None else [named] if isinstance(named, int) else named)
    if any(not 0 <= end < vocabulary for end in ends):
        raise ModelRefused(f"{directory}: expected eos_token_id below {vocabulary}, got {sorted(ends)[:8]}")
    return ends


def get_device(name: str) -> torch.device:
    """The device of this name. Raises: ModelRefused where this machine has none such."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelRefused(
            f"expected a device cpu, cuda or cuda:N, got {name[:40]!r}; mend the worker command"
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise ModelRefused(f"expected a device cpu, cuda or cuda:N, got {name[:40]!r}; mend the worker command")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ModelRefused(f"expected {name} to exist, this machine's torch sees {found} CUDA devices; use cpu")
    return device


def _get_architecture(directory: Path) -> str:
    named = load_config(directory, ArchitectureFields).architectures
    supported = (LLAMA_ARCHITECTURE, *FOREIGN_ARCHITECTURES)
    if len(named) != 1 or named[0] not in supported:
        raise ModelRefused(
            f"{directory / CONFIG_FILE}: expected one architecture of {', '.join(supported)}, got {named[:4]}"
        )
    return named[0]


def _read_rope(path: Path, fields: LlamaFields) -> tuple[float, llama.RopeScaling | None]:
    rope = fields.rope_parameters or fields.rope_scaling or RopeParameters()
    theta = rope.rope_theta or fields.rope_theta or 10_000.0
    kind = rope.rope_type or rope.type or "default"
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ModelRefused(f"{path}: expected rope type default or llama3, got {kind[:40]!r}")
    low, high = rope.low_freq_factor, rope.high_freq_factor
    if rope.factor is None or low is None or high is None or high <= low:
        raise ModelRefused(
            f"{path}: expected llama3 rope with factor, low_freq_factor < high_freq_factor, got {low}, {high}"
        )
    original = rope.original_max_position_embeddings or fields.max_position_embeddings
    return theta, llama.RopeScaling(rope.factor, low, high, original)
