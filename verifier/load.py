"""Whatever kind of model a directory's card is of, loaded."""

from pathlib import Path
from typing import TypeAlias

from protocol.digest import IMAGE_FAMILIES
from protocol.units import ModelId
from verifier.card import load_card
from verifier.image_model import ImageModel, load_image_model
from verifier.model import Model, load_model

LoadedModel: TypeAlias = Model | ImageModel


def load_any_model(directory: Path, device: str = "cpu", expected: ModelId | None = None) -> LoadedModel:
    """The model that the directory's card pins, of texts or of pictures. Raises: ModelRefused as their own loaders."""
    if load_card(directory).family in IMAGE_FAMILIES:
        return load_image_model(directory, device, expected)
    return load_model(directory, device, expected)
