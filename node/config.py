"""A node's local settings: one TOML file, read once. Nothing here may change what the ledger agrees on (that is protocol/params.py).

Flags win over the environment (`QUORATE__SECTION__KEY`), that over the file, that over the defaults below. A key that nobody knows is an
error, because a setting that silently does nothing is one that its author believes in.
"""

import difflib
import ipaddress
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from node.disk import disk_fault
from node.faults import Fault, Trouble
from node.network import PeerAddress, parse_peer, peer_id_of

CONFIG_VERSION: Final = 1
ENVIRONMENT_PREFIX: Final = "QUORATE__"
MAX_CONFIG_BYTES: Final = 256 * 1024

Port: TypeAlias = Annotated[int, Meta(ge=0, le=65_535)]
Setting: TypeAlias = bool | int | str | tuple[str, ...]


class ConfigError(Fault):
    """A setting that can't be used: which, what was expected, what came."""

    def __init__(self, message: str, *, cure: str = "") -> None:
        super().__init__(Trouble.BAD_CONFIGURATION, message, cure=cure)


class NetworkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How this node meets others."""

    listen_host: Annotated[
        str,
        Meta(
            min_length=1, max_length=64, description="The IP address where peers reach this node; 0.0.0.0: every one."
        ),
    ] = "127.0.0.1"
    listen_port: Annotated[Port, Meta(description="Its port; 0: a free one.")] = 7550
    peers: Annotated[
        tuple[Annotated[str, Meta(max_length=512)], ...],
        Meta(max_length=1024, description="Peers to stay connected to, each as NODEID@HOST:PORT."),
    ] = ()

    @property
    def peer_addresses(self) -> tuple[PeerAddress, ...]:
        """The peers to stay connected to."""
        return tuple(parse_peer_setting(text) for text in self.peers)


class RpcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where programs and the command line reach this node."""

    host: Annotated[
        str,
        Meta(min_length=1, max_length=64, description="The IP address to listen on; any but loopback needs a token."),
    ] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Its port; 0: a free one, which `run/api` in the home tells.")] = 7551
    token_file: Annotated[
        Path | None, Meta(description="A file with the bearer token that callers need, of at least 16 characters.")
    ] = None
    max_body_bytes: Annotated[
        int, Meta(ge=1024, le=64 * 1024 * 1024, description="The largest request; larger ones are refused.")
    ] = 256 * 1024  # a job with its 8 KiB prompt, escaped, or a transaction of 16 KiB in base64, in a small batch
    max_connections: Annotated[int, Meta(ge=1, le=65_536, description="Connections at once; more are refused.")] = 64


class InferenceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The worker process that runs the models."""

    models: Annotated[
        tuple[Path, ...], Meta(max_length=64, description="Model directories; a node without any answers no jobs.")
    ] = ()
    device: Annotated[
        str, Meta(pattern=r"^(cpu|cuda|cuda:[0-9]{1,2})\Z", description="Where models run: cpu, cuda or cuda:N.")
    ] = "cpu"
    queue_size: Annotated[int, Meta(ge=1, le=4096, description="Requests that may wait for the worker.")] = 16
    command: Annotated[
        tuple[str, ...], Meta(max_length=64, description="Another worker than the node's own; empty: its own.")
    ] = ()


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is written about what happens."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least severe events that are logged.")
    ] = "info"


class StorageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The node's disk."""

    max_database_mib: Annotated[
        int,
        Meta(ge=0, le=2**30, description="The node stops, with nothing lost, when its chain is as large; 0: never."),
    ] = 0
    join: Annotated[
        Literal["auto", "always", "never"],
        Meta(
            description="Whether an empty home begins with a snapshot of the state instead of all blocks: auto: where one"
            " is 4,096 blocks ahead; never: this node has every block, or waits for a peer that has them."
        ),
    ] = "auto"


class OrderingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How blocks are ordered."""

    engine: Annotated[
        Literal["simplex", "single-node"],
        Meta(
            description="simplex: with the other validators; single-node: this node alone, where the set has no other: half"
            " the signatures, and it stops when the set grows."
        ),
    ] = "simplex"


class TestingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Faults on purpose, for tests of a network; a node that has one says so in its log. Never for a node that holds stake."""

    clock_skew_ms: Annotated[
        int,
        Meta(
            ge=-3_600_000, le=3_600_000, description="How far this node's clock is wrong: ahead, or behind (negative)."
        ),
    ] = 0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set, section by section."""

    network: NetworkSettings = NetworkSettings()
    rpc: RpcSettings = RpcSettings()
    inference: InferenceSettings = InferenceSettings()
    log: LogSettings = LogSettings()
    storage: StorageSettings = StorageSettings()
    ordering: OrderingSettings = OrderingSettings()
    testing: TestingSettings = TestingSettings()


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """The settings, and where each one that is no default comes from (`section.key` -> file, variable or flag)."""

    config: Config
    origins: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Layer:
    """One source of settings. Relative paths in it start from `base`; `is_text`: its values are strings, to be read by the setting's type."""

    origin: str
    values: Mapping[str, object]
    base: Path
    is_text: bool = False


_SECTIONS: Final = {field.name: field.type for field in msgspec.structs.fields(Config)}
_KEYS: Final = {
    f"{section}.{field.name}": field for section, kind in _SECTIONS.items() for field in msgspec.structs.fields(kind)
}


def load_config(path: Path | None, environment: Mapping[str, str], flags: Mapping[str, Setting]) -> LoadedConfig:
    """The settings of a node; flags are named `section.key`. Without a file the other sources alone.

    Raises: ConfigError; StorageFailure.
    """
    here = Path.cwd()
    layers: list[_Layer] = []
    if path is not None:
        layers.append(_Layer(str(path), _flatten_file(path, _read_toml(path)), path.absolute().parent))
    layers.extend(_split_environment(environment, here))
    layers.append(_Layer("command line", flags, here))
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        for key, value in layer.values.items():
            values[key] = _convert(layer, key, value)
            origins[key] = layer.origin
    config = _assemble(values)
    _check_together(config, origins)
    return LoadedConfig(config, origins)


def encode_config(settings: Mapping[str, Setting]) -> str:
    """A configuration file with these settings, named `section.key`; it is checked by being loaded."""
    lines = [f"version = {CONFIG_VERSION}"]
    for section in _SECTIONS:
        chosen = {
            key.removeprefix(f"{section}."): value for key, value in settings.items() if key.startswith(f"{section}.")
        }
        if chosen:
            lines += ["", f"[{section}]", *(f"{key} = {_encode_value(value)}" for key, value in chosen.items())]
    return "\n".join(lines) + "\n"


def parse_peer_setting(text: str) -> PeerAddress:
    """A peer from NODEIDHEX@host:port, or from the multiaddr that nodes print.

    Raises: ValueError saying what was expected.
    """
    if text.startswith("/"):
        return parse_peer(text)
    node_hex, _, place = text.partition("@")
    host, _, port = place.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if len(node_hex) != 64 or not bare or not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 65_535:
        raise ValueError(
            "expected NODEID@HOST:PORT (the node id in 64 hexadecimal digits), or /ip4/HOST/tcp/PORT/p2p/PEERID"
        )
    node = bytes.fromhex(node_hex)
    address = PeerAddress(node, f"/{_name_host_kind(bare)}/{bare}/tcp/{int(port)}")
    return parse_peer(f"{address.multiaddr}/p2p/{peer_id_of(node)}")


def _name_host_kind(host: str) -> str:
    if all(character.isalnum() or character in "-." for character in host) and host.isascii() and not _is_address(host):
        return "dns4"
    return "ip6" if ipaddress.ip_address(host).version == 6 else "ip4"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _read_toml(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise disk_fault(path, error) from error
    if len(content) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: expected at most {MAX_CONFIG_BYTES} bytes, got more")
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits is no TOMLDecodeError
        raise ConfigError(f"{path}: expected TOML, but {error}") from error


def _flatten_file(path: Path, document: Mapping[str, object]) -> dict[str, object]:
    version = document.get("version")
    if version is True or version != CONFIG_VERSION:
        raise ConfigError(
            f"{path}: expected `version = {CONFIG_VERSION}`, got {'none' if version is None else repr(version)}",
            cure=f"write `version = {CONFIG_VERSION}` on the first line, or run the version of quorate that wrote the file",
        )
    flat: dict[str, object] = {}
    for section, content in document.items():
        if section == "version":
            continue
        if section not in _SECTIONS:
            raise _unknown(str(path), section, _SECTIONS)
        try:
            settings = msgspec.convert(content, dict[str, object])
        except msgspec.ValidationError as error:
            raise ConfigError(f"{path}: expected a section [{section}], got the value {_shorten(content)}") from error
        flat.update({f"{section}.{key}": value for key, value in settings.items()})
    return flat


def _split_environment(environment: Mapping[str, str], here: Path) -> list[_Layer]:
    layers: list[_Layer] = []
    for name, value in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            layers.append(_Layer(name, {key: value}, here, is_text=True))
    return layers


def _convert(layer: _Layer, key: str, value: object) -> object:
    field = _KEYS.get(key)
    if field is None:
        raise _unknown(layer.origin, key, _KEYS)
    if layer.is_text and isinstance(field.default, tuple):
        value = [part.strip() for part in str(value).split(",") if part.strip()]

    def decode(kind: type, given: object) -> object:
        if kind is not Path or not isinstance(given, str) or not given or "\0" in given:
            raise ValueError(f"expected a path, got {given!r}")
        try:
            return layer.base / Path(given).expanduser()
        except RuntimeError as error:
            raise ValueError(f"expected a path, got {given!r}, and there is no such user") from error

    try:
        return msgspec.convert(value, field.type, strict=not layer.is_text, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{layer.origin}: {key} = {_shorten(value)}: {error}") from error


def _assemble(values: Mapping[str, object]) -> Config:
    sections: dict[str, dict[str, object]] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    return msgspec.convert(sections, Config)


def _check_together(config: Config, origins: Mapping[str, str]) -> None:
    """What no single setting can say."""
    for key, host in (("network.listen_host", config.network.listen_host), ("rpc.host", config.rpc.host)):
        if not _is_address(host):
            raise ConfigError(f"{origins[key]}: {key}: expected an IP address of this machine, got {host!r}")
    if not ipaddress.ip_address(config.rpc.host).is_loopback and config.rpc.token_file is None:
        raise ConfigError(
            f"{origins['rpc.host']}: rpc.host = {config.rpc.host!r} is open to other machines, but there is no token",
            cure="set rpc.token_file, or keep rpc.host on 127.0.0.1",
        )
    for text in config.network.peers:
        try:
            parse_peer_setting(text)
        except ValueError as error:
            raise ConfigError(f"{origins['network.peers']}: network.peers: {text!r}: {error}") from error


def _unknown(origin: str, key: str, known: Iterable[str]) -> ConfigError:
    choices = list(known)
    near = difflib.get_close_matches(key, choices, n=1, cutoff=0.0)
    return ConfigError(f"{origin}: unknown setting {key!r}; the nearest one is {near[0]!r}")


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _encode_value(value: Setting) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _encode_text(value)
        case _:
            return "[" + ", ".join(_encode_text(item) for item in value) + "]"


def _encode_text(text: str) -> str:
    # A JSON string is a TOML basic string, but for DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
