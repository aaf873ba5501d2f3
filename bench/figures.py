"""What the measurements share: the prompts, the number of decoded tokens, a row of figures and how
rows become one Markdown table. Imports neither engine nor torch.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["DECODED", "Speed", "prompt_ids", "table"]

DECODED = 24  # tokens decoded after a prefill


@dataclass(frozen=True)
class Speed:
    """Speeds in tokens a second after a prompt of `tokens`; fork and rewind in milliseconds."""

    tokens: int
    prefill: float
    decode: float
    fork_ms: float = 0.0
    rewind_ms: float = 0.0
    setting: str = ""  # the one that gave `prefill`, where several were tried


def prompt_ids(length: int) -> list[int]:
    """The same random ids for every engine: of the bundled tokenizer, and no control tokens."""
    rng = random.Random(length)
    return [rng.randrange(16, 1024) for _ in range(length)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, padded so that it reads as plain text; first column left, others right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "| " + " | ".join(cells) + " |"

    return "\n".join([line(head), line(rule), *map(line, rows)])
