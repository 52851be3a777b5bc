"""A model directory's card: which files it pins, by which hash, and whether they still have it.

A directory is in Hugging Face layout plus `card.json`, which lists the SHA-256 of every file that moves a bit of the output. Nothing
else in the directory is ever read. A model of pictures has `sampling.json` and a scheduler's configuration besides; a directory as
diffusers stores it, with a folder a part, is told by its `model_index.json`. No torch here: whoever writes a genesis needs cards, not weights.
"""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from protocol.codec import encode
from protocol.crypto import HashDomain, compute_hash
from protocol.digest import DigestFamily
from protocol.models import ModelCard, compute_model_id

CARD_FILE: Final = "card.json"
CONFIG_FILE: Final = "config.json"
GENERATION_FILE: Final = "generation_config.json"
TOKENIZER_FILE: Final = "tokenizer.json"
WEIGHTS_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"
SAMPLING_FILE: Final = "sampling.json"
SCHEDULER_FILE: Final = "scheduler/scheduler_config.json"
PIPELINE_FILE: Final = "model_index.json"
PIPELINE_TOKENIZER: Final = "tokenizer/tokenizer.json"
TEXT_ENCODER: Final = "text_encoder"
PIPELINE_FILES: Final = (
    *(PIPELINE_FILE, SAMPLING_FILE, SCHEDULER_FILE, PIPELINE_TOKENIZER),
    *(f"{TEXT_ENCODER}/config.json", f"{TEXT_ENCODER}/model.safetensors"),
    *("unet/config.json", "unet/diffusion_pytorch_model.safetensors"),
    *("vae/config.json", "vae/diffusion_pytorch_model.safetensors"),
)

MAX_CONFIG_BYTES: Final = 1024 * 1024  # the largest published ones are a few KiB
MAX_TOKENIZER_BYTES: Final = 64 * 1024 * 1024  # the largest published ones are 35 MiB
MAX_SHARDS: Final = 1024
FAMILY_NAMES: Final = {
    "text-minhash256": DigestFamily.TEXT_MINHASH256,
    "text-simhash64": DigestFamily.TEXT_SIMHASH64,
    "img-pdq256": DigestFamily.IMG_PDQ256,
    "img-phash64": DigestFamily.IMG_PHASH64,
}
_SHARD_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.safetensors")
_CHUNK_BYTES: Final = 1024 * 1024

T = TypeVar("T")
Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class ModelRefused(Exception):
    """A model directory that is not what its card says, or that this program does not run."""


class CardFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """card.json: the card in words and, file by file, what its manifest hash stands for."""

    name: str
    dtype: str
    family: str
    tolerance_bits: int
    context_tokens: int
    vocabulary: int
    token_ms: int
    files: dict[str, Hex32]


class WeightsIndex(msgspec.Struct, frozen=True):
    """model.safetensors.index.json: which shard holds which tensor."""

    weight_map: dict[str, str]


class _Sizes(msgspec.Struct, frozen=True):
    """What a card takes over from config.json; GPT-2 calls its context n_positions."""

    vocab_size: int
    max_position_embeddings: int | None = None
    n_positions: int | None = None


def load_card(directory: Path) -> ModelCard:
    """The card that `card.json` describes; the files it lists are checked by `check_files`.

    Raises: ModelRefused if there is no card.json or it describes no card.
    """
    return _build_card(directory, _load_card_file(directory))


def check_files(directory: Path) -> None:
    """Reads every file that the card pins and compares its hash.

    Raises: ModelRefused naming the first file that differs, what was expected and what is there.
    """
    listed = _load_card_file(directory).files
    present = list_pinned_files(directory)
    if set(listed) != set(present):
        raise ModelRefused(
            f"{directory}: card.json lists {sorted(listed)}, the directory holds {present}; restore the model directory"
        )
    for name in present:
        found = compute_file_hash(directory / name).hex()
        if found != listed[name]:
            raise ModelRefused(
                f"{directory / name}: expected SHA-256 {listed[name]} as in card.json, got {found}; restore the file"
            )


def write_card(
    directory: Path, name: str, dtype: str, family: DigestFamily, token_ms: int, tolerance_bits: int = 0
) -> ModelCard:
    """The card of the files that are there now, written to `card.json`."""
    vocabulary, context = _load_sizes(directory)
    family_name = next(text for text, value in FAMILY_NAMES.items() if value == family)
    files = {file: compute_file_hash(directory / file).hex() for file in list_pinned_files(directory)}
    card = CardFile(name, dtype, family_name, tolerance_bits, context, vocabulary, token_ms, files)
    built = _build_card(directory, card)
    (directory / CARD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")
    return built


def is_pipeline(directory: Path) -> bool:
    """Whether a directory has diffusers' layout."""
    return (directory / PIPELINE_FILE).is_file()


def find_tokenizer(directory: Path) -> Path:
    """Where a directory's tokenizer is."""
    return directory / (PIPELINE_TOKENIZER if is_pipeline(directory) else TOKENIZER_FILE)


def list_pinned_files(directory: Path) -> list[str]:
    """Names of the files that decide the output, sorted: configuration, tokenizer and weights."""
    if is_pipeline(directory):
        return sorted(PIPELINE_FILES)
    weights = [WEIGHTS_FILE]
    if (directory / INDEX_FILE).is_file():
        weights = [INDEX_FILE, *list_shards(directory)]
    optional = [name for name in (GENERATION_FILE, SAMPLING_FILE, SCHEDULER_FILE) if (directory / name).is_file()]
    return sorted([CONFIG_FILE, TOKENIZER_FILE, *optional, *weights])


def list_shards(directory: Path) -> list[str]:
    """Names of the weight files that the index refers to, all of them inside the directory."""
    shards = sorted(set(load_json(directory / INDEX_FILE, WeightsIndex, MAX_TOKENIZER_BYTES).weight_map.values()))
    for shard in shards:
        if not _SHARD_NAME.fullmatch(shard):
            raise ModelRefused(f"{directory / INDEX_FILE}: expected names of .safetensors files, got {shard[:80]!r}")
    if not 1 <= len(shards) <= MAX_SHARDS:
        raise ModelRefused(f"{directory / INDEX_FILE}: expected 1 to {MAX_SHARDS} weight files, got {len(shards)}")
    return shards


def load_config(directory: Path, fields: type[T]) -> T:
    """These fields of config.json; others are left unread."""
    return load_json(directory / CONFIG_FILE, fields, MAX_CONFIG_BYTES)


def load_json(path: Path, fields: type[T], limit: int) -> T:
    """A JSON file as this type. Units: limit in bytes. Raises: ModelRefused."""
    try:
        return msgspec.json.decode(read_bounded(path, limit), type=fields)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelRefused(f"{path}: expected {fields.__name__.lstrip('_')} as JSON, got: {error}") from error


def read_bounded(path: Path, limit: int) -> bytes:
    """The file's bytes, at most `limit` of them. Raises: ModelRefused."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ModelRefused(f"{path}: cannot be read ({error.strerror}); restore the model directory") from error
    if len(content) > limit:
        raise ModelRefused(f"{path}: expected at most {limit} bytes, got more")
    return content


def compute_file_hash(path: Path) -> bytes:
    """SHA-256 of a file of any size. Raises: ModelRefused."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise ModelRefused(f"{path}: cannot be read ({error.strerror}); restore the model directory") from error
    return digest.digest()


def describe_card(card: ModelCard) -> str:
    """A card in a few words, for messages."""
    return f"{card.name} ({compute_model_id(card).hex()[:12]})"


def _load_sizes(directory: Path) -> tuple[int, int]:
    """The vocabulary and the context; a text encoder reads as many tokens as it has places, a text model answers in the last of them."""
    path = directory / (f"{TEXT_ENCODER}/{CONFIG_FILE}" if is_pipeline(directory) else CONFIG_FILE)
    sizes = load_json(path, _Sizes, MAX_CONFIG_BYTES)
    context = sizes.max_position_embeddings or sizes.n_positions
    if context is None:
        raise ModelRefused(f"{path}: expected max_position_embeddings or n_positions, got neither")
    return sizes.vocab_size, context + 1 if is_pipeline(directory) else context


def _load_card_file(directory: Path) -> CardFile:
    return load_json(directory / CARD_FILE, CardFile, MAX_CONFIG_BYTES)


def _build_card(directory: Path, file: CardFile) -> ModelCard:
    family = FAMILY_NAMES.get(file.family)
    if family is None:
        raise ModelRefused(
            f"{directory / CARD_FILE}: expected a family of {list(FAMILY_NAMES)}, got {file.family[:40]!r}"
        )
    tokenizer = next((name for name in (TOKENIZER_FILE, PIPELINE_TOKENIZER) if name in file.files), None)
    if tokenizer is None:
        raise ModelRefused(f"{directory / CARD_FILE}: expected the hash of {TOKENIZER_FILE} among its files, got none")
    listed = tuple((name, bytes.fromhex(file.files[name])) for name in sorted(file.files))
    card = ModelCard(
        name=file.name,
        manifest=compute_hash(HashDomain.MANIFEST, encode(listed)),
        tokenizer=bytes.fromhex(file.files[tokenizer]),
        dtype=file.dtype,
        family=family,
        tolerance_bits=file.tolerance_bits,
        context_tokens=file.context_tokens,
        vocabulary=file.vocabulary,
        token_ms=file.token_ms,
    )
    try:
        return msgspec.msgpack.decode(encode(card), type=ModelCard)
    except (msgspec.MsgspecError, OverflowError) as error:  # JSON has integers that msgpack has not
        raise ModelRefused(f"{directory / CARD_FILE}: describes no valid card: {error}") from error
