"""Measures forks of a long conversation with the bundled nano model: the time of a fork, and the
memory of many that go on, each with a turn of its own; of a much longer one the memory alone.
`python -m bench.forks [TOKENS [MORE]]` prints one JSON list of table rows.
"""

import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.figures import prompt_ids
from ds4_agent.engine.api import Context, Sampling
from ds4_agent.engine.local import ModelEngine
from ds4_agent.engine.open import NANO

LONG = 25_000  # tokens of the conversation
LONGER = 100_000
FORKS = 100
TURN, ANSWER = 64, 24  # tokens each fork reads and writes
REPEATS = 2000
GREEDY = Sampling(temperature=0.0)
FORK_BAR, MEMORY_BAR = 5.0, 1.0  # milliseconds, megabytes: of one fork


def main(tokens: int, more: int) -> None:
    print(json.dumps([*_long(tokens), *_longer(more)]))


def _long(tokens: int) -> list[list[str]]:
    engine = ModelEngine(NANO, is_nano=True)
    try:
        context = engine.new_context()
        context.extend(prompt_ids(tokens))
        size = context.checkpoint().state.nbytes / 1e6
        times = [_fork_ms(context) for _ in range(REPEATS)]
        bare = _megabytes([], context.fork)
        grown = _megabytes([], lambda: _gone_on(context))
    finally:
        engine.close()
    middle, longest = statistics.median(times), max(times)
    own = f"{TURN} + {ANSWER}"
    return [
        [
            f"fork at {tokens:,} tokens, ms (longest of {REPEATS:,}: {longest:.3f})",
            f"{middle:.4f}", "", "", f"< {FORK_BAR:g}", _met(longest < FORK_BAR),
        ],
        [
            f"… MB of one of {FORKS} forks, beside their state",
            f"{bare:.3f}", f"{size:.1f}", f"{bare / size:.4f} x", f"< {MEMORY_BAR:g}",
            _met(bare < MEMORY_BAR),
        ],
        [
            f"… MB of one that went on for {own} tokens: its own windows and open ends too",
            f"{grown:.3f}", f"{size:.1f}", f"{grown / size:.4f} x", "", "",
        ],
    ]  # fmt: skip


def _longer(tokens: int) -> list[list[str]]:
    """More than nano's positions: what it writes there means nothing, but its state is as large."""
    with tempfile.TemporaryDirectory(prefix="ds4-bench-") as place:
        for file in NANO.iterdir():
            if file.name != "config.json":
                Path(place, file.name).symlink_to(file)
        config = json.loads((NANO / "config.json").read_text(encoding="utf-8"))
        config["max_position_embeddings"] = limit = tokens + 1024
        Path(place, "config.json").write_text(json.dumps(config), encoding="utf-8")
        engine = ModelEngine(Path(place), is_nano=True, context_length=limit)
        try:
            context = engine.new_context()
            context.extend(prompt_ids(tokens))
            size = context.checkpoint().state.nbytes / 1e6
            grown = _megabytes([], lambda: _gone_on(context))
        finally:
            engine.close()
    # No bar: what the process keeps of its scratch memory counts as well, and differs by the run.
    name = f"{FORKS} forks at {tokens:,} tokens, MB of one that went on for {TURN} + {ANSWER}"
    return [[name, f"{grown:.3f}", f"{size:.1f}", f"{grown / size:.4f} x", "", ""]]


def _fork_ms(context: Context) -> float:
    began = time.perf_counter()
    context.fork()
    return 1e3 * (time.perf_counter() - began)


def _gone_on(context: Context) -> Context:
    """A fork that has read a turn and answered it."""
    fork = context.fork()
    fork.extend(prompt_ids(TURN))
    for _ in fork.sample(sampling=GREEDY, grammar=None, max_tokens=ANSWER):
        pass
    return fork


def _megabytes(kept: list[Context], make: Callable[[], Context]) -> float:
    """What this process holds more for each of the forks that are made and kept."""
    kept.append(make())  # what the first one needs is there from then on
    gc.collect()
    before = _resident()
    kept += [make() for _ in range(FORKS)]
    gc.collect()
    return (_resident() - before) / FORKS


def _resident() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return float(line.split()[1]) * 1.024 / 1000  # kB are 1024 bytes there
    raise SystemExit("bench: no VmRSS in /proc/self/status")


def _met(holds: bool) -> str:
    return "met" if holds else "MISSED"


if __name__ == "__main__":
    chosen = [int(word) for word in sys.argv[1:]]
    main(*chosen, *(LONG, LONGER)[len(chosen) :])
