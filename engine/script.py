"""The file format of `scripted:FILE`: JSONL, one model step a line, read and checked as a whole.

    {"text": "…"}              text; control tokens spelled in it become control ids
    {"text": "…", "plain": true}   text that never becomes a control id
    {"ids": [1, 2, 3]}         exact ids of the bundled tokenizer
    "finish": "length"         ends without the end token (default "stop": the end token is played)
    "delay_ms": 20, "chunk": 4     wait so long before every so many ids (default 0, 1)
    "expect": "regex"          must be found in the newest tool result or prompt

Blank lines are skipped. Never guesses: an unknown key, a wrong type or a bad id is an error that
names file and line.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ds4_agent.engine.dsml.segments import ASSISTANT, EOS, USER, markup
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.engine.errors import ModelFormatError, ScriptError

__all__ = ["Step", "newest_texts", "read_script"]

KEYS: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "ids": list,
    "plain": bool,
    "finish": str,
    "delay_ms": (int, float),
    "chunk": int,
    "expect": str,
}


@dataclass(frozen=True)
class Step:
    """One model step: the ids to play (the end token included) and how."""

    line: int
    ids: tuple[int, ...]
    delay_seconds: float = 0.0
    chunk: int = 1
    expect: re.Pattern[str] | None = None


class _BadLineError(ValueError):
    """What is wrong with a line; `read_script` adds where."""


def read_script(path: Path, tokenizer: Tokenizer) -> tuple[Step, ...]:
    """Every step of the file. Raises ScriptError, naming file and line, for anything malformed."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ScriptError(f"cannot read the script {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ScriptError(f"the script {path} is not UTF-8: byte {error.start}") from error
    steps = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            steps.append(_step(number, _fields(line), tokenizer))
        except _BadLineError as error:
            raise ScriptError(f"{path}:{number}: {error}") from error
    return tuple(steps)


def newest_texts(ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """What `expect` looks at in the ids appended since the last step: the newest user turn without
    its markers, and each tool result in it, so that `^` and `$` mean a result's own ends."""
    tail = list(ids)
    user, assistant = tokenizer.control(USER), tokenizer.control(ASSISTANT)
    if user in tail:
        tail = tail[len(tail) - tail[::-1].index(user) :]
    if assistant in tail:
        tail = tail[: tail.index(assistant)]
    whole = tokenizer.decode(tail)
    return [whole, *re.findall(r"<tool_result>(.*?)</tool_result>", whole, re.DOTALL)]


def _fields(line: str) -> dict[str, Any]:
    """The line as an object with known keys of the right types, `text` or `ids` among them."""
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise _BadLineError(f"not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(fields, dict):
        raise _BadLineError('not a JSON object; a step is {"text": "…"} or {"ids": […]}')
    for key, value in fields.items():
        if key not in KEYS:
            raise _BadLineError(f"unknown key {key!r}; known are {', '.join(KEYS)}")
        kind = KEYS[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise _BadLineError(f"{key} has the wrong type: {value!r}")
    if ("text" in fields) == ("ids" in fields):
        raise _BadLineError("a step has either text or ids")
    if "plain" in fields and "text" not in fields:
        raise _BadLineError("plain goes with text")
    return fields


def _step(line: int, fields: dict[str, Any], tokenizer: Tokenizer) -> Step:
    finish = fields.get("finish", "stop")
    if finish not in ("stop", "length"):
        raise _BadLineError(f'finish is "stop" or "length", not {finish!r}')
    delay, chunk = fields.get("delay_ms", 0), fields.get("chunk", 1)
    if delay < 0 or chunk < 1:
        raise _BadLineError("delay_ms is at least 0 and chunk at least 1")
    ids = _ids(fields, tokenizer)
    end = tokenizer.control(EOS)
    if finish == "stop" and ids[-1:] != [end]:
        ids.append(end)
    return Step(line, tuple(ids), delay / 1000, chunk, _expect(fields))


def _ids(fields: dict[str, Any], tokenizer: Tokenizer) -> list[int]:
    if "ids" in fields:
        size = tokenizer.vocab_size
        for token_id in fields["ids"]:
            is_id = isinstance(token_id, int) and not isinstance(token_id, bool)
            if not is_id or not 0 <= token_id < size:
                raise _BadLineError(f"{token_id!r} is no token id (0 to {size - 1})")
        return list(fields["ids"])
    if fields.get("plain", False):
        return tokenizer.encode_data(fields["text"])
    try:
        return tokenizer.encode(markup(fields["text"]))
    except ModelFormatError as error:  # a control token that the bundled tokenizer lacks
        raise _BadLineError(str(error)) from error


def _expect(fields: dict[str, Any]) -> re.Pattern[str] | None:
    if "expect" not in fields:
        return None
    try:
        return re.compile(fields["expect"])
    except re.error as error:
        raise _BadLineError(f"expect is no regular expression: {error}") from error
