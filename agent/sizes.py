"""Numbers of bytes as people write them: `32GB`, `1.5 MB`, `4096`. Units are powers of a thousand,
as disks are sold; of 1024 with an i.
"""

from __future__ import annotations

import re

__all__ = ["parse_size", "shown_size"]

_UNITS = ("B", "KB", "MB", "GB", "TB")
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([KMGT]?)(i?)B?", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int | None:
    """The bytes that `500MB`, `32 GB`, `1.5TB`, `16GiB` or `4096` say; None where it is no size."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        return None
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** " KMGT".index(found[2].upper() or " "))


def shown_size(count: int) -> str:
    """`812 B`, `4.1 KB`, `32.0 GB`."""
    value, unit = float(count), 0
    while value >= 999.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{count} B"
