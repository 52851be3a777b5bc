"""Models of pictures for the tests: the shipped one, and directories of ones that were never trained."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from devnet.models.train_digits import build_config, build_untrained, save_image_model
from devnet.models.training import MODELS
from verifier.draw import Drawing, draw_picture
from verifier.image_audit import PictureClaim
from verifier.image_model import ImageModel, load_image_model
from verifier.trajectory import draw_steps, list_opened, open_states

SEED = bytes(range(32))
BEACON = b"b" * 32


def never() -> bool:
    return False


def write_untrained_images(directory: Path, steps: int = 4, eta_ppm: int = 1_000_000) -> Path:
    """A directory whose model draws something, though not what was asked."""
    weights = build_untrained(build_config(16, 1), 1, spread=0.9)
    save_image_model(directory, build_config(16, 1), weights, token_ms=20, steps=steps, eta_ppm=eta_ppm)
    return directory


@lru_cache(maxsize=1)
def load_digits_model() -> ImageModel:
    """The shipped model; nothing changes it."""
    return load_image_model(MODELS / "digits")


@lru_cache(maxsize=1)
def draw_seven() -> Drawing:
    return draw_picture(load_digits_model(), "7", SEED, never)


def make_claim(model: ImageModel, drawing: Drawing, prompt: str = "7", count: int = 3) -> PictureClaim:
    """What an honest executor shows of a drawing."""
    root, steps = drawing.commitment.root, len(model.transitions)
    drawn = draw_steps(BEACON, root, steps, count)
    opened = open_states(drawing.commitment, list_opened(drawn, steps))
    return PictureClaim(prompt, SEED, model.engine.compute_class, root, drawing.digest, drawing.output, drawn, opened)
