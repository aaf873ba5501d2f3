"""Measures the KV cache on disk: a long system prompt cold, from disk and from memory; what a long
session writes; what a token takes; resuming 100,000 tokens; the memory a save and a restore need.
`python -m bench.cache` prints one JSON list of table rows. Writes only into a temporary directory.
"""

import ctypes
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bench.figures import prompt_ids
from bench.random_model import config_of, write_model
from ds4_agent.engine.api import Context, Sampling, StoreOptions
from ds4_agent.engine.context import ModelContext
from ds4_agent.engine.kvstore.disk import Disk
from ds4_agent.engine.local import ModelEngine, with_store
from ds4_agent.engine.open import NANO

if TYPE_CHECKING:
    from ds4_agent.engine.kvstore.store import KvStore

SYSTEM = 25_000  # tokens of the system prompt
TURN = 64  # tokens of what follows it
TURNS, ANSWER = 100, 40  # of the long session: turns, tokens of each answer
LONG = 100_000
REPEATS = 15
BUDGET = 32_000_000_000
DS4_BYTES = 13_764  # a token in antirez/ds4's cache: fp32 rows, ids included
# One token of V4 Flash, rows packed as the weights were trained with them: e4m3 and scales, 64
# roped channels in bf16; e2m1 and scales. 21 CSA layers, a row each 4 tokens; 20 HCA, one each 128.
PACKED_BYTES = 21 * (448 + 7 + 128 + 64 + 4) / 4 + 20 * (448 + 7 + 128) / 128 + 4
FULL_WIDTH = {
    "vocab_size": 2048,
    "hidden_size": 4096,
    "moe_intermediate_size": 64,
    "num_attention_heads": 8,  # rows know nothing of heads
    "head_dim": 512,
    "qk_rope_head_dim": 64,
    "partial_rotary_factor": 0.125,
    "q_lora_rank": 64,
    "o_groups": 2,
    "o_lora_rank": 64,
    "n_routed_experts": 2,
    "index_head_dim": 128,
    "index_topk": 512,
    "sliding_window": 128,
    "max_position_embeddings": 65_536,
    "ds4_kv_simulation": True,
}
GREEDY = Sampling(temperature=0.0)

Row = list[str]
T = TypeVar("T")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ds4-bench-") as place:
        directory = Path(place)
        rows = [*system_prompt(directory / "system"), *long_session(directory / "session")]
        rows += [*bytes_a_token(directory / "width"), *resume(directory / "resume")]
    print(json.dumps(rows))


def system_prompt(directory: Path) -> list[Row]:
    """Time to the first token after a system prompt: computed, read from disk, kept in memory."""
    system, turn = prompt_ids(SYSTEM), prompt_ids(TURN)

    def first_token(context: Context, ids: list[int]) -> float:
        began = time.perf_counter()
        context.extend(ids, stable=SYSTEM if len(ids) > SYSTEM else 0)
        next(iter(context.sample(sampling=GREEDY, grammar=None, max_tokens=1)))
        return time.perf_counter() - began

    with _Opened(NANO, directory) as engine:
        context = engine.new_context()
        cold = first_token(context, system + turn)
    warm, again = [], []
    new: dict[str, list[float]] = {"restoring": [], "reading": []}  # into memory that is new
    held: dict[str, list[float]] = {"restoring": [], "reading": []}  # that was at hand
    for _ in range(REPEATS):
        with _Opened(NANO, directory) as engine:
            warm.append(first_token(engine.new_context(), system + turn))
            read, first, second = _reader(directory), engine.new_context(), engine.new_context()
            for times, context in ((held, first), (new, second)):
                for name, work in (
                    ("restoring", partial(context.extend, system)),
                    ("reading", read),
                ):
                    if times is new:
                        _give_back_memory()
                    times[name].append(_seconds(work)[0])
            again.append(first_token(second, turn))
    disk, memory = min(warm), min(again)
    return [
        [f"system prompt of {SYSTEM:,}: cold to first token, s", f"{cold:.2f}", "", "", "", ""],
        _ratio("… from disk, ms", 1e3 * disk, cold / disk, ">= 100 x", cold / disk >= 100),
        _ratio("… kept in memory, ms", 1e3 * memory, cold / memory, "", None),
        *(
            _against(
                f"restore alone, beside reading and checking its bytes once, {what}, ms",
                1e3 * min(times["restoring"]), 1e3 * min(times["reading"]), bar,
            )
            for times, what, bar in (
                (new, "as in a new process", 2.0), (held, "in memory at hand", None)
            )
        ),
    ]  # fmt: skip


def long_session(directory: Path) -> list[Row]:
    """What a session of many turns writes, over what it occupies in the end."""
    with _Opened(NANO, directory) as engine:
        before, context = _bytes_written(), engine.new_context()
        for turn in range(TURNS):
            context.extend(prompt_ids(1000 + turn)[:TURN])
            context.save("prompt")
            for _ in context.sample(sampling=GREEDY, grammar=None, max_tokens=ANSWER):
                pass
            context.save("answer")
        tokens = len(context.tokens)
        _until_saved(engine)
        written = _bytes_written() - before
    occupied = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    name = f"{TURNS} turns, {tokens:,} tokens: MB written, MB occupied"
    return [_against(name, written / 1e6, occupied / 1e6, 1.2)]


def bytes_a_token(directory: Path) -> list[Row]:
    """Of V4 Flash, from the rows that full-width layers of either kind really saved, in bf16 as a
    GPU computes them: on a CPU its 64 roped channels, which nothing rounds, are fp32."""
    taken = {}
    for kind in "CH":
        model, kept = directory / kind, directory / f"{kind}-kept"
        config = config_of(layer_kinds=f"s{kind}", hash_layers=1, **FULL_WIDTH)
        write_model(model, config, seed=2)
        shutil.copy(NANO / "tokenizer.json", model)
        tokens = 2048
        with _Opened(model, None) as engine:
            halved = replace(engine.runtime, model=engine.runtime.worker.call(_in_bf16, model))
            runtime = with_store(halved, StoreOptions(kept, BUDGET), engine.fingerprint)
            assert runtime.store is not None
            ModelContext(runtime).extend(prompt_ids(tokens), stable=tokens)
            _until_kept(runtime.store)
            runtime.store.close()
        rows = [path.stat().st_size for path in kept.rglob("rows/*")]
        taken[kind] = sum(rows) / tokens - 4  # the ids are there once, not once a layer
    whole = 21 * taken["C"] + 20 * taken["H"] + 4
    return [
        ["V4 Flash: bytes a token on disk", f"{whole:,.0f}", "", "", "", ""],
        _against("… beside the packed rows alone", whole, PACKED_BYTES, None),
        _against("… beside ds4's", whole, DS4_BYTES, None),
    ]


def _in_bf16(model: Path) -> Any:
    """Runs on the engine thread, once a fast BLAS is loaded: MLX must not come before it."""
    import mlx.core as mx

    from ds4_agent.engine.weights.checkpoint import load_model

    return load_model(model, dtype=mx.bfloat16)


def resume(directory: Path) -> list[Row]:
    """A session of 100,000 tokens of nano, begun in one process and resumed in another."""
    model, kept = directory / "model", directory / "kept"
    shutil.copytree(NANO, model)
    path = model / "config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "max_position_embeddings": 1 << 17})
    )
    first, second = (
        json.loads(
            subprocess.run(
                [sys.executable, "-m", "bench.cache", part, str(model), str(kept)],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout
        )
        for part in ("save", "restore")
    )
    size = sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())
    return [
        [f"session of {LONG:,} tokens: computed, s", f"{first['seconds']:.1f}", "", "", "", ""],
        _ratio(
            f"… resumed from {size / 1e6:.0f} MB, ms",
            1e3 * second["seconds"], first["seconds"] / second["seconds"], "", None,
        ),
        _against("… memory of its save, MB, beside its state", first["mb"], first["state"], 1.2),
        _against(
            "… memory of its restore, MB, beside its state", second["mb"], second["state"], 1.2
        ),
    ]  # fmt: skip


def save_part(model: Path, kept: Path) -> dict[str, float]:
    """Compute a long session without a store, then save it at once: the most a save can take."""
    with _Opened(model, None) as engine:
        context = engine.new_context()
        seconds, _ = _seconds(lambda: context.extend(prompt_ids(LONG)))
        place, options = context.checkpoint(), StoreOptions(kept, BUDGET)
        store = with_store(engine.runtime, options, engine.fingerprint).store
        assert store is not None
        assert place.logits is not None
        logits = place.logits
        most = _peak(lambda: store.save("a", place.log, place.state, logits), store.wait)
        store.close()
    return {"seconds": seconds, "mb": most, "state": place.state.nbytes / 1e6}


def restore_part(model: Path, kept: Path) -> dict[str, float]:
    """Read it back in a new process."""
    with _Opened(model, kept) as engine:
        context = engine.new_context()
        elapsed: list[float] = []
        most = _peak(lambda: elapsed.append(_seconds(lambda: context.extend(prompt_ids(LONG)))[0]))
        state = context.checkpoint().state
    return {"seconds": elapsed[0], "mb": most, "state": state.nbytes / 1e6}


class _Opened:
    """A model with a store of its own, closed behind the block."""

    def __init__(self, model: Path, kept: Path | None) -> None:
        """`kept` None: without a store."""
        store = None if kept is None else StoreOptions(kept, BUDGET)
        self._engine = ModelEngine(model, store=store)

    def __enter__(self) -> ModelEngine:
        return self._engine

    def __exit__(self, *_: object) -> None:
        _until_saved(self._engine)
        self._engine.close()


def _until_saved(engine: ModelEngine) -> None:
    if engine.runtime.store is not None:
        _until_kept(engine.runtime.store)


def _until_kept(store: "KvStore | None") -> None:
    if store is None or not store.wait(600.0) or store.failure:
        raise SystemExit(f"bench: the store failed: {store.failure if store else 'none'}")


def _reader(directory: Path) -> Callable[[], list[memoryview | None]]:
    """What reads and checks every file of the longest place, and does nothing else."""
    disk = Disk(directory, BUDGET)
    (root,) = (path.parent.name for path in directory.glob("*/places"))
    longest = max(disk.names(f"{root}/places"))
    header = json.loads(bytes(disk.get(f"{root}/places", longest) or b"").split(b"\n", 1)[0])
    disk.close()
    files = [(f"{root}/places", longest), *((f"{root}/rows", name) for name in header["rows"])]
    return lambda: [disk.get(*file) for file in files]


def _give_back_memory() -> None:
    """What is freed and still at hand would be filled several times as fast. glibc has this."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _seconds(work: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def _bytes_written() -> int:
    """Bytes this process has handed to `write` so far."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def _peak(work: Callable[[], Any], *waits: Callable[[float], Any]) -> float:
    """Megabytes this process held more, at the most, while `work` was done."""
    _give_back_memory()  # else what was freed before is used again, and nothing seems to be taken
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the highest so far
    before = _memory("VmRSS")
    work()
    for wait in waits:
        wait(600.0)
    return (_memory("VmHWM") - before) / 1000


def _memory(field: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return float(line.split()[1]) * 1.024  # kB are 1024 bytes there
    raise SystemExit(f"bench: no {field} in /proc/self/status")


def _ratio(name: str, figure: float, ratio: float, bar: str, is_met: bool | None) -> Row:
    met = "" if is_met is None else "met" if is_met else "MISSED"
    return [name, f"{figure:,.1f}", "", f"{ratio:,.0f} x", bar, met]


def _against(name: str, figure: float, other: float, bar: float | None) -> Row:
    """A figure that is to be at most `bar` times another."""
    ratio = figure / other
    met = "" if bar is None else "met" if ratio <= bar else "MISSED"
    limit = "" if bar is None else f"<= {bar:g} x"
    return [name, f"{figure:,.2f}", f"{other:,.2f}", f"{ratio:.2f} x", limit, met]


if __name__ == "__main__":
    parts = {"save": save_part, "restore": restore_part}
    if len(sys.argv) > 1:
        print(json.dumps(parts[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main()
