"""The text of one argument into its value. In: the bytes between the tags, as text. Out: a string
as it is, or the JSON value; never a value spliced together with its neighbours.
"""

import json
import math
from typing import Any

__all__ = ["json_value", "without_surrogates"]


def json_value(text: str) -> Any:
    """The value of `string="false"` text. Raises ValueError with one line saying what is wrong.

    NaN, infinities and numbers too large for a float are no JSON; a lone surrogate escape becomes
    U+FFFD, since no file and no process could take it.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return _writable(value) if "\\u" in text else value


def without_surrogates(text: str) -> str:
    """Surrogate pairs joined to their character, lone ones replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, list):
        return [_writable(item) for item in value]
    if isinstance(value, dict):
        return {_writable(key): _writable(item) for key, item in value.items()}
    return value
