"""The files that certificates are judged by, fetched from a node: a chain file that grows, and a header to trust."""

from pathlib import Path

from node.disk import StorageFailure, replace_file
from node.faults import Fault
from node.render import print_note
from node.rpc_chain import ChainParams, ChainResult
from node.rpc_client import NodeClient
from protocol.chain_file import (
    MAX_CHAIN_FILE_BYTES,
    MAX_STEPS,
    ChainFile,
    decode_chain_file,
    encode_chain_file,
    name_chain_file,
)
from protocol.errors import InvalidTrust, Rejection
from protocol.units import ChainId


def keep_chain(client: NodeClient, folder: Path, chain: ChainId) -> Path | None:
    """The chain file in a folder, brought up to date; None where the validators never changed, or it can't be had.

    A certificate is worth keeping without it, and it can be fetched later, so a fault is told and no more.
    """
    path = folder / name_chain_file(chain)
    try:
        known = load_known(path, chain)
        grown = fetch_chain(client, known)
        if not grown.steps:
            return None
        if grown.steps != known.steps:
            replace_file(path, encode_chain_file(grown.chain_id, grown.steps))
    except (Fault, InvalidTrust, StorageFailure) as error:
        print_note(
            f"quorate: the changes of the validators are not kept ({error}): fetch them with `quorate chain --out {path}`"
        )
        return None
    return path


def load_known(path: Path, chain: ChainId) -> ChainFile:
    """The steps that a file holds already: none where there is no such file, or another one, which is then written anew."""
    nothing = ChainFile(chain, ())
    try:
        with path.open("rb") as file:
            known = decode_chain_file(file.read(MAX_CHAIN_FILE_BYTES + 5))
    except (FileNotFoundError, InvalidTrust):
        return nothing
    except OSError as error:
        raise StorageFailure(f"{path} cannot be read: {error.strerror or error}") from error
    return known if known.chain_id == chain else nothing


def fetch_chain(client: NodeClient, known: ChainFile) -> ChainFile:
    """The known steps and all later ones that the node has. Raises: Fault, InvalidTrust."""
    steps = known.steps
    while True:
        first = steps[-1].header.epoch + 1 if steps else 0
        answer = client.call("chain_get", ChainParams(first), ChainResult)
        more = decode_chain_file(answer.chain)
        if more.chain_id != known.chain_id:
            raise InvalidTrust(
                Rejection.WRONG_CHAIN,
                f"the node is of chain {more.chain_id.hex()[:12]}, the file is of {known.chain_id.hex()[:12]}: write to another file",
            )
        if not more.steps:
            return ChainFile(known.chain_id, steps)
        if more.steps[0].header.epoch < first or len(steps) + len(more.steps) > MAX_STEPS:
            raise InvalidTrust(
                Rejection.TOO_LARGE,
                f"expected at most {MAX_STEPS} changes of the validators from epoch {first} on: begin at a trusted header instead",
            )
        steps = (*steps, *more.steps)
