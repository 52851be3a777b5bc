"""Where bad inputs are tried: commands in an empty directory, calls over real HTTP, and what each led to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from node.cli import run_command
from node.genesis_file import write_genesis
from tests.node.fake_node import FakeNode, serving
from tests.protocol.builders import make_genesis

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Outcome:
    """What a bad input led to; None where that side does not see it."""

    exit: int | None
    rpc: int | None
    reason: str
    sentence: str


@dataclass(frozen=True)
class World:
    """An empty directory to work in, and what a test may change."""

    place: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def run(self, *arguments: object) -> tuple[int, dict, str]:
        """(exit code, the JSON on standard output, standard error) of one command."""
        self.capsys.readouterr()
        code = run_command([*(str(argument) for argument in arguments), "--json"])
        captured = self.capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, json.loads(captured.out), captured.err

    def fail(self, *arguments: object) -> Outcome:
        """The outcome of a command that ends with an error: one line on standard error, an object on standard output."""
        code, out, err = self.run(*arguments)
        error = out["error"]
        lines = [line for line in err.splitlines() if line.startswith("quorate: ")]
        assert lines == [f"quorate: {error['message']} — {error['cure']}"]
        assert error["cure"]
        assert error["code"] == code
        return Outcome(code, None, error["reason"], error["message"])

    def make_home(self, name: str = "home") -> Path:
        """A home that could run: on a network of five others."""
        write_genesis(self.place / "genesis.json", make_genesis())
        home = self.place / name
        ports = ("--rpc-port", 0, "--p2p-port", 0)
        assert self.run("init", "--home", home, "--genesis", self.place / "genesis.json", *ports)[0] == 0
        return home

    def make_certificate(self) -> Path:
        """A good certificate, with its genesis beside it."""
        node = FakeNode()
        write_genesis(self.place / "genesis.json", node.genesis)
        path = self.place / "good.qrc"
        with serving(node) as url:
            code, _, _ = self.run("ask", "23+58=", "--model", "adder", "--rpc", url, "--out", path)
        assert code == 0
        return path

    def verify(self, content: bytes) -> Outcome:
        """The outcome of verifying these bytes."""
        path = self.place / "bad.qrc"
        path.write_bytes(content)
        code, report, _ = self.run("verify", path, "--genesis", self.place / "genesis.json")
        assert report["valid"] is False
        return Outcome(code, None, report["fault"]["reason"], report["fault"]["message"])


def post(url: str, body: object, headers: dict[str, str] | None = None, path: str = "/rpc") -> Outcome:
    """What the RPC says to these bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpx.post(f"{url}{path}", content=content, headers={**JSON, **(headers or {})}, trust_env=False)
    error = response.json()["error"]
    assert error["data"]["cure"]
    return Outcome(None, error["code"], error["data"]["reason"], error["message"])


def call(url: str, method: str, **params: object) -> Outcome:
    """What the RPC says to this call."""
    return post(url, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
