"""The Hugging Face hub: what a repository holds, and its bytes. The only place that uses a network,
and only while `ds4-agent model pull` runs.

In: the name of a repository, HF_ENDPOINT and HF_TOKEN as huggingface_hub has them. Out: listings,
headers, bytes, or one PullError line; no token and no signed address is in any of them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ds4_agent.agent.display import one_line
from ds4_agent.agent.errors import PullError, UsageError

if TYPE_CHECKING:
    from ds4_agent.engine.weights.safetensors_file import TensorEntry

__all__ = ["Hub", "Listing", "Part", "RemoteFile", "Stopped", "open_hub"]

PACKAGE = "huggingface_hub>=1.0,<3"  # the extra `pull` of pyproject.toml
TIMEOUT = 20.0  # seconds in which a server says something
CHUNK = 1 << 20  # bytes that are lost at most when the process is killed
FIRST, HEADER = 1 << 20, 101_000_000  # bytes in which a header mostly, and certainly, ends
# Seconds before each further try that follows one in which not a byte came.
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
_LATER = (408, 425, 429, 500, 502, 503, 504)  # answers that a later try may not get


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository. A large one has a sha256, any other the id git gives its bytes."""

    name: str
    size: int
    sha256: str
    git_id: str


@dataclass(frozen=True)
class Listing:
    """A repository at one commit."""

    repository: str
    commit: str
    files: tuple[RemoteFile, ...]


class Part(Protocol):
    """What a file is read into: what is there of it already, and more of it."""

    @property
    def size(self) -> int: ...

    def write(self, data: bytes) -> None: ...

    def restart(self) -> None:
        """Forget what is there."""
        ...


class Stopped(Exception):  # noqa: N818 - not an error: control flow
    """The caller's `stop` was set; what came is kept."""


def open_hub(environment: Mapping[str, str], waits: Sequence[float] = WAITS) -> Hub:
    """The hub of this environment; `close` it. Raises UsageError where the extra is missing."""
    # Read when huggingface_hub is imported: no word about this machine to anybody.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "model pull needs the package huggingface_hub, which is not installed: run "
            f'`{sys.executable} -m pip install "{PACKAGE}"`'
        ) from error
    return Hub(environment.get("HF_ENDPOINT", "").rstrip("/") or None, waits)


class Hub:
    """Requests to one endpoint. `fetch` may be called by several threads at once."""

    def __init__(self, endpoint: str | None, waits: Sequence[float]) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils.logging import set_verbosity_error

        set_verbosity_error()  # its warnings repeat what a server says, as it says it
        self._api = HfApi(endpoint=endpoint)
        self._waits = waits

    def close(self) -> None:
        from huggingface_hub import close_session

        close_session()

    def listing(self, repository: str, revision: str | None) -> Listing:
        """What the repository holds, at its newest commit or at a revision. Raises PullError."""
        try:
            info = self._api.model_info(
                repository, revision=revision, files_metadata=True, timeout=TIMEOUT
            )
            files = tuple(_remote(sibling) for sibling in info.siblings or ())
            return Listing(repository, str(info.sha or revision), files)
        except Exception as error:
            raise self._told(error, repository, revision) from error

    def read(self, listing: Listing, file: RemoteFile) -> bytes:
        """A small file. Raises PullError."""
        part = _Memory()
        self.fetch(listing, file, part, threading.Event())
        return bytes(part.data)

    def header(self, listing: Listing, file: RemoteFile) -> dict[str, TensorEntry]:
        """The tensors of a safetensors file, of which not much more than the header is read. Raises
        PullError, and ModelFormatError for what is none."""
        from ds4_agent.engine.errors import ModelFormatError
        from ds4_agent.engine.weights.safetensors_file import header_entries

        try:
            data = self._beginning(listing, file, FIRST)
            length = 8 + int.from_bytes(data[:8], "little")
            if len(data) < length <= HEADER:
                data = self._beginning(listing, file, length)
            return header_entries(Path(file.name), file.size, BytesIO(data).read)
        except ModelFormatError:
            raise
        except Exception as error:
            raise self._told(error, listing.repository, None) from error

    def _beginning(self, listing: Listing, file: RemoteFile, count: int) -> bytes:
        """The first bytes of a file. Where the server knows no ranges the connection is closed."""
        data = bytearray()
        with self._answer(listing, file, {"Range": f"bytes=0-{count - 1}"}) as response:
            blocks = response.iter_bytes(1 << 16)
            while len(data) < count and (block := next(blocks, b"")):
                data += block
        return bytes(data[:count])

    def fetch(self, listing: Listing, file: RemoteFile, part: Part, stop: threading.Event) -> None:
        """Read a file from where its part ends. What fails on the way is tried again, as long as
        bytes come in between. Raises PullError, Stopped, and what `part.write` raises."""
        tries = 0
        while part.size < file.size:
            if stop.is_set():
                raise Stopped
            before = part.size
            try:
                self._stream(listing, file, part, stop)
                error: Exception = EOFError("the connection was closed early")
            except (PullError, Stopped):
                raise
            except Exception as caught:  # httpx and httpx2 have no base in common
                if not _may_pass(caught):
                    raise self._told(caught, listing.repository, None) from caught
                error = caught
            tries = 0 if part.size > before else tries + 1
            if part.size < file.size:
                if tries > len(self._waits):
                    raise self._told(error, listing.repository, None) from error
                stop.wait(self._waits[tries - 1] if tries else 0)

    def _stream(
        self, listing: Listing, file: RemoteFile, part: Part, stop: threading.Event
    ) -> None:
        rest = {"Range": f"bytes={part.size}-"} if part.size else {}
        with self._answer(listing, file, rest) as response:
            if part.size and response.status_code != 206:  # the whole file comes again
                part.restart()
            for data in response.iter_bytes(CHUNK):
                if stop.is_set():
                    raise Stopped
                part.write(data)

    @contextmanager
    def _answer(
        self, listing: Listing, file: RemoteFile, headers: Mapping[str, str]
    ) -> Iterator[Any]:
        """The response that brings a file, or what the headers ask for of it."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        url = hf_hub_url(
            listing.repository, file.name, revision=listing.commit, endpoint=self._api.endpoint
        )
        sent = {**build_hf_headers(), "Accept-Encoding": "identity", **headers}
        with get_session().stream("GET", url, headers=sent, timeout=TIMEOUT) as response:
            hf_raise_for_status(response)
            yield response

    def _told(self, error: Exception, repository: str, revision: str | None) -> PullError:
        """The line for what the hub or the way to it answered."""
        from huggingface_hub import errors

        host = self._api.endpoint.partition("://")[2] or self._api.endpoint
        if isinstance(error, errors.RevisionNotFoundError):
            return PullError(f"{repository} has no revision {revision}")
        if isinstance(error, errors.GatedRepoError):
            return PullError(
                f"{repository} is gated: accept its terms on {host}, then set HF_TOKEN to a token "
                "of that account"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return PullError(
                f"there is no repository {repository} on {host}, or it is private: check the "
                "name, or set HF_TOKEN"
            )
        if isinstance(error, errors.OfflineModeIsEnabled):
            return PullError("HF_HUB_OFFLINE is set, which forbids model pull: unset it")
        status = _status(error)
        if status in (401, 403):
            return PullError(f"{host} refuses {repository} ({status}): check HF_TOKEN")
        if status:
            return PullError(f"{host} answers {status} for {repository}; try again later")
        reason = one_line(_without_token(str(error)), 160) or type(error).__name__
        return PullError(f"cannot read {repository} from {host}: {reason}")


class _Memory:
    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, data: bytes) -> None:
        self.data += data

    def restart(self) -> None:
        self.data.clear()


def _remote(sibling: Any) -> RemoteFile:
    name, large = str(sibling.rfilename), sibling.lfs
    if large:  # git has a pointer to it only
        return RemoteFile(name, int(large.size), str(large.sha256), "")
    return RemoteFile(name, int(sibling.size or 0), "", str(sibling.blob_id or ""))


def _status(error: Exception) -> int:
    """The status of an answer that is an error; 0 where there was none."""
    response = getattr(error, "response", None)
    return int(getattr(response, "status_code", 0))


def _may_pass(error: Exception) -> bool:
    """Whether a later try can do better: after a broken connection, or an answer that says so."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    status = _status(error)
    return status in _LATER if status else not isinstance(error, OfflineModeIsEnabled)


def _without_token(text: str) -> str:
    """httpx repeats a header it cannot send."""
    from huggingface_hub import get_token

    token = get_token()
    return text.replace(token, "***") if token else text
