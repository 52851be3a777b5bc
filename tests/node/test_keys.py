"""The key file: private, never replaced, readable by other programs, and clear about what is wrong with it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from node.faults import Exit, Fault, Trouble
from node.keys import PASSPHRASE_VARIABLE, create_key, derive_key, load_key, read_passphrase


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.key"


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "node.key"
    create_key(path, b"open sesame")
    return path


def refusal(path: Path, passphrase: bytes | None = None) -> Fault:
    with pytest.raises(Fault) as raised:
        load_key(path, passphrase)
    assert str(path) in raised.value.message
    return raised.value


def test_a_key_comes_back_whole(path: Path) -> None:
    made = create_key(path, None)
    loaded = load_key(path, None)
    assert (loaded.seed, loaded.node, loaded.onion_secret) == (made.seed, made.node, made.onion_secret)
    assert loaded.signing.sign(b"message") == made.signing.sign(b"message")


def test_an_encrypted_key_comes_back_with_its_passphrase_only(encrypted: Path) -> None:
    assert b"ENCRYPTED" in encrypted.read_bytes()
    loaded = load_key(encrypted, b"open sesame")
    assert loaded.seed not in encrypted.read_bytes()
    assert refusal(encrypted, b"wrong").reason is Trouble.KEY_LOCKED
    assert refusal(encrypted).reason is Trouble.KEY_LOCKED


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_another_program_reads_the_key(path: Path, encrypted: Path) -> None:
    create_key(path, None)
    for file, passphrase in ((path, None), (encrypted, b"open sesame")):
        command = ["openssl", "pkey", "-in", file, "-passin", "pass:open sesame", "-pubout", "-outform", "DER"]
        public = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
        assert public.endswith(load_key(file, passphrase).node)


def test_what_is_derived_from_a_seed_never_changes() -> None:
    key = derive_key(bytes(range(32)))
    assert key.node.hex() == "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    assert key.onion_secret.hex() == "fdc6bfacb6d9ecf373e2d2ef2c4115aed3643acb21b755a338dbf213a6be1cb5"


def test_secrets_do_not_show_when_a_key_is_printed() -> None:
    key = derive_key(b"\x5a" * 32)
    assert repr(key) == "NodeKey()"


def test_a_key_file_is_the_owners_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        create_key(path, None)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_file_is_never_replaced(path: Path) -> None:
    create_key(path, None)
    content = path.read_bytes()
    with pytest.raises(Fault) as raised:
        create_key(path, None)
    assert raised.value.reason is Trouble.FILE_EXISTS
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]  # nothing half-made stays beside it


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_key_that_others_may_read_is_refused_with_the_command_that_mends_it(path: Path, mode: int) -> None:
    create_key(path, None)
    path.chmod(mode)
    fault = refusal(path)
    assert (fault.reason, fault.exit_code) == (Trouble.PERMISSION, Exit.LOCKED)
    assert fault.cure == f"chmod 600 {path}"


RSA_LIKE = b"""-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg
-----END PRIVATE KEY-----
"""


SHORT_SEED = b"""-----BEGIN PRIVATE KEY-----
MC0CAQAwBQYDK2VwBCEEHwABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4=
-----END PRIVATE KEY-----
"""


@pytest.mark.parametrize("content", [b"", b"no key", b"\x00\xff" * 100, b"x" * 20_000, RSA_LIKE, SHORT_SEED])
def test_a_broken_key_file_is_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    assert refusal(path).reason is Trouble.BAD_KEY


def test_a_key_cut_anywhere_is_named(path: Path) -> None:
    create_key(path, None)
    content = path.read_bytes()
    for size in range(0, len(content) - 1, 7):
        path.write_bytes(content[:size])
        assert refusal(path).reason is Trouble.BAD_KEY


def test_a_key_of_another_kind_is_named(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path.write_bytes(generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    assert "expected an Ed25519 key" in refusal(path).message


def test_a_passphrase_for_a_key_that_needs_none_is_refused(path: Path) -> None:
    create_key(path, None)
    assert "not encrypted" in refusal(path, b"open sesame").message


def test_a_missing_key_and_a_folder_are_named(path: Path) -> None:
    assert refusal(path).reason is Trouble.BAD_KEY
    path.mkdir(mode=0o700)
    assert refusal(path).reason is Trouble.BAD_KEY


def test_a_named_pipe_does_not_hold_the_start_up(path: Path) -> None:
    os.mkfifo(path, 0o600)
    assert refusal(path).reason is Trouble.BAD_KEY


def test_the_passphrase_comes_from_the_file_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_bytes(b"from file\r\nsecond line")
    environment = {PASSPHRASE_VARIABLE: "from environment"}
    assert read_passphrase(file, environment) == b"from file"
    assert read_passphrase(None, environment) == b"from environment"
    assert read_passphrase(None, {}) is None


@pytest.mark.parametrize("content", [b"", b"\nsecond line", b"x" * 1025])
def test_an_empty_or_endless_passphrase_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "passphrase"
    file.write_bytes(content)
    with pytest.raises(Fault) as raised:
        read_passphrase(file, {})
    assert raised.value.reason is Trouble.KEY_LOCKED


def test_names_and_paths_cost_no_cryptography() -> None:
    program = (
        "import sys, node.keys, node.home, node.config, node.genesis_file, node.storage, node.wal; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    assert not {"cryptography", "torch", "trio", "libp2p", "numpy"} & set(loaded)
