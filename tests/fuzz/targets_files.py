"""What comes from files and from the worker process: geneses, logs, keys, settings, cards, and what a worker says."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from devnet.devnet_file import FILE_NAME, load_devnet
from node.config import encode_config, load_config
from node.disk import DamagedStorage
from node.faults import Fault
from node.genesis_file import MAX_GENESIS_FILE_BYTES, describe, read_genesis
from node.keys import create_key, load_key
from node.protection import export_protection, read_protection
from node.records import Entry, Permission, Watermark, decode_record, encode_record
from node.rpc_access import load_token
from node.validator_file import load_validator
from node.wal import open_wal
from protocol.errors import InvalidGenesis
from protocol.ledger.state import create_genesis
from protocol.ordering.messages import Vote
from tests.fuzz.served import make_place
from tests.fuzz.shapes import Json, Lines, Log, Opaque, Packed
from tests.fuzz.target import Target
from tests.protocol.builders import make_genesis, make_hash, make_key
from tests.protocol.ordering.rig import (
    CHAIN,
    FINAL,
    NOTAR,
    NULL,
    Rig,
    hash_of,
    make_block,
    make_cert,
    make_proposal,
    make_vote,
)
from tests.vectors import samples as pinned
from verifier import card
from verifier.card import CONFIG_FILE, ModelRefused, load_card
from verifier.card import load_config as load_model_config

if TYPE_CHECKING:
    from collections.abc import Callable


ROOT = Path(__file__).resolve().parents[2]
ARITH = ROOT / "devnet" / "models" / "arith-s"


def _put(name: str, content: bytes) -> Path:
    """The content in a file that only its owner may read."""
    path = make_place() / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)
    return path


# --- genesis and validators


def _take_genesis_file(content: bytes) -> str:
    create_genesis(read_genesis(_put("genesis.json", content)))
    return "starts"


def _list_genesis_files() -> list[bytes]:
    return [json.dumps(describe(genesis)).encode() for genesis in (make_genesis(("v0", "v1")), pinned.GENESIS)]


def _take_validator_file(content: bytes) -> str:
    return f"{len(load_validator(_put('validator.json', content)).serves)} models"


def _list_validator_files() -> list[bytes]:
    node = make_key("v0").public.hex()
    line = {"node": node, "onion_tip": make_hash("tip").hex(), "serves": [make_hash("model").hex()]}
    return [json.dumps(each).encode() for each in (line, {**line, "address": f"{node}@10.0.0.1:7550"})]


# --- the vote log


def _list_records() -> list[Entry]:
    block = make_block(1)
    first = hash_of(block)
    return [
        Watermark(1, 7),
        Permission(None),
        Permission(2),
        make_vote(NOTAR, 1, first, 0),
        make_vote(NULL, 3, bytes(32), 0),
        block,
        make_cert(FINAL, 1, first),
        make_proposal(make_block(4)),
    ]


def _take_record(content: bytes) -> str:
    decode_record(content)
    return "read"


@cache
def _list_logs() -> list[bytes]:
    path = make_place() / "sample.wal"
    wal = open_wal(path, CHAIN).wal
    for record in _list_records():
        wal.append([encode_record(record)])
        wal.sync()
    wal.append([encode_record(record) for record in _list_records()])
    wal.sync()
    wal.close()
    return [path.read_bytes()]


def _is_own(record: Entry) -> bool:
    """Whether ordering is given it: of the votes only the validator's own, of the entries only those of its kinds."""
    return record.signer == 0 if isinstance(record, Vote) else not isinstance(record, Watermark | Permission)


def _take_protection(content: bytes) -> str:
    """How far the key of this home has signed."""
    return f"epoch {min(9, read_protection(_put('protection.json', content), PROTECTED, CHAIN)[0])}"


def _list_protections() -> list[bytes]:
    path = make_place() / "sample-protection.json"
    export_protection(path, PROTECTED, CHAIN, (3, 700))
    return [path.read_bytes()]


def _take_log(content: bytes) -> str:
    """Opened, and what it holds replayed: strange records as silently as the machine's own, as far as this validator signed them."""
    opened = open_wal(_put("votes.wal", content), CHAIN)
    opened.wal.close()
    records = [decode_record(record) for record in opened.records]
    rig = Rig(own=0, records=tuple(filter(_is_own, records)))
    return f"{min(3, len(records))} records, view {min(9, rig.state.view)}"


# --- keys, tokens, settings


@cache
def _list_keys() -> list[bytes]:
    create_key(make_place() / "sample.key", None)
    return [(make_place() / "sample.key").read_bytes()]


def _take_key(content: bytes) -> str:
    return f"{len(load_key(_put('node.key', content), None).node)} bytes"


def _take_token(content: bytes) -> str:
    return f"{len(load_token(_put('token', content))) > 32}"


def _list_configs() -> list[bytes]:
    node = make_key("v0").public.hex()
    chosen = {
        "network.listen_host": "127.0.0.1",
        "network.listen_port": 7550,
        "network.peers": (f"{node}@10.0.0.1:7550", f"{node}@[::1]:1", f"{node}@host.example:65535"),
        "rpc.host": "127.0.0.1",
        "rpc.token_file": "token",
        "inference.models": ("models/adder", "~/models"),
        "log.level": "debug",
    }
    return [
        encode_config(chosen).encode(),
        b"version = 1\n",
        b"version = 1\n[network]\npeers = []\n[storage]\njoin = 'never'\n",
    ]


def _take_config(content: bytes) -> str:
    return f"{len(load_config(_put('config.toml', content), {}, {}).origins)} settings"


def _take_variable(content: bytes) -> str:
    """A setting from the environment, whose values are texts."""
    name, _, value = content.decode("utf-8", "replace").partition("=")
    return f"{len(load_config(None, {name: value}, {}).origins)} settings"


def _list_variables() -> list[bytes]:
    settings = (
        "RPC__PORT=7551",
        "NETWORK__PEERS=a@b:1,c",
        "LOG__LEVEL=info",
        "INFERENCE__MODELS=a,~b",
        "RPC__TOKEN_FILE=~x/t",
    )
    return [f"QUORATE__{each}".encode() for each in settings]


# --- models and devnets


def _take_card_file(content: bytes) -> str:
    path = _put("model/card.json", content)
    return f"{load_card(path.parent).vocabulary}"


def _take_model_config(content: bytes, fields: type) -> str:
    load_model_config(_put(f"model/{CONFIG_FILE}", content).parent, fields)
    return "read"


def _get_sizes() -> type:
    return card._Sizes


def _take_devnet(content: bytes) -> str:
    return f"{len(load_devnet(_put(f'devnet/{FILE_NAME}', content).parent).nodes)} nodes"


def _load(name: str) -> Callable[[], list[bytes]]:
    return lambda: [(ARITH / name).read_bytes()]


def _list_devnets() -> list[bytes]:
    node = {"index": 0, "node": "ab" * 32, "home": "/home", "rpc": "http://127.0.0.1:1", "p2p": "/ip4/127.0.0.1/tcp/2"}
    up, down = ({**node, "pid": pid, "started": pid, "cheat": cheat} for pid, cheat in ((7, None), (None, "liar")))
    return [
        json.dumps({"chain_id": "cd" * 32, "genesis": "/genesis.json", "nodes": nodes}).encode()
        for nodes in ([up], [up, down])
    ]


# A file is read into a buffer as large as it may be; of a small one the system never hands out most of that.
FILE_BUFFER = 2 * 1024 * 1024
GENESIS_BUFFER = MAX_GENESIS_FILE_BYTES + 2 * 1024 * 1024
PROTECTED = make_key("v0").public
WAL = "node/wal.py::"
CONFIG = "node/config.py::"
TARGETS = (
    Target(
        "genesis-file",
        (
            "node/genesis_file.py::decode_genesis",
            "node/genesis_file.py::_check_bounds",
            "node/genesis_file.py::_read_hex",
        ),
        Json(),
        _list_genesis_files,
        _take_genesis_file,
        (Fault, InvalidGenesis),
        allowance=GENESIS_BUFFER,
    ),
    Target(
        "validator-file",
        ("node/validator_file.py::load_validator", f"{CONFIG}parse_peer_setting", "node/network.py::node_id_of"),
        Json(),
        _list_validator_files,
        _take_validator_file,
        (Fault,),
        allowance=256 * 1024,
    ),
    Target(
        "wal-record",
        ("node/records.py::_CODEC_OF",),
        Packed(1),
        lambda: [encode_record(each) for each in _list_records()],
        _take_record,
        (DamagedStorage,),
    ),
    Target(
        "wal-file",
        (f"{WAL}_check_header", f"{WAL}_decode_records", f"{WAL}_read_frame"),
        Log(),
        _list_logs,
        _take_log,
        (Fault,),
        allowance=512 * 1024,
    ),
    Target(
        "protection-file",
        ("node/protection.py::read_protection",),
        Json(),
        _list_protections,
        _take_protection,
        (Fault,),
        allowance=256 * 1024,
    ),
    Target("key-file", ("node/keys.py::_decode_pem",), Lines(), _list_keys, _take_key, (Fault,), allowance=256 * 1024),
    Target(
        "token-file",
        (),
        Opaque(),
        lambda: [b"0123456789abcdef\n", b"x" * 64],
        _take_token,
        (Fault,),
        allowance=256 * 1024,
    ),
    Target(
        "config-file",
        (
            f"{CONFIG}_read_toml",
            f"{CONFIG}_flatten_file",
            f"{CONFIG}_convert",
            f"{CONFIG}_assemble",
            f"{CONFIG}parse_peer_setting",
        ),
        Lines(),
        _list_configs,
        _take_config,
        (Fault,),
        allowance=512 * 1024,
    ),
    Target(
        "config-variable",
        (f"{CONFIG}_convert",),
        Lines(b"="),
        _list_variables,
        _take_variable,
        (Fault,),
        allowance=512 * 1024,
    ),
    Target(
        "card-file",
        ("verifier/card.py::load_json", "verifier/card.py::_build_card"),
        Json(),
        _load("card.json"),
        _take_card_file,
        (ModelRefused,),
        allowance=FILE_BUFFER,
    ),
    Target(
        "model-config",
        ("verifier/card.py::load_json",),
        Json(),
        _load(CONFIG_FILE),
        lambda content: _take_model_config(content, _get_sizes()),
        (ModelRefused,),
        allowance=FILE_BUFFER,
    ),
    Target(
        "devnet-file",
        ("devnet/devnet_file.py::load_devnet",),
        Json(),
        _list_devnets,
        _take_devnet,
        (Fault,),
        allowance=FILE_BUFFER,
    ),
)
