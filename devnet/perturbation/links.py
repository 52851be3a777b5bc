"""What connects the validators and can be taken away from one of them: what each way of doing it offers."""

from collections.abc import Mapping
from typing import Final, Protocol

PEERS_VARIABLE: Final = "QUORATE__NETWORK__PEERS"
HOST_VARIABLE: Final = "QUORATE__NETWORK__LISTEN_HOST"


class Links(Protocol):
    """The network between the nodes, by node index."""

    def get_prefix(self, index: int, /) -> tuple[str, ...]:
        """What comes before the command that starts this node."""
        ...

    def get_environment(self, index: int, /) -> Mapping[str, str]:
        """The settings with which this node finds its peers, and they it."""
        ...

    def enter(self, index: int, /) -> None:
        """Brings the calling thread, for good, to where this node's RPC can be reached."""
        ...

    def cut(self, index: int, /) -> None:
        """From now on nothing gets from this node to a peer, or the other way; neither side is told."""
        ...

    def heal(self, index: int, /) -> None:
        """Puts the link back."""
        ...
