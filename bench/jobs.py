"""Measures contexts that decode at the same time: 8 one after the other and as one batch, and what
that costs a context alone. `python -m bench.jobs DIRECTORY` takes
the bundled model and the one in DIRECTORY and prints one JSON list of table rows.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bench.figures import prompt_ids
from bench.nano import Endless
from ds4_agent.engine.api import Context, Sampling
from ds4_agent.engine.context import ModelContext
from ds4_agent.engine.local import ModelEngine
from ds4_agent.engine.open import NANO

JOBS = 8
PREFIX, OWN = 1024, 20  # tokens: that all share, and that each has behind it, times its number
DECODED = 64  # tokens of each context
REPEATS = 5  # in turn, so that both see the same machine; the fastest counts
GREEDY = Sampling(temperature=0.0)

Row = list[str]
T = TypeVar("T")


def main() -> None:
    rows = []
    for name, directory in (("nano", NANO), ("random model", Path(sys.argv[1]))):
        engine = ModelEngine(directory)
        try:
            rows += throughput(name, engine)
        finally:
            engine.close()
    print(json.dumps(rows))


def throughput(name: str, engine: ModelEngine) -> list[Row]:
    """Tokens a second of all contexts; a batch that gave another token ends the measurement."""
    base = engine.new_context()
    base.extend(prompt_ids(PREFIX))
    contexts = [base.fork() for _ in range(JOBS)]
    for number, context in enumerate(contexts, start=1):
        context.extend(prompt_ids(OWN * number))
    apart, together, alone, beside = [], [], [], []
    for _ in range(REPEATS):
        seconds, expected = _seconds(lambda: [_decode(engine, c.fork()) for c in contexts])
        apart.append(seconds)
        alone.append(_seconds(lambda: _decode(engine, base.fork()))[0])
        with engine.batching(JOBS):
            seconds, found = _seconds(lambda: _at_once(engine, [c.fork() for c in contexts]))
            beside.append(_seconds(lambda: _decode(engine, base.fork()))[0])
        together.append(seconds)
        if found != expected:
            raise SystemExit("bench: contexts decoded as one batch gave other tokens than alone")
    first, second = (JOBS * DECODED / min(times) for times in (apart, together))
    single, waited = (1e3 * min(times) / DECODED for times in (alone, beside))
    return [
        [f"{name}: {JOBS} contexts in turn, tokens/s", f"{first:,.0f}", "", "", "", ""],
        ["… as one batch, same tokens", f"{second:,.0f}", "", f"{second / first:.1f} x", "", ""],
        [
            "… one alone, ms a token, beside it without batches",
            f"{waited:.2f}", f"{single:.2f}", f"{waited / single:.2f} x", "", "",
        ],
    ]  # fmt: skip


def _decode(engine: ModelEngine, context: Context) -> list[int]:
    endless = Endless(engine.runtime.eos)
    tokens = context.sample(sampling=GREEDY, grammar=endless, max_tokens=DECODED)
    return [token.id for token in tokens]


def _at_once(engine: ModelEngine, contexts: list[ModelContext]) -> list[list[int]]:
    """What each decodes, every one in a thread of its own."""
    found: list[list[int]] = [[] for _ in contexts]

    def run(number: int) -> None:
        found[number] = _decode(engine, contexts[number])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(contexts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _seconds(work: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def _met(holds: bool) -> str:
    return "met" if holds else "MISSED"


if __name__ == "__main__":
    main()
