"""A node's home directory: where its files are, and that only one process uses it."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.disk import disk_fault, replace_file
from node.faults import Fault, Trouble

_MAX_API_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Home:
    """The places in a home directory; nothing says that they exist."""

    root: Path

    @property
    def config(self) -> Path:
        """The node's local settings."""
        return self.root / "config.toml"

    @property
    def genesis(self) -> Path:
        """The network that this node belongs to."""
        return self.root / "genesis.json"

    @property
    def key(self) -> Path:
        """The node's identity and account."""
        return self.root / "keys" / "node.key"

    @property
    def database(self) -> Path:
        """The final chain."""
        return self.root / "data" / "chain.db"

    @property
    def votes(self) -> Path:
        """What this node signed for consensus."""
        return self.root / "data" / "votes.wal"

    @property
    def api(self) -> Path:
        """Where the running node answers."""
        return self.root / "run" / "api"

    @property
    def lock(self) -> Path:
        """Held by the running node."""
        return self.root / "run" / "lock"


def compute_default_home(environment: Mapping[str, str]) -> Path:
    """Where a node lives if nobody says otherwise. Source: XDG Base Directory Specification."""
    # The specification tells to ignore a relative path here.
    given = Path(environment.get("XDG_DATA_HOME", ""))
    base = given if given.is_absolute() else Path(environment.get("HOME", "~")).expanduser() / ".local" / "share"
    return base / "quorate"


def create_home(root: Path) -> Home:
    """A home with its folders, readable by its owner only. Run again, it changes nothing.

    Raises: Fault(NOT_A_HOME) where the directory holds something else; StorageFailure.
    """
    home = Home(root)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = {path.relative_to(root).parts[0] for path in _all_places(home)}
        foreign = sorted(entry.name for entry in root.iterdir() if entry.name not in own)
        if foreign:
            raise Fault(
                Trouble.NOT_A_HOME,
                f"{root}: expected an empty or a new directory, got one that holds {foreign[0]!r}",
                cure="give an empty or a new directory with --home DIR",
            )
        for folder in {path.parent for path in _all_places(home)}:
            folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise disk_fault(root, error) from error
    return home


def find_home(root: Path) -> Home:
    """A home that a node can start from.

    Raises: Fault(NOT_A_HOME) naming the first file that is missing.
    """
    home = Home(root)
    for path in (home.genesis, home.key, home.config):
        if not path.is_file():
            raise Fault(Trouble.NOT_A_HOME, f"{root} is no node's home: it has no {path.relative_to(root)}")
    for folder in {path.parent for path in _all_places(home)}:
        if not folder.is_dir():
            raise Fault(Trouble.NOT_A_HOME, f"{root} is no node's home: it has no folder {folder.relative_to(root)}")
    return home


@contextmanager
def hold_home(home: Home) -> Iterator[None]:
    """The home is this process' alone; the system lets go of it however the process ends.

    Raises: Fault(HOME_LOCKED) naming the process that has it; StorageFailure.
    """
    try:
        descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise disk_fault(home.lock, error) from error
    try:
        _take_lock(home, descriptor)
        try:
            yield
        finally:
            home.api.unlink(missing_ok=True)
    finally:
        os.close(descriptor)  # the file stays: to remove it would let two processes hold two files of one name


def store_api_address(home: Home, url: str) -> None:
    """Tell the command line where this node answers.

    Raises: StorageFailure.
    """
    replace_file(home.api, f"{url}\n".encode(), mode=0o600)


def load_api_address(home: Home) -> str:
    """Where the node of this home answers. One that was killed leaves its address behind: nobody answers there.

    Raises: Fault(NO_NODE_RUNNING); StorageFailure.
    """
    try:
        with home.api.open("rb") as file:
            content = file.read(_MAX_API_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Fault(Trouble.NO_NODE_RUNNING, f"no node runs with the home {home.root}") from error
    except OSError as error:
        raise disk_fault(home.api, error) from error
    return content.decode("ascii", "replace").strip()


def _all_places(home: Home) -> tuple[Path, ...]:
    return (home.config, home.genesis, home.key, home.database, home.votes, home.api, home.lock, home.root / "logs")


def _take_lock(home: Home, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        who = f"process {holder}" if holder.isdigit() else "another process"
        raise Fault(Trouble.HOME_LOCKED, f"the home {home.root} is in use by {who}") from error
    except OSError as error:
        raise disk_fault(home.lock, error) from error
