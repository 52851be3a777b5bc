"""Consecutive headers of a certificate, without what follows from the rest: chain id, epochs, parents, beacons, the later leader seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, NoReturn

from msgspec import Meta

from protocol.block import Header, compute_header_hash
from protocol.codec import Message
from protocol.errors import InvalidCertificate, Rejection
from protocol.jobs.beacon import compute_beacon
from protocol.params import Params, compute_epoch
from protocol.units import ChainId, Epoch, Hash, Height, Milliseconds, View

_MAX_WAITING_HEADERS: Final = 256  # params.beacon_max_blocks at most
_MAX_EPOCHS: Final = 2  # beacon_max_blocks is at most epoch_heights


class HeaderCore(Message, frozen=True):
    """What of a header does not follow from the one before it or from its epoch."""

    view: View
    tx_root: Hash
    state_root: Hash
    candidates_root: Hash
    beacon_reveal: Hash
    time_ms: Milliseconds


class HeaderChain(Message, frozen=True):
    """Consecutive headers: where the first one stands, its own beacon and leader seed, the sets of its epochs, each one's core."""

    height: Height
    parent_view: View
    parent_hash: Hash
    beacon: Hash
    leader_seed: Hash  # a later epoch's is the beacon at the end of the one before
    valset_hashes: Annotated[tuple[Hash, ...], Meta(min_length=2, max_length=_MAX_EPOCHS + 1)]
    """Of each epoch, and of the one after the last."""
    cores: Annotated[tuple[HeaderCore, ...], Meta(min_length=1, max_length=_MAX_WAITING_HEADERS)]


def refuse(reason: Rejection, what: str) -> NoReturn:
    """Raises: InvalidCertificate, with what is wrong and what to do."""
    raise InvalidCertificate(reason, f"this certificate {what}: ask another node for it")


def compress_headers(headers: Sequence[Header]) -> HeaderChain:
    """Consecutive headers without what follows from the rest."""
    cores = (
        HeaderCore(each.view, each.tx_root, each.state_root, each.candidates_root, each.beacon_reveal, each.time_ms)
        for each in headers
    )
    first = headers[0]
    following = {each.epoch: each.next_valset_hash for each in headers}
    return HeaderChain(
        height=first.height,
        parent_view=first.parent_view,
        parent_hash=first.parent_hash,
        beacon=first.beacon,
        leader_seed=first.leader_seed,
        valset_hashes=(first.valset_hash, *following.values()),
        cores=tuple(cores),
    )


def expand_headers(chain: HeaderChain, chain_id: ChainId, params: Params) -> tuple[Header, ...]:
    """The whole headers, each linked to the one before, over the end of an epoch as well.

    Raises: InvalidCertificate(BAD_HEIGHT | BAD_BEACON).
    """
    first_epoch = _check_epochs(chain, params)
    headers = [_make_first(chain, chain_id, first_epoch)]
    for core in chain.cores[1:]:
        parent = headers[-1]
        epoch = compute_epoch(params, parent.height + 1)
        headers.append(
            Header(
                chain_id=chain_id,
                epoch=epoch,
                leader_seed=parent.leader_seed if epoch == parent.epoch else parent.beacon,
                view=core.view,
                height=parent.height + 1,
                parent_view=parent.view,
                parent_hash=compute_header_hash(parent),
                tx_root=core.tx_root,
                state_root=core.state_root,
                valset_hash=chain.valset_hashes[epoch - first_epoch],
                next_valset_hash=chain.valset_hashes[epoch - first_epoch + 1],
                candidates_root=core.candidates_root,
                beacon_reveal=core.beacon_reveal,
                beacon=compute_beacon(parent.beacon, core.beacon_reveal),
                time_ms=core.time_ms,
            )
        )
    if any(header.view <= header.parent_view for header in headers):
        refuse(Rejection.BAD_BEACON, f"has views that do not ascend from block {chain.height} on")
    return tuple(headers)


def _check_epochs(chain: HeaderChain, params: Params) -> Epoch:
    """The first header's epoch, if there is a set for each."""
    first = compute_epoch(params, chain.height)
    count = compute_epoch(params, chain.height + len(chain.cores) - 1) - first + 1
    if chain.height == 0 or len(chain.valset_hashes) != count + 1:
        refuse(
            Rejection.BAD_HEIGHT,
            f"has {len(chain.cores)} headers from height {chain.height}, in {count} epochs, with {len(chain.valset_hashes)} validator sets",
        )
    return first


def _make_first(chain: HeaderChain, chain_id: ChainId, epoch: Epoch) -> Header:
    core = chain.cores[0]
    return Header(
        chain_id=chain_id,
        epoch=epoch,
        leader_seed=chain.leader_seed,
        view=core.view,
        height=chain.height,
        parent_view=chain.parent_view,
        parent_hash=chain.parent_hash,
        tx_root=core.tx_root,
        state_root=core.state_root,
        valset_hash=chain.valset_hashes[0],
        next_valset_hash=chain.valset_hashes[1],
        candidates_root=core.candidates_root,
        beacon_reveal=core.beacon_reveal,
        beacon=chain.beacon,
        time_ms=core.time_ms,
    )
