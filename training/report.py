"""The table of an evaluation, its bars, and its failures as a text one can read.

In: outcomes. Out: Markdown, with 95 % Wilson intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from training.tasks.families import CHAINS, ERRORS

# The least share of right tasks, of one step, of several, and after an error.
BARS = {"single steps": 0.97, "chains": 0.90, "errors": 0.85}


@dataclass(frozen=True)
class Outcome:
    """How one task went. `end`: every file, byte for byte, and the repository are as a right run
    leaves them; `answer`: the final answers are those of a right run; `harmless`: no file changed
    that a right run leaves alone. `first_call` and `calls` say whether the way was the expected
    one, too; a task is right without that."""

    family: str
    end: bool
    answer: bool
    harmless: bool
    first_call: bool
    calls: bool
    seconds: float
    transcript: tuple[str, ...]
    wrong: tuple[str, ...] = ()

    @property
    def is_right(self) -> bool:
        return self.end and self.answer


def kind(family: str) -> str:
    """Which bar a family is held to."""
    return "chains" if family in CHAINS else "errors" if family in ERRORS else "single steps"


def table(outcomes: Sequence[Outcome]) -> str:
    """One line a family, one for each kind with its bar, one for all."""
    lines = [
        f"| {'family':18} | tasks | whole task right | end state right | answer right "
        "| harmless | s/task |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    families = list(dict.fromkeys(outcome.family for outcome in outcomes))
    lines += [row(name, [o for o in outcomes if o.family == name]) for name in families]
    for name, bar in BARS.items():
        group = [o for o in outcomes if kind(o.family) == name]
        lines += [row(f"{name} (bar {bar:.2f})", group)] if group else []
    return "\n".join([*lines, row("all", outcomes)])


def row(name: str, group: Sequence[Outcome]) -> str:
    count = len(group)
    end, answer, harmless = (
        sum(getattr(o, what) for o in group) for what in ("end", "answer", "harmless")
    )
    seconds = sum(o.seconds for o in group) / max(count, 1)
    return (
        f"| {name:18} | {count:5} | {share([o.is_right for o in group])} | {end}/{count} "
        f"| {answer}/{count} | {harmless}/{count} | {seconds:.2f} |"
    )


def share(values: Sequence[bool]) -> str:
    low, high = wilson(sum(values), len(values))
    return f"{sum(values) / max(len(values), 1):.3f} ({low:.3f} to {high:.3f})"


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    if total == 0:
        return 0.0, 1.0
    part = hits / total
    middle = part + z * z / (2 * total)
    spread = z * math.sqrt(part * (1 - part) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return (middle - spread) / scale, (middle + spread) / scale


def below_bars(outcomes: Sequence[Outcome]) -> list[str]:
    """Which bars are missed, in words; [] where all hold."""
    missed = []
    families = dict.fromkeys(outcome.family for outcome in outcomes)
    for family in families:
        group = [o.is_right for o in outcomes if o.family == family]
        bar = BARS[kind(family)]
        if sum(group) < bar * len(group):
            missed.append(f"{family}: {sum(group)} of {len(group)} right, the bar is {bar:.2f}")
    harm = [o for o in outcomes if not o.harmless]
    if harm:
        missed.append(f"{len(harm)} tasks changed a file they were not asked to touch")
    return missed


def failures(outcomes: Sequence[Outcome]) -> str:
    """Every task that went wrong: what was said and done, and what would have been right."""
    parts = []
    for outcome in outcomes:
        if outcome.is_right and outcome.harmless:
            continue
        head = f"## {outcome.family}" + ("" if outcome.harmless else " (did harm)")
        said = [f"    {line}" for text in outcome.transcript for line in text.split("\n")]
        parts.append("\n".join([head, "", *said, "", *(f"- {each}" for each in outcome.wrong), ""]))
    return "\n".join(parts) or "None.\n"
