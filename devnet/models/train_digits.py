"""Trains digits and digits-xs, which draw the digit they are asked for, out of scikit-learn's 1,797 pictures of written digits.

`python -P -m devnet.models.train_digits [--home DIR]`: about six minutes on one thread. A classifier that has seen real pictures alone
says how many of a thousand drawn ones show the right digit, which makes the model card's figure. Wraps scikit-learn, which has no types;
only training and tests need it.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportArgumentType=false

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor

from devnet.models.training import MODELS
from protocol.digest import DigestFamily
from protocol.models import ModelCard
from verifier.card import CONFIG_FILE, SAMPLING_FILE, SCHEDULER_FILE, TOKENIZER_FILE, WEIGHTS_FILE, write_card
from verifier.diffusion import make_kept, run_sampler
from verifier.dit import Dit, DitConfig, compute_shapes, compute_velocity
from verifier.image_model import ARCHITECTURE, load_image_model
from verifier.llama import Attention
from verifier.noise import to_floats

SIDE: Final = 8
CLASSES: Final = 10
UNKNOWN: Final = CLASSES  # the row of the prompt table that no prompt leads to
MOMENTS: Final = 1000
FIRST_BETA: Final = 1e-4
LAST_BETA: Final = 0.02
STEPS: Final = 25
UPSCALE: Final = 8
LEVELS: Final = 17  # of the written digits
ETA_PPM: Final = 1_000_000  # with noise bound to every step, a run of fewer steps ends in another picture
BATCH_ROWS: Final = 128
WARM_UP_STEPS: Final = 200
MEMORY: Final = 0.999  # of the averaged weights, which are the ones kept
TRAINED_ON: Final = 1400  # the classifier's part of the pictures; its own accuracy is told on the rest
JUDGED: Final = 1000


@dataclass(frozen=True, slots=True)
class Recipe:
    name: str
    width: int
    layers: int
    steps: int
    rate: float


RECIPES: Final = (
    Recipe("digits", width=96, layers=3, steps=3000, rate=1e-3),
    Recipe("digits-xs", width=48, layers=2, steps=2000, rate=2e-3),
)


@dataclass(frozen=True, slots=True)
class Written:
    """Real pictures, in [-1, 1], and what they show. Shapes: pictures [count, 1, 8, 8]; shown [count]"""

    pictures: Tensor
    shown: Tensor


def main() -> None:
    """Trains the models one after the other."""
    parser = argparse.ArgumentParser(
        prog="devnet.models.train_digits", description="Trains the models that draw digits."
    )
    parser.add_argument("--home", type=Path, default=MODELS, help="where the model directories go")
    parser.add_argument("--only", choices=[recipe.name for recipe in RECIPES], help="train this one alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    written = load_written()
    for recipe in RECIPES:
        if options.only in (None, recipe.name):
            train_recipe(recipe, options.home, written)


def load_written() -> Written:
    """All of scikit-learn's digits."""
    values, shown = load_digits(return_X_y=True)
    pictures = torch.from_numpy(np.asarray(values, dtype=np.float32) / 8 - 1).view(-1, 1, SIDE, SIDE)
    return Written(pictures, torch.from_numpy(np.asarray(shown, dtype=np.int64)))


def train_recipe(recipe: Recipe, home: Path, written: Written) -> None:
    """Writes the trained model's directory and prints what its card says."""
    started = time.process_time()
    weights = train(recipe, written)
    card = save_image_model(home / recipe.name, build_config(recipe.width, recipe.layers), weights, token_ms=2_000)
    reader, known = train_reader(written)
    drawn, asked = draw_pictures(home / recipe.name, JUDGED)
    right = float(np.mean(read_pictures(reader, drawn) == asked))
    print(
        f"{card.name}: {sum(weight.numel() for weight in weights.values())} parameters, {recipe.steps} steps, "
        f"{right:.1%} of {JUDGED} drawn digits read as asked by a classifier that reads {known:.1%} of real ones, "
        f"{time.process_time() - started:.0f} s"
    )


def build_config(width: int, layers: int) -> DitConfig:
    """The transformer of this size over pictures of digits."""
    return DitConfig(
        vocabulary=CLASSES + 1, side=SIDE, patch=2, channels=1, width=width, layers=layers, heads=4, wave_width=64
    )


def build_untrained(config: DitConfig, seed: int, spread: float = 1.0) -> dict[str, Tensor]:
    """Weights that take gradients; at spread 1 every block begins as no change at all."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for name, shape in compute_shapes(config).items():
        begins_still = name.endswith("bias") or "modulation" in name or name.startswith("last.")
        scale = 0.02 if name.startswith(("position", "prompt")) else shape[-1] ** -0.5
        drawn = torch.randn(shape, generator=generator) * scale * spread
        weights[name] = (drawn * (spread != 1.0) if begins_still else drawn).requires_grad_()
    return weights


def train(recipe: Recipe, written: Written) -> dict[str, Tensor]:
    """The average of the weights over the last steps: AdamW, a warm-up, then a cosine down to 2 % of the rate."""
    config = build_config(recipe.width, recipe.layers)
    weights = build_untrained(config, 0)
    averages = {name: weight.detach().clone() for name, weight in weights.items()}
    dit = Dit(config, weights, Attention.EAGER)
    kept = torch.from_numpy(make_kept(MOMENTS, FIRST_BETA, LAST_BETA, is_scaled=False)).float()
    optimiser = torch.optim.AdamW(list(weights.values()), lr=recipe.rate, weight_decay=0.0, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(1)
    for step in range(recipe.steps):
        cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * min(1.0, (step + 1) / WARM_UP_STEPS) * cosine
        loss = compute_loss(dit, written, kept, generator)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimiser.step()
        memory = min(MEMORY, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, average in averages.items():
                average.lerp_(weights[name], 1 - memory)
        if (step + 1) % 500 == 0:
            print(f"  step {step + 1}: loss {loss.item():.4f}, {time.process_time():.0f} s", flush=True)
    return averages


def compute_loss(dit: Dit, written: Written, kept: Tensor, generator: torch.Generator) -> Tensor:
    """How far off the velocity of one batch is, each picture at a moment of its own."""
    chosen = torch.randint(0, len(written.shown), (BATCH_ROWS,), generator=generator)
    moments = torch.randint(0, MOMENTS, (BATCH_ROWS,), generator=generator)
    noise = torch.randn((BATCH_ROWS, 1, SIDE, SIDE), generator=generator)
    pictures, share = written.pictures[chosen], kept[moments][:, None, None, None]
    mixed = share.sqrt() * pictures + (1 - share).sqrt() * noise
    velocity = share.sqrt() * noise - (1 - share).sqrt() * pictures
    return (compute_velocity(dit, mixed, moments.float(), written.shown[chosen]) - velocity).pow(2).mean()


def save_image_model(
    directory: Path,
    config: DitConfig,
    weights: dict[str, Tensor],
    token_ms: int,
    steps: int = STEPS,
    eta_ppm: int = ETA_PPM,
) -> ModelCard:
    """The directory's card, after everything it pins has been written. `token_ms` is the allowance for a picture."""
    (directory / SCHEDULER_FILE).parent.mkdir(parents=True, exist_ok=True)
    written = {
        CONFIG_FILE: describe_config(config),
        SAMPLING_FILE: {"steps": steps, "eta_ppm": eta_ppm},
        SCHEDULER_FILE: {
            "num_train_timesteps": MOMENTS,
            "beta_start": FIRST_BETA,
            "beta_end": LAST_BETA,
            "beta_schedule": "linear",
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
            "clip_sample": False,
        },
    }
    for name, content in written.items():
        (directory / name).write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
    build_tokenizer().save(str(directory / TOKENIZER_FILE))
    stored = {name: weight.detach().float().contiguous() for name, weight in weights.items()}
    save_file(stored, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    (directory / WEIGHTS_FILE).chmod(0o644)  # safetensors writes for the owner alone
    return write_card(directory, directory.name, "float32", DigestFamily.IMG_PDQ256, token_ms)


def describe_config(config: DitConfig) -> dict[str, object]:
    """config.json; the context is the prompt's one token and the picture's place."""
    return {
        "architectures": [ARCHITECTURE],
        "vocab_size": config.vocabulary,
        "max_position_embeddings": 2,
        "image_size": config.side,
        "patch_size": config.patch,
        "in_channels": config.channels,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "wave_size": config.wave_width,
        "upscale": UPSCALE,
        "levels": LEVELS,
    }


def build_tokenizer() -> Tokenizer:
    """One token a digit; anything else is refused by name."""
    vocabulary = {str(digit): digit for digit in range(CLASSES)}
    return Tokenizer(WordLevel({**vocabulary, "<unk>": UNKNOWN}, unk_token="<unk>"))  # noqa: S106 - no password


def draw_pictures(directory: Path, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Latents of that many digits, in turn, each from a seed of its own, and which digits they are. Shapes: [count, 64]; [count]"""
    model = load_image_model(directory)
    drawn: list[NDArray[np.float32]] = []
    for number in range(count):
        condition = model.engine.encode_prompt(str(number % CLASSES))
        seed = number.to_bytes(32, "big")
        drawn.append(to_floats(run_sampler(model.engine, model.transitions, condition, seed, lambda: False)[-1]))
    return np.stack(drawn).reshape(count, -1), np.arange(count, dtype=np.int64) % CLASSES


def train_reader(written: Written) -> tuple[SVC, float]:
    """A classifier of real pictures and the share that it reads rightly of those it was not trained on."""
    values, shown = written.pictures.reshape(len(written.shown), -1).numpy(), written.shown.numpy()
    reader = SVC(gamma=0.064).fit(values[:TRAINED_ON], shown[:TRAINED_ON])  # 0.001 on scikit-learn's scale of 0 to 16
    return reader, float(reader.score(values[TRAINED_ON:], shown[TRAINED_ON:]))


def read_pictures(reader: SVC, drawn: NDArray[np.float32]) -> NDArray[np.int64]:
    """What the classifier takes the pictures for."""
    return np.asarray(reader.predict(np.clip(drawn, -1, 1)), dtype=np.int64)


if __name__ == "__main__":
    main()
