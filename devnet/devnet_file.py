"""devnet.json: which nodes a devnet has, where they answer and which processes they are. Others read it to find a node."""

from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from devnet.processes import ProcessMark, is_running
from node.disk import disk_fault, replace_file
from node.faults import Fault, Trouble

FILE_NAME: Final = "devnet.json"
MAX_FILE_BYTES: Final = 1024 * 1024

Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class DevnetNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node. `pid` and `started` (clock ticks since boot) are null where it was stopped, `cheat` where it is honest."""

    index: Annotated[int, Meta(ge=0, le=99)]
    node: Hex32
    home: str
    rpc: str
    p2p: str
    pid: Annotated[int, Meta(ge=2)] | None
    started: Annotated[int, Meta(ge=0)] | None
    cheat: str | None

    @property
    def mark(self) -> ProcessMark | None:
        """The process that was started for this node."""
        return None if self.pid is None or self.started is None else ProcessMark(self.pid, self.started)

    @property
    def is_up(self) -> bool:
        """Whether that process runs."""
        return self.mark is not None and is_running(self.mark)


class DevnetFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network on this machine; paths are absolute."""

    chain_id: Hex32
    genesis: str
    nodes: Annotated[tuple[DevnetNode, ...], Meta(min_length=1, max_length=100)]

    @property
    def marks(self) -> tuple[ProcessMark, ...]:
        """The processes that were started, running or not."""
        return tuple(node.mark for node in self.nodes if node.mark is not None)


def has_devnet(directory: Path) -> bool:
    """Whether a devnet was made here."""
    return (directory / FILE_NAME).is_file()


def load_devnet(directory: Path) -> DevnetFile:
    """The devnet of a directory.

    Raises: Fault(NOT_A_HOME) where there is none, or the file is none; StorageFailure.
    """
    path = directory / FILE_NAME
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Fault(
            Trouble.NOT_A_HOME,
            f"there is no devnet in {directory}: it has no {FILE_NAME}",
            cure=f"make one: quorate devnet up --home {directory}",
        ) from error
    except OSError as error:
        raise disk_fault(path, error) from error
    try:
        if len(content) > MAX_FILE_BYTES:
            raise msgspec.ValidationError(f"at most {MAX_FILE_BYTES} bytes")
        return msgspec.json.decode(content, type=DevnetFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Fault(
            Trouble.NOT_A_HOME,
            f"{path}: expected a devnet's file, but {error}",
            cure="give another directory with --home DIR, or remove this one once its nodes are stopped",
        ) from error


def store_devnet(directory: Path, devnet: DevnetFile) -> None:
    """Put devnet.json in place, whole.

    Raises: StorageFailure.
    """
    replace_file(directory / FILE_NAME, msgspec.json.format(msgspec.json.encode(devnet), indent=2) + b"\n")
