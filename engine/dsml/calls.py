"""A tool call as data: what the parser finds in sampled ids and what the encoder writes.
Plain values; nothing here knows about tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ParsedCall"]


@dataclass(frozen=True)
class ParsedCall:
    """One `invoke`: the tool's name and its arguments in the order they were written."""

    name: str
    arguments: Mapping[str, Any]
