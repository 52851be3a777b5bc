"""Certificates of settled jobs."""

from dataclasses import dataclass

from node.chain import Chain, FinalizedBlock
from node.storage import Storage
from protocol.genesis import Genesis
from protocol.ledger.draft import Ledger
from protocol.models import Output
from protocol.units import Hash, JobId, NodeId


@dataclass(frozen=True, slots=True)
class Shelved:
    encoded: bytes
    winner_hash: Hash
    holders: tuple[NodeId, ...]


class CertificateShelf:
    def __init__(self, storage: Storage, genesis: Genesis, chain: Chain) -> None:
        self._storage = storage

    def keep(self, blocks: tuple[FinalizedBlock, ...]) -> None:
        return

    def get(self, job: JobId) -> Shelved | None:
        return None

    def attach(self, found: Shelved, output: Output) -> bytes:
        return b""

    def explain_absence(self, job: JobId, ledger: Ledger) -> str:
        return "not yet"
