"""What is known of the kernels on this machine, in one small JSON file. In: a path, what identifies
the machine. Out: a `Verdict` for each trial that was made before. It is a cache: a file that cannot
be read or written means trying again.
"""

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["UNSUITED", "Verdict", "Verdicts"]

UNSUITED = "not for the sizes of this model"  # a reason that is no fault
MOST_TIMES = 2  # once may have been the user's doing


@dataclass(frozen=True)
class Verdict:
    """Of one kernel, for the sizes of one model."""

    kernel: str
    is_used: bool
    reason: str = ""  # why it is not used, in a few words
    difference: float | None = None  # from its twin, of the largest number; None: not compared


class Verdicts:
    """The file. `path` None: nothing is remembered. `machine`: chip, system and version of MLX;
    what was found on another is forgotten.

    A trial that ends its process, as a fault of a GPU can, must not do so at every start. So it is
    noted before it begins; when the processes of two such notes are gone, there is no third.
    """

    def __init__(self, path: Path | None, machine: str) -> None:
        self._path, self._machine = path, machine

    def known(self, key: str) -> Verdict | None:
        """What an earlier trial found, `key` being the kernel, its code and the sizes."""
        try:
            verdict = Verdict(**self._read().get(key, {"unknown": key}))
        except TypeError:  # being tried, never tried, or not ours
            return None
        return verdict if _is_sound(verdict) else None

    def begin(self, key: str) -> bool:
        """Note that this process is about to try the kernel; False where it should not."""
        last = self._read().get(key, {})
        times = last.get("times") if isinstance(last, dict) else None
        times = times if isinstance(times, int) else 0
        if times >= MOST_TIMES and not _runs(last.get("trying")):
            return False
        self._put(key, {"trying": os.getpid(), "times": times + 1})
        return True

    def end(self, key: str, verdict: Verdict) -> None:
        """Note what came of it."""
        self._put(key, asdict(verdict))

    def _read(self) -> dict[str, Any]:
        if self._path is None:
            return {}
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict) or content.get("machine") != self._machine:
            return {}
        entries = content.get("verdicts")
        return entries if isinstance(entries, dict) else {}

    def _put(self, key: str, entry: dict[str, Any]) -> None:
        if self._path is None:
            return
        content = {"machine": self._machine, "verdicts": {**self._read(), key: entry}}
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=".kernels-")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump(content, file, indent=1)
                Path(name).replace(self._path)
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise


def _is_sound(verdict: Verdict) -> bool:
    """Whether its values are of the kinds they should be."""
    return (
        isinstance(verdict.kernel, str)
        and isinstance(verdict.is_used, bool)
        and isinstance(verdict.reason, str)
        and isinstance(verdict.difference, int | float | None)
    )


def _runs(pid: object) -> bool:
    """Whether a process of that number is there."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
