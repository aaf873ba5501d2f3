"""What `--calibrate` of `model convert` may name: a text, `handbook`, or an importance file. In:
the word, the directory it is relative to, the model. Out: a `Calibration`; nothing is computed yet.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.sample_text import calibration_ids

if TYPE_CHECKING:
    from ds4_agent.engine.weights.calibration import Calibration

__all__ = ["HANDBOOK", "calibration_of"]

HANDBOOK = "handbook"
SUFFIX = ".safetensors"


def calibration_of(named: str, base: Path, source: Path) -> Calibration:
    """Raises UsageError for a text that cannot be read, and EngineError."""
    from ds4_agent.engine.dsml.segments import BOS
    from ds4_agent.engine.dsml.tokenizer import Tokenizer
    from ds4_agent.engine.quality import windows_of
    from ds4_agent.engine.weights.calibration import by_file, by_text

    path = base / Path(named).expanduser()
    if named.endswith(SUFFIX):
        return by_file(path, str(path))
    tokenizer = Tokenizer.from_file(source / "tokenizer.json")
    if named == HANDBOOK:
        name, ids = named, calibration_ids(tokenizer)
    else:
        name, ids = str(path), tokenizer.encode_data(_text(path))
    return by_text(name, windows_of(ids, tokenizer.control(BOS)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--calibrate {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--calibrate {path} is not UTF-8 text: {error.reason}") from error
