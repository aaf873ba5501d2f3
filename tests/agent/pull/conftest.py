"""A hub on this machine: the part of the Hugging Face hub's protocol that a download speaks, with
repositories of real files, and every way to fail that a network has."""

import hashlib
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from ds4_agent.agent.cli import main
from ds4_agent.engine.open import NANO

COMMIT = "7872f01b1d1f" + 28 * "0"
SECRET = "hf_aSecretOfTheUser"


class FakeHub(ThreadingHTTPServer):
    """Serves `files` of `repository` at COMMIT. The large ones are redirected to another host, as
    the hub does. What is set on it makes it fail."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository = "maker/small-v4"
        self.files: dict[str, bytes] = {}
        self.claims: dict[str, int] = {}  # sizes it gives, where they are not the true ones
        self.hashes: dict[str, str] = {}  # and hashes
        self.breaks: dict[str, list[int]] = {}  # bytes after which a connection is closed, by file
        self.answers: list[int] = []  # statuses of the next answers with bytes of large files
        self.has_ranges = True
        self.is_gated = self.needs_token = False
        self.hold_after: int | None = None  # bytes of large files after which it waits …
        self.go_on = threading.Event()  # … for this
        self.held = threading.Event()
        self.asked: list[SimpleNamespace] = []
        self.sent: Counter[str] = Counter()  # bytes, by file
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://localhost:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the server's."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_GET  # noqa: N815

    def _answer(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization", "")
        asked = SimpleNamespace(path=path, token=token, range=self.headers.get("Range", ""))
        hub.asked.append(asked)
        if path.startswith("/cdn/"):
            return self._file(path.removeprefix("/cdn/"))
        if hub.is_gated:
            return self._error(403, "GatedRepo")
        if hub.needs_token and token != f"Bearer {SECRET}":
            return self._error(401, "RepoNotFound")
        if path.startswith("/api/models/"):
            return self._listing(path.removeprefix("/api/models/"))
        return self._resolve(path.removeprefix("/"))

    def _listing(self, name: str) -> None:
        hub = self.server
        name, _, revision = name.partition("/revision/")
        if name != hub.repository:
            return self._error(404, "RepoNotFound")
        if revision not in ("", "main", COMMIT):
            return self._error(404, "RevisionNotFound")
        siblings = [self._sibling(name, data) for name, data in hub.files.items()]
        body = {"id": hub.repository, "sha": COMMIT, "siblings": siblings, "private": False}
        return self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _sibling(self, name: str, data: bytes) -> dict[str, Any]:
        size = self.server.claims.get(name, len(data))
        git = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        told: dict[str, Any] = {"rfilename": name, "size": size, "blobId": git}
        if name.endswith(".safetensors"):
            sha256 = self.server.hashes.get(name, hashlib.sha256(data).hexdigest())
            told["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 134}
        return told

    def _resolve(self, path: str) -> None:
        hub = self.server
        repository, _, rest = path.partition("/resolve/")
        revision, _, name = rest.partition("/")
        if repository != hub.repository or revision != COMMIT or name not in hub.files:
            return self._error(404, "EntryNotFound")
        if not name.endswith(".safetensors"):
            return self._file(name)
        there = f"http://127.0.0.1:{hub.server_port}/cdn/{name}?Signature=signed"
        return self._send(302, b"", {"Location": there})

    def _file(self, name: str) -> None:
        hub, data = self.server, self.server.files[name]
        is_large = name.endswith(".safetensors")
        with hub.lock:
            status = hub.answers.pop(0) if is_large and hub.answers else 200
            breaks = hub.breaks.get(name)
            end = breaks.pop(0) if breaks else math.inf
        if status != 200:
            return self._error(status, "")
        start, stop = self._range(len(data))
        wanted = data[start:stop]
        self.send_response(206 if wanted != data or start else 200)
        self.send_header("Content-Length", str(len(wanted)))
        self.send_header("X-Repo-Commit", COMMIT)
        if len(wanted) != len(data):
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        for at in range(0, len(wanted), 1 << 16):
            if at >= end:
                self.close_connection = True
                return None
            if is_large and hub.hold_after is not None and start + at >= hub.hold_after:
                hub.held.set()
                hub.go_on.wait(60)
            block = wanted[at : at + (1 << 16)]
            self.wfile.write(block)
            with hub.lock:
                hub.sent[name] += len(block)
        return None

    def _range(self, size: int) -> tuple[int, int]:
        asked = self.headers.get("Range", "").removeprefix("bytes=")
        if not asked or not self.server.has_ranges:
            return 0, size
        first, _, last = asked.partition("-")
        return int(first), min(int(last) + 1, size) if last else size

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"no", {"X-Error-Code": code} if code else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with nano in two shards, which this process and its children ask."""
    with FakeHub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        server.files = small_v4()
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", SECRET)
        monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def secret() -> str:
    return SECRET


@pytest.fixture
def commit() -> str:
    return COMMIT


@pytest.fixture
def ds4_model(hub: FakeHub, capfd: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """`ds4_model(*arguments)`: `ds4-agent model …` in this process."""

    def run(*arguments: str) -> SimpleNamespace:
        capfd.readouterr()
        code = main(["model", *arguments])
        out, err = capfd.readouterr()
        assert SECRET not in out + err
        assert "Signature" not in out + err
        return SimpleNamespace(code=code, out=out, err=err)

    return run


def small_v4() -> dict[str, bytes]:
    """The files of a repository: nano in two shards, and what else makers put beside a model."""
    config = json.loads((NANO / "config.json").read_bytes())
    del config["ds4_nano"]
    first, second, index = shards((NANO / "model.safetensors").read_bytes())
    return {
        ".gitattributes": b"*.safetensors filter=lfs\n",
        "README.md": b"# A model\n",
        "config.json": json.dumps(config).encode(),
        "generation_config.json": b'{"temperature": 0.5, "top_p": 1.0}',
        "model-00001-of-00002.safetensors": first,
        "model-00002-of-00002.safetensors": second,
        "model.safetensors.index.json": index,
        "pytorch_model.bin": b"not wanted",
        "figures/a.png": b"nor this",
        "tokenizer.json": (NANO / "tokenizer.json").read_bytes(),
    }


def shards(whole: bytes) -> tuple[bytes, bytes, bytes]:
    """A safetensors file as two, and their index."""
    length = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    header.pop("__metadata__", None)
    names = sorted(header)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    made, places = [], {}
    for number, half in enumerate(halves, 1):
        own: dict[str, Any] = {}
        parts, at = [], 0
        for name in half:
            start, stop = header[name]["data_offsets"]
            parts.append(data[start:stop])
            own[name] = header[name] | {"data_offsets": [at, at + stop - start]}
            at += stop - start
            places[name] = f"model-{number:05}-of-00002.safetensors"
        head = json.dumps(own).encode()
        made.append(len(head).to_bytes(8, "little") + head + b"".join(parts))
    return made[0], made[1], json.dumps({"metadata": {}, "weight_map": places}).encode()
