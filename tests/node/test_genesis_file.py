"""genesis.json: the same genesis for everybody who reads it, or the name of the field that is wrong."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.disk import StorageFailure
from node.faults import Exit, Fault, Trouble
from node.genesis_file import MAX_GENESIS_FILE_BYTES, decode_genesis, read_genesis, write_genesis
from protocol.digest import DigestFamily
from protocol.genesis import Genesis, GenesisAccount, GenesisValidator, compute_chain_id
from protocol.models import ModelCard
from protocol.params import DEVNET, INTERNET, MINIMAL

HASHES = st.binary(min_size=32, max_size=32)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
CARDS = st.builds(
    ModelCard,
    name=NAMES, manifest=HASHES, tokenizer=HASHES, dtype=st.sampled_from(["float32", "bfloat16"]), family=st.sampled_from(DigestFamily),
    tolerance_bits=st.integers(0, 256), context_tokens=st.integers(1, 2**24), vocabulary=st.integers(1, 2**24), token_ms=st.integers(1, 60_000),
)  # fmt: skip
VALIDATORS = st.builds(
    GenesisValidator,
    node=HASHES,
    stake=st.integers(1, 2**53),
    onion_tip=HASHES,
    serves=st.lists(HASHES, max_size=3).map(tuple),
)
ACCOUNTS = st.builds(GenesisAccount, node=HASHES, balance=st.integers(0, 2**63 - 1))
GENESES = st.builds(
    Genesis,
    version=st.just(1), name=NAMES, time_ms=st.integers(0, 2**63 - 1), seed=HASHES, params=st.sampled_from([INTERNET, DEVNET, MINIMAL]),
    validators=st.lists(VALIDATORS, min_size=1, max_size=4).map(tuple), accounts=st.lists(ACCOUNTS, max_size=4).map(tuple),
    models=st.lists(CARDS, max_size=3).map(tuple),
)  # fmt: skip
EXAMPLE = Genesis(
    1, "example", 5, b"s" * 32, DEVNET,
    (GenesisValidator(b"n" * 32, 10, b"o" * 32, (b"m" * 32,)), GenesisValidator(b"p" * 32, 11, b"o" * 32, ())),
    (GenesisAccount(b"n" * 32, 7),),
    (ModelCard("arith-s", b"a" * 32, b"t" * 32, "float32", DigestFamily.TEXT_MINHASH256, 0, 128, 16, 50),),
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "genesis.json"


@given(genesis=GENESES)
@settings(max_examples=50)
def test_every_genesis_comes_back_with_its_chain_id(tmp_path_factory: pytest.TempPathFactory, genesis: Genesis) -> None:
    path = tmp_path_factory.mktemp("genesis") / "genesis.json"
    write_genesis(path, genesis)
    found = read_genesis(path)
    assert found == genesis
    assert compute_chain_id(found) == compute_chain_id(genesis)


def test_the_file_says_everything_by_name(path: Path) -> None:
    write_genesis(path, EXAMPLE)
    document = json.loads(path.read_text())
    assert document["name"] == "example"
    assert document["validators"][1] == {"node": "70" * 32, "stake": 11, "onion_tip": "6f" * 32, "serves": []}
    assert document["models"][0]["family"] == "text-minhash256"
    assert document["params"]["epoch_heights"] == 32


def change(steps: str, value: object) -> Callable[[Any], None]:
    def apply(document: Any) -> None:
        *way, last = [int(step) if step.isdigit() else step for step in steps.split(".")]
        for step in way:
            document = document[step]
        if value is ...:
            del document[last]
        else:
            document[last] = value

    return apply


@pytest.mark.parametrize(
    "edit, named",
    [
        (change("seed", ...), "the field seed is missing"),
        (change("validators.1.stake", ...), r"the field validators\[1\]\.stake is missing"),
        (change("validators.1.steak", 5), r"unknown field .validators\[1\]\.steak"),
        (change("validators.1.stake", 0), r"validators\[1\]\.stake: Expected int >= 1, got 0"),
        (change("validators.1.stake", "5"), r"validators\[1\]\.stake: Expected int, got str"),
        (change("validators.1.stake", 5.0), r"validators\[1\]\.stake"),
        (change("validators.1.stake", True), r"validators\[1\]\.stake"),
        (change("validators.1.stake", None), r"validators\[1\]\.stake"),
        (change("validators.1.stake", 2**70), r"validators\[1\]\.stake"),
        (change("validators.1.node", "70" * 31), r"validators\[1\]\.node: Expected bytes of length >= 32"),
        (change("validators.1.node", "7G" * 32), r"validators\[1\]\.node: expected bytes in small hexadecimal"),
        (change("validators.1.node", "7F" * 32), r"validators\[1\]\.node: expected bytes in small hexadecimal"),
        (change("validators.1.node", " 7" * 32), r"validators\[1\]\.node: expected bytes in small hexadecimal"),
        (change("validators.1.node", 7), r"validators\[1\]\.node: expected bytes in small hexadecimal"),
        (change("validators.1", []), r"validators\[1\]: expected an object"),
        (change("validators", {}), r"validators: expected a list"),
        (change("validators", []), r"validators: Expected array of length >= 1"),
        (change("models.0.family", "psychic"), r"models\[0\]\.family: expected one of text-minhash256"),
        (change("models.0.family", 1), r"models\[0\]\.family: expected one of text-minhash256"),
        (change("models.0.dtype", "float8"), r"models\[0\]\.dtype"),
        (change("params.base_fee", -1), r"params\.base_fee: Expected int >= 0"),
        (change("version", 2), r"version: Expected int <= 1, got 2"),
        (change("name", "No Spaces"), "name: "),
    ],
)
def test_a_wrong_field_is_named(path: Path, edit: Callable[[Any], None], named: str) -> None:
    write_genesis(path, EXAMPLE)
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    with pytest.raises(Fault, match=named) as raised:
        read_genesis(path)
    assert (raised.value.reason, raised.value.exit_code) == (Trouble.BAD_GENESIS, Exit.CONFIGURATION)
    assert str(path) in raised.value.message


@pytest.mark.parametrize(
    "content, named",
    [
        (b"", "expected JSON"),
        (b"\xff", "expected JSON"),
        (b"[]", "the file: expected an object"),
        (b"null", "the file: expected an object"),
        (b'{"name": "a", "name": "b"}', 'the field "name" comes twice'),
        (b"[" * 100_000, "expected JSON"),
        (b'{"version": ' + b"1" * 5000 + b"}", "expected JSON"),
    ],
)
def test_what_is_no_genesis_at_all_is_named(content: bytes, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        decode_genesis(content)


def test_a_file_over_the_limit_is_refused_unread(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MAX_GENESIS_FILE_BYTES + 1)
    with pytest.raises(Fault, match="expected at most"):
        read_genesis(path)


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    write_genesis(path, EXAMPLE)
    content = path.read_bytes().rstrip()
    for size in range(0, len(content), 97):
        with pytest.raises(ValueError):
            decode_genesis(content[:size])


@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_other_json_is_refused_in_a_sentence(document: object) -> None:
    with pytest.raises(ValueError):
        decode_genesis(json.dumps(document).encode())


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(Fault) as raised:
        read_genesis(path)
    assert raised.value.reason is Trouble.NO_SUCH_FILE


def test_a_folder_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StorageFailure, match="directory"):
        read_genesis(path)


def test_reading_a_genesis_costs_no_network_and_no_tensors() -> None:
    program = "import sys, node.genesis_file; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    assert not {"torch", "libp2p", "trio", "numpy", "cryptography", "sqlite3"} & set(loaded)
