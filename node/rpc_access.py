"""Who may call a node: the token file, and which addresses only this machine can reach."""

import ipaddress
from pathlib import Path
from typing import Final

from node.faults import Fault, Trouble

MAX_TOKEN_BYTES: Final = 4096
MIN_TOKEN_CHARACTERS: Final = 16  # of a random token that is 80 bits in base 32


def load_token(path: Path) -> str:
    """The bearer token in a file, without white space around it. Raises: Fault(BAD_CONFIGURATION)."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_TOKEN_BYTES + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Fault(
            Trouble.BAD_CONFIGURATION, f"the token file {path} cannot be read: {error}", cure=_make_one(path)
        ) from error
    if not MIN_TOKEN_CHARACTERS <= len(text) < MAX_TOKEN_BYTES or not text.isprintable():
        raise Fault(
            Trouble.BAD_CONFIGURATION,
            f"the token file {path} should hold a token of at least {MIN_TOKEN_CHARACTERS} characters, got {len(text)}",
            cure=_make_one(path),
        )
    return text


def _make_one(path: Path) -> str:
    return f"make one: python3 -c 'import secrets; print(secrets.token_hex())' > {path}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
