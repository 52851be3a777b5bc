from __future__ import annotations

import nacl.signing
import pytest

from node.network import NetworkConfig, node_id_of, parse_peer, peer_id_of

KEY = bytes(nacl.signing.SigningKey(b"\x07" * 32).verify_key)
PEER_ID = peer_id_of(KEY)


def test_a_node_id_and_its_peer_id_name_each_other() -> None:
    assert PEER_ID.startswith("12D3KooW")
    assert node_id_of(PEER_ID) == KEY


def test_the_peer_id_is_the_one_libp2p_makes_of_the_same_key() -> None:
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.peer.id import ID

    peer_id = ID.from_pubkey(create_new_key_pair(b"\x07" * 32).public_key)
    assert peer_id.to_base58() == PEER_ID
    assert node_id_of(peer_id.to_bytes()) == KEY


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_node_id_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        peer_id_of(b"\x01" * length)


@pytest.mark.parametrize("peer_id", ["QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", b"", PEER_ID[:-3], "0OIl"])
def test_a_peer_id_without_an_ed25519_key_is_refused(peer_id: str | bytes) -> None:
    with pytest.raises(ValueError):
        node_id_of(peer_id)


def test_a_peer_is_read_from_the_address_it_prints() -> None:
    peer = parse_peer(f"/ip4/10.0.0.1/tcp/4001/p2p/{PEER_ID}")
    assert (peer.node_id, peer.multiaddr) == (KEY, "/ip4/10.0.0.1/tcp/4001")


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1:4001", "/ip4/10.0.0.1/tcp/4001", f"/p2p/{PEER_ID}", "/ip4/1.1.1.1/tcp/1/p2p/x"]
)
def test_an_address_without_a_place_or_a_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_peer(text)


def test_the_seed_is_not_shown_with_the_configuration() -> None:
    config = NetworkConfig(seed=b"\xab" * 32, chain_id=b"c" * 32, protocol_version=1, software="t")
    assert "seed" not in repr(config) and "\\xab" not in repr(config)
