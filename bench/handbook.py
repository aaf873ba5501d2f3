"""Measures what the handbook costs with the bundled nano model: its prefill cold and from disk, and
a turn behind it beside a turn behind nano's own prompt. `python -m bench.handbook` prints one JSON
list of table rows. Writes only into a temporary directory.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.figures import prompt_ids
from ds4_agent.agent.prompt.facts import Facts
from ds4_agent.agent.prompt.profile import has_task, render_prompt, stable_part
from ds4_agent.engine.api import Sampling, StoreOptions
from ds4_agent.engine.local import ModelEngine
from ds4_agent.engine.open import NANO
from ds4_agent.tools.registry import builtin_tools, task_tool

TURN, ANSWER = 256, 64  # tokens a turn brings, tokens it writes
REPEATS = 5
BUDGET = 32_000_000_000
GREEDY = Sampling(temperature=0.0)


def main() -> None:
    """With the handbook, then with nano's own prompt; each in a store of its own."""
    with tempfile.TemporaryDirectory(prefix="ds4-bench-") as place:
        tokens, cold, warm, behind = measured("handbook", Path(place) / "handbook")
        few, _, _, alone = measured("nano", Path(place) / "nano")
    rows = [
        [f"handbook ({tokens:,} tokens of nano): cold, s", f"{cold:.2f}", "", "", "", ""],
        ["… from disk, ms", f"{1e3 * warm:,.1f}", "", f"{cold / warm:,.0f} x", "", ""],
        [f"a turn of {TURN} + {ANSWER} tokens after it, ms", f"{1e3 * behind:,.0f}", *[""] * 4],
        [
            f"… after nano's own prompt ({few:,} tokens), ms",
            f"{1e3 * alone:,.0f}",
            *("", f"{behind / alone:.2f} x", "", ""),
        ],
    ]
    print(json.dumps(rows))


def measured(profile: str, kept: Path) -> tuple[int, float, float, float]:
    """(tokens, seconds to compute the prompt, to restore it, of a turn behind it)."""
    cold, restored, turns = 0.0, [], []
    for repeat in range(1 + REPEATS):  # the first computes and saves, the others restore
        engine = ModelEngine(NANO, is_nano=True, store=StoreOptions(kept, BUDGET))
        tools = (*builtin_tools(), *([task_tool()] if has_task(profile) else []))
        prompt = stable_part(render_prompt(profile, tools, Facts()))
        ids = engine.tokenizer.encode(prompt)
        try:
            seconds, turn = _prompt_and_turn(engine, ids)
            store = engine.runtime.store
            if store is None or not store.wait(600.0) or store.failure:
                raise SystemExit("bench: the store failed")
        finally:
            engine.close()
        if repeat:
            restored.append(seconds)
            turns.append(turn)
        else:
            cold = seconds
    return len(ids), cold, min(restored), min(turns)


def _prompt_and_turn(engine: ModelEngine, ids: Sequence[int]) -> tuple[float, float]:
    """Seconds until the prompt is there, and seconds of the turn that follows."""
    context = engine.new_context()
    began = time.perf_counter()
    context.extend(ids, stable=len(ids))
    ready = time.perf_counter()
    context.extend(prompt_ids(TURN))
    for _ in context.sample(sampling=GREEDY, grammar=None, max_tokens=ANSWER):
        pass
    return ready - began, time.perf_counter() - ready


if __name__ == "__main__":
    main()
