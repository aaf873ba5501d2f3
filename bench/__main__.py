"""`make bench`: every figure of the README, measured in one run on one machine, as one table beside
the bars. `python -m bench [--quick] [--no-oracle]` from the repository root. Each part runs in its
own process, one after the other; writes only into a temporary directory. `python -m bench width` is
a part of its own: V4 Flash's layers at their real width, in some six minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import width
from bench.figures import Speed, table
from bench.machine import machine
from bench.random_model import bench_config, write_model
from ds4_agent.engine.open import NANO

LENGTHS = (512, 2048, 8192)
QUICK = (128, 256, 512)  # to see that it runs; the bars mean nothing there
HEAD = ("figure", "ds4-agent", "transformers", "ratio", "bar", "")


def main() -> None:
    options = _options()
    if options.part == "width":
        width.main()
        return
    lengths = QUICK if options.quick else LENGTHS
    with tempfile.TemporaryDirectory(prefix="ds4-bench-") as place:
        directory = Path(place)
        parameters = write_model(directory, bench_config(), seed=1)
        (directory / "tokenizer.json").write_bytes((NANO / "tokenizer.json").read_bytes())
        arguments = [str(directory), *map(str, lengths)]
        ours = [Speed(**row) for row in _part("ours", arguments)]
        theirs = [] if options.no_oracle else _part("oracle", arguments)
        has_nano = (NANO / "model.safetensors").is_file()
        jobs = _part("jobs", [str(directory)]) if has_nano and not options.quick else []
    rows = _speeds(ours, [Speed(**row) for row in theirs])
    if has_nano:
        rows += [[name, figure, "", "", "", ""] for name, figure in _part("nano", [])]
        if not options.quick:
            parts = ("cache", "forks", "handbook", "batch", "speculation", "screen")
            rows += [row for part in parts for row in _part(part, [])]
    rows += jobs
    print(machine())
    print(f"Random model of {parameters / 1e6:.1f} M parameters, fp32; speeds in tokens/s.")
    for row in theirs:
        print(f"transformers, prefill at {row['tokens']:,}: {row['setting']} was its fastest.")
    print("\n" + table(HEAD, rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="?", choices=("width",), help="only this part")
    parser.add_argument("--quick", action="store_true", help="short prompts: only that it runs")
    parser.add_argument("--no-oracle", action="store_true", help="leave transformers out")
    return parser.parse_args()


def _part(name: str, arguments: list[str]) -> list[Any]:
    """What `python -m bench.NAME` prints last, parsed. Its progress and warnings go to stderr."""
    print(f"bench: {name} …", file=sys.stderr)
    command = [sys.executable, "-m", f"bench.{name}", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: {name} failed; see above")
    rows: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return rows


def _speeds(ours: list[Speed], theirs: list[Speed]) -> list[list[str]]:
    last, first = ours[-1], ours[0]
    rows = []
    for kind, bar in (("prefill", 5.0), ("decode", 3.0)):
        for index, row in enumerate(ours):
            mine = getattr(row, kind)
            other = getattr(theirs[index], kind) if theirs else None
            at_last = bar if row is last else None
            rows.append(_row(f"{kind} at {row.tokens:,}", mine, other, at_last))
    ratio = last.prefill / first.prefill
    name = f"prefill at {last.tokens:,} / at {first.tokens:,}"
    rows.append([name, f"{ratio:.2f}", "", "", ">= 0.7", _met(ratio >= 0.7)])
    for name, milliseconds in (("fork", last.fork_ms), ("rewind", last.rewind_ms)):
        label = f"{name} at {last.tokens:,}, ms"
        rows.append([label, f"{milliseconds:.3f}", "", "", "< 1", _met(milliseconds < 1)])
    return rows


def _row(name: str, mine: float, other: float | None, bar: float | None) -> list[str]:
    """One speed beside that of transformers, and the bar on their ratio if there is one."""
    if other is None:
        return [name, f"{mine:,.1f}", "", "", "", ""]
    ratio = mine / other
    bars = ["", ""] if bar is None else [f">= {bar:g} x", _met(ratio >= bar)]
    return [name, f"{mine:,.1f}", f"{other:,.1f}", f"{ratio:.1f} x", *bars]


def _met(holds: bool) -> str:
    return "met" if holds else "MISSED"


if __name__ == "__main__":
    main()
