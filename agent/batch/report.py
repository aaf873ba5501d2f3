"""What a batch prints: `text`, `json` or `stream-json`.

In: what happens, then the end. Out: stdout has the table (or the diffs, the object, the lines);
stderr the progress, as a bar with the time that is left where it is a terminal. Nothing of a file
or the model reaches a terminal raw.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from ds4_agent.agent import events as ev
from ds4_agent.agent.batch.items import Item
from ds4_agent.agent.batch.task import Outcome, outcome_record
from ds4_agent.agent.batch.totals import Ending, prefill_text, result_object, summary
from ds4_agent.agent.display import one_line, visible
from ds4_agent.agent.lines import Lines
from ds4_agent.agent.printing import json_text, print_bytes, print_text

__all__ = ["Report", "make_report"]

REDRAW_S = 0.1
BAR = 24  # characters


class Report(Protocol):
    """One way to print a batch. Raises OutputError when stdout cannot be written."""

    def start(self, header: Mapping[str, Any], done: int, count: int) -> None: ...

    def reading(self, done: int, total: int) -> None: ...

    def began(self, item: Item) -> None: ...

    def event(self, item: Item, event: ev.Event) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...

    def tick(self) -> None: ...

    def end(self, ending: Ending, diffs: bytes | None) -> str:
        """Print the end; `diffs`: of a dry run. Returns what `-o FILE` gets."""
        ...


def make_report(kind: str, *, verbose: bool) -> Report:
    """The report for `--output-format kind`."""
    if kind == "text":
        return _TextReport(time.monotonic, verbose, is_terminal=_is_terminal())
    return _JsonReport(streams=kind == "stream-json")


class _JsonReport:
    """One object at the end; with `streams`, each thing that happens as a line before it."""

    def __init__(self, *, streams: bool) -> None:
        self._streams = streams
        self._lines: dict[int, Lines] = {}

    def start(self, header: Mapping[str, Any], done: int, count: int) -> None:
        self._print({"type": "system", "subtype": "init", **header, "items": count})

    def reading(self, done: int, total: int) -> None: ...

    def began(self, item: Item) -> None:
        self._lines[item.number] = Lines()
        told = {"item": item.number, "path": item.path}
        self._print({"type": "item", "subtype": "started", **told})

    def event(self, item: Item, event: ev.Event) -> None:
        if not self._streams or isinstance(event, ev.PrefillProgressed | ev.TurnEnded):
            return
        for line in self._lines[item.number].feed(event):
            if line["type"] != "system":
                self._print({**line, "item": item.number})

    def ended(self, outcome: Outcome) -> None:
        self._lines.pop(outcome.item.number, None)
        told = {"item": outcome.item.number, **outcome_record(outcome)}
        self._print({"type": "item", "subtype": "finished", **told})

    def tick(self) -> None: ...

    def end(self, ending: Ending, diffs: bytes | None) -> str:
        result = result_object(ending)
        if diffs is not None:
            result["diff"] = diffs.decode("utf-8", "replace")
        text = json_text(result)
        print_text(text)
        return text + "\n"

    def _print(self, line: Mapping[str, Any]) -> None:
        if self._streams:
            print_text(json_text(line))


class _TextReport:
    """A bar or a line an item on stderr, the table on stdout."""

    def __init__(self, clock: Callable[[], float], verbose: bool, *, is_terminal: bool) -> None:
        self._clock, self._verbose, self._has_bar = clock, verbose, is_terminal
        self._began = clock()
        self._drawn = 0.0
        self._count = self._before = 0
        self._outcomes: list[Outcome] = []
        self._under_way: dict[int, Item] = {}
        self._reading = ""

    def start(self, header: Mapping[str, Any], done: int, count: int) -> None:
        self._count, self._before = count, done
        self._began = self._clock()
        if done:
            _tell(f"{done} of {count} items were done before")

    def reading(self, done: int, total: int) -> None:
        if done < total:
            self._reading = f"reading {done:,} of {total:,} tokens that all items share"
        self.tick()

    def began(self, item: Item) -> None:
        self._reading = ""
        self._under_way[item.number] = item
        self._draw()

    def event(self, item: Item, event: ev.Event) -> None:
        match event:
            case ev.Notice(text):
                self._say(f"{item.shown}: {text}")
            case ev.CallFinished(_, name, content, is_error) if self._verbose:
                first = content.partition("\n")[0]
                self._say(f"{item.shown}: {name}{' failed' if is_error else ''}: {first}")
            case ev.ApprovalDecided(request, decision) if decision.behaviour == "deny":
                self._say(f"{item.shown}: refused {request.tool}: {decision.reason}")
            case _:
                pass

    def ended(self, outcome: Outcome) -> None:
        self._under_way.pop(outcome.item.number, None)
        self._outcomes.append(outcome)
        if self._has_bar and outcome.state != "failed":
            self._draw()
            return
        done = self._before + len(self._outcomes)
        self._say(f"[{done}/{self._count}] {_said(outcome)}")

    def tick(self) -> None:
        if self._clock() - self._drawn >= REDRAW_S:
            self._draw()

    def end(self, ending: Ending, diffs: bytes | None) -> str:
        self._wipe()
        text = "\n".join(_table(ending))
        if ending.error:  # it stands on stderr, when the program ends
            _tell(text)
            return ""
        if diffs is None:
            print_text(visible(text))
            return text + "\n"
        shown = diffs.decode("utf-8", "replace")
        if _is_terminal(1):
            print_text(visible(shown.removesuffix("\n")))
        else:  # exactly what `git apply` needs
            print_bytes(diffs)
        _tell(visible(text))
        return shown

    def _say(self, text: str) -> None:
        self._wipe()
        _tell(one_line(text, 300))
        self._draw()

    def _draw(self) -> None:
        if not self._has_bar:
            return
        self._drawn = self._clock()
        width = max(20, shutil.get_terminal_size().columns - 1)
        done = self._before + len(self._outcomes)
        filled = BAR * done // max(1, self._count)
        bar = "#" * filled + "." * (BAR - filled)
        failed = sum(outcome.state == "failed" for outcome in self._outcomes)
        parts = [f"[{bar}] {done}/{self._count}", self._left()]
        parts += [f"{failed} failed"] if failed else []
        parts += [self._reading] if self._reading else []
        parts += [next(iter(self._under_way.values())).shown] if self._under_way else []
        _write("\r\x1b[K" + one_line("  ".join(filter(None, parts)), width))

    def _left(self) -> str:
        done, rest = len(self._outcomes), self._count - self._before - len(self._outcomes)
        if not done or not rest:
            return ""
        return f"ETA {_duration((self._clock() - self._began) / done * rest)}"

    def _wipe(self) -> None:
        if self._has_bar:
            _write("\r\x1b[K")


def _said(outcome: Outcome) -> str:
    parts = [outcome.state, outcome.item.shown]
    if outcome.state == "changed":
        parts.append(f"+{outcome.added} -{outcome.removed}")
    if outcome.tries > 1:
        parts.append(f"{outcome.tries} tries")
    if outcome.reason:
        parts.append(f"({outcome.reason})")
    return " ".join(parts)


def _table(ending: Ending) -> list[str]:
    """A row an item, the totals below."""
    rows = [("state", "file", "lines", "tries", "tokens", "seconds", "")]
    for outcome in sorted(ending.outcomes, key=lambda outcome: outcome.item.number):
        usage = outcome.usage
        is_changed = outcome.state == "changed"
        said = outcome.reason or ("" if is_changed else outcome.text)
        rows.append(
            (
                outcome.state,
                one_line(outcome.item.shown, 80),
                f"+{outcome.added} -{outcome.removed}" if is_changed else "",
                str(outcome.tries),
                f"{usage.prefilled_tokens + usage.output_tokens:,}",
                f"{outcome.seconds:.1f}",
                one_line(said, 100),
            )
        )
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    right = (3, 4, 5)
    lines = [
        "  ".join(
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.append(f"{summary(ending)}; {_duration(ending.seconds)}")
    lines += [f"commit {ending.commit[:12]}"] if ending.commit else []
    lines += [f"patch {ending.patch}"] if ending.patch else []
    lines += filter(None, [prefill_text(ending.prefilled)])
    lines.append(f"ledger {ending.ledger}")
    return lines


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _tell(text: str) -> None:
    _write(text + "\n")


def _write(text: str) -> None:
    with suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _is_terminal(descriptor: int = 2) -> bool:
    stream = sys.stderr if descriptor == 2 else sys.stdout
    with suppress(OSError, ValueError, AttributeError):
        return stream.isatty()
    return False
