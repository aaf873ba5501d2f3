"""Text that leaves the process: a line on stderr, the answer on stdout, a file as a whole.

In: text, made visible where it has to be. Out: nothing half-written. Raises OutputError for what
was asked for and cannot be written; a warning that is lost is lost.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from typing import Any

from ds4_agent.agent.display import one_line
from ds4_agent.agent.errors import OutputError, StdoutError, UsageError

__all__ = [
    "check_writable",
    "json_text",
    "print_bytes",
    "print_json",
    "print_text",
    "sole_stdout",
    "to_json",
    "warn",
    "write_atomically",
    "write_bytes_atomically",
]


def warn(text: str) -> None:
    """One line on stderr, whose loss nobody can be told about."""
    if sys.stderr is None:  # closed: print would take stdout instead
        return
    with suppress(OSError, ValueError):
        print(f"ds4-agent: {one_line(text, 2000)}", file=sys.stderr, flush=True)


def print_text(text: str) -> None:
    """Text on stdout, at once; undecodable parts as escapes, whatever the locale."""
    print_bytes(text.encode("utf-8", "backslashreplace") + b"\n")


def print_json(value: Any) -> None:
    """A value on stdout, for a program."""
    print_text(to_json(value))


def to_json(value: Any) -> str:
    """A value as JSON, indented, in characters that no terminal acts on."""
    # ASCII has one that json leaves: DEL.
    return json.dumps(value, indent=2, ensure_ascii=True).replace("\x7f", "\\u007f")


def print_bytes(data: bytes) -> None:
    """Bytes on stdout, at once and as they are."""
    if sys.stdout is None:
        raise StdoutError("cannot write to standard output: it is closed")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StdoutError(f"cannot write to standard output: {reason}") from error


@contextmanager
def sole_stdout() -> Iterator[None]:
    """Meanwhile standard output is written by this process's own `sys.stdout` and nobody else: what
    a plugin's child or native code puts on descriptor 1 appears on stderr, not among the lines."""
    own = sys.stdout
    try:
        own.fileno()
        own.flush()
        kept = os.dup(1)
    except (AttributeError, OSError, ValueError):  # closed, or a stream without a descriptor
        yield
        return
    stream = TextIOWrapper(BufferedWriter(FileIO(kept, "w")), own.encoding, own.errors)
    try:
        _lead(2, 1)
        sys.stdout = stream
        yield
    finally:
        sys.stdout = own
        with suppress(OSError):  # what could not be written has been told
            stream.flush()
        os.dup2(kept, 1)
        with suppress(OSError):
            stream.close()


def _lead(source: int, target: int) -> None:
    """Let descriptor `target` lead where `source` does, or nowhere if that is closed."""
    try:
        os.dup2(source, target)
    except OSError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), target)


def json_text(record: Mapping[str, Any]) -> str:
    """One line of JSON that any reader takes: lone surrogates are escaped, the rest is UTF-8."""
    text = json.dumps(record, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_writable(path: Path) -> None:
    """Raise UsageError if `path` certainly cannot be written: before any work, not after."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory; -o needs a file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write into {path.parent}")


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or nothing. Raises OutputError, with no temporary file left."""
    write_bytes_atomically(path, text.encode("utf-8", "backslashreplace"))


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """The same for bytes."""
    temporary = path.with_name(f".{path.name[:60]}.{os.urandom(4).hex()}.tmp")
    try:
        if path.exists() and not path.is_file():  # /dev/stdout, a pipe: nothing to replace
            path.write_bytes(data)
            return
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
