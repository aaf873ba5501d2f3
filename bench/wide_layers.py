"""Measures V4 Flash's layers at their real width, one after the other. In: a layout. Out: figures
by the labels of the table. What concerns 43 layers is the sum of what its layers take: an
extrapolation, and called so. A fast BLAS has to be loaded before this module is (see width.py).
"""

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np

from bench.wide_model import PUBLISHED, Wide, build
from bench.wide_state import filled_state
from ds4_agent.engine import cpu
from ds4_agent.engine.model.arrays import by_columns, like, on_host
from ds4_agent.engine.model.attention import advance, attend, turns_of
from ds4_agent.engine.model.config import LayerKind, ModelConfig
from ds4_agent.engine.model.indexer import chosen_rows
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.parameters import AttentionWeights
from ds4_agent.engine.model.rope import Rotary
from ds4_agent.engine.model.state import State, evaluate
from ds4_agent.engine.model.tiles import on_cpu

__all__ = ["BASE", "CONTEXTS", "measure", "measure_fp32"]

CONTEXTS = (1024, 4096, 16_384, 65_536, 262_144, 1_048_576)
BASE = 4096  # the context at which all else is measured, and that the longest is held against
# The fastest counts: what a layer takes when nothing else wants the machine. (A prefill takes long
# and is the mean of many products anyway.)
REPEATS = 5
CPU_PREFILL, GPU_PREFILL = 8, 1024  # tokens: on a CPU, MLX unpacks a weight for each of them
COPIED = 1 << 28  # bytes copied to measure the bandwidth
KINDS: tuple[LayerKind, ...] = ("sliding", "csa", "hca")
# In `q2` the first and the last layer hold their experts in 4 bits instead of 2.
EDGE_BITS = {"q2": 2, "native": 0}


@dataclass(frozen=True)
class _Layer:
    """One layer of a kind, the ends taken off. Times in ms, sizes in bytes."""

    decode: dict[int, float]  # by context
    attention: dict[int, float]  # of it, with its projections
    choice: float  # of it, the indexer's at the longest
    prefill: float  # a token
    kv: dict[int, int]  # of a state, by context
    stored: int
    stored_read: float
    held: int
    held_read: float


def measure(
    layout: str, sizes: ModelConfig = PUBLISHED, contexts: Sequence[int] = CONTEXTS
) -> dict[str, float]:
    """All figures of a layout, by the labels of the table."""
    cpu.prepare()
    ends = build(layout, (), (), sizes)
    (ends_ms,) = _fastest([_decoding(ends.model, State(BASE, ()))])
    base = (ends.stored, ends.stored_read, ends.held, ends.held_read)
    del ends
    layers = {}
    for kind in KINDS:
        own = (BASE,) if kind == "sliding" else contexts
        layers[kind] = _measured(layout, kind, sizes, own, ends_ms, base)
    return _figures(layout, layers, ends_ms, base, sizes, contexts)


def measure_fp32(
    sizes: ModelConfig = PUBLISHED, contexts: Sequence[int] = CONTEXTS
) -> dict[str, float]:
    """Of a CPU, the attention with weights that are not quantised, in numpy: MLX takes so long to
    unpack a weight there that what grows with the context hardly shows beside it."""
    if not on_cpu():
        return {}
    cpu.prepare()
    layers: dict[LayerKind, tuple[dict[int, float], float]] = {}
    for kind in ("csa", "hca"):
        wide = build("fp32", (kind,), (False,), sizes)
        states = [
            filled_state(wide.model.config, c, wide.model.dtype) for c in (BASE, contexts[-1])
        ]
        weights = by_columns(on_host(wide.parameters.layers[0].attention))
        on_cpu_states = [on_host(state) for state in states]
        works = [_attending(wide, state, weights) for state in on_cpu_states]
        choice = (
            _fastest([_choosing(on_cpu_states[1], wide.model.config)])[0] if kind == "csa" else 0.0
        )
        layers[kind] = dict(zip((BASE, contexts[-1]), _fastest(works), strict=True)), choice
    return _attention_figures(layers, contexts[-1])


def _measured(
    layout: str,
    kind: LayerKind,
    sizes: ModelConfig,
    contexts: Sequence[int],
    ends_ms: float,
    ends: tuple[int, float, int, float],
) -> _Layer:
    mx.clear_cache()
    wide = build(layout, (kind,), (kind == "sliding",), sizes)
    config, dtype = wide.model.config, wide.model.dtype
    states = {context: filled_state(config, context, dtype) for context in contexts}
    decode = _fastest([_decoding(wide.model, state) for state in states.values()])
    attention = _fastest([_attending(wide, state) for state in states.values()])
    choice = 0.0
    if kind == "csa":
        (choice,) = _fastest([_choosing(states[contexts[-1]], config)])
    return _Layer(
        decode={c: ms - ends_ms for c, ms in zip(contexts, decode, strict=True)},
        attention=dict(zip(contexts, attention, strict=True)),
        choice=choice,
        prefill=_prefill_ms(wide, states[BASE]),
        kv={context: state.nbytes for context, state in states.items()},
        stored=wide.stored - ends[0],
        stored_read=wide.stored_read - ends[1],
        held=wide.held - ends[2],
        held_read=wide.held_read - ends[3],
    )


def _fastest(works: Sequence[Callable[[], object]], repeats: int = REPEATS) -> list[float]:
    """Milliseconds of the fastest run of each, after one that is not counted. They take turns: what
    else goes on in the machine then slows them alike."""
    best = [float("inf")] * len(works)
    for number in range(repeats + 1):
        for i, work in enumerate(works):
            began = time.perf_counter()
            work()
            if number:
                best[i] = min(best[i], 1e3 * (time.perf_counter() - began))
    return best


def _decoding(model: Model, state: State) -> Callable[[], None]:
    return lambda: evaluate(*model([5], state))


def _prefill_ms(wide: Wide, state: State) -> float:
    """A token's share of a chunk behind `state`. Of the last layer only one token's output is ever
    computed, so it is what two such layers take more than one."""
    tokens = [5 + i for i in range(CPU_PREFILL if on_cpu() else GPU_PREFILL)]
    config = wide.model.config
    both = replace(
        config,
        num_hidden_layers=2,
        layer_kinds=config.layer_kinds * 2,
        hash_routed=config.hash_routed * 2,
    )
    doubled = replace(wide.parameters, layers=wide.parameters.layers * 2)
    two, twice = Model(both, doubled, in_numpy=False), State(state.position, state.layers * 2)
    times = _fastest(
        [
            lambda: evaluate(*two(tokens, twice)),
            lambda: evaluate(*wide.model(tokens, state)),
        ],
        repeats=1,
    )
    return (times[0] - times[1]) / len(tokens)


def _attending(
    wide: Wide, state: State, host: AttentionWeights | None = None
) -> Callable[[], None]:
    """Of one token: the layer's attention, its projections included; in numpy with `host`."""
    config, weights = wide.model.config, host or wide.parameters.layers[0].attention
    rotary, position = Rotary.of(config), state.position
    turns = turns_of(np.array([position]), config, rotary, in_numpy=host is not None)
    noise = np.random.default_rng(2).standard_normal((1, config.hidden_size), dtype=np.float32)
    x = like(state.layers[0].window, noise)

    def work() -> None:
        advanced = advance(x, position, 0, state.layers[0], weights, turns, config, rotary)
        y = attend(advanced, position, 0, weights, turns, config)
        if host is None:
            mx.eval(y, list(advanced.state.leaves()))

    return work


def _choosing(state: State, config: ModelConfig) -> Callable[[], None]:
    """Of one token: scores of all rows, and the best of them."""
    rows = state.layers[0].index_rows
    assert rows is not None
    rng, heads = np.random.default_rng(3), config.index_n_heads
    shapes = (1, heads, config.index_head_dim), (1, heads)
    q, weights = (like(rows.open, rng.standard_normal(s, dtype=np.float32)) for s in shapes)
    visible = np.array([rows.length])

    def work() -> None:
        chosen = chosen_rows(q, weights, rows, visible, config.index_topk)
        if isinstance(q, mx.array):
            mx.eval(*chosen)

    return work


def _bandwidth() -> float:
    """Bytes a second, read and written, of a copy by the device that computes."""
    source = mx.zeros(COPIED // 4)
    mx.eval(source)
    (ms,) = _fastest([lambda: mx.eval(source + 1)])
    return 2e3 * COPIED / ms


def _figures(
    layout: str,
    layers: dict[LayerKind, _Layer],
    ends_ms: float,
    ends: tuple[int, float, int, float],
    sizes: ModelConfig,
    contexts: Sequence[int],
) -> dict[str, float]:
    counts = {kind: sizes.layer_kinds.count(kind) for kind in KINDS}

    def whole(of: Callable[[_Layer], float], also: float = 0.0) -> float:
        return also + sum(counts[kind] * of(layers[kind]) for kind in KINDS)

    def step(context: int) -> float:
        return whole(lambda layer: layer.decode.get(context, layer.decode[BASE]), ends_ms)

    matrix = sizes.hidden_size * sizes.moe_intermediate_size
    edges = 2 * 3 * sizes.n_routed_experts * matrix * EDGE_BITS[layout] / 8
    edges_read = edges * sizes.num_experts_per_tok / sizes.n_routed_experts
    last = contexts[-1]
    kv = whole(lambda layer: _kv_token(layer, contexts))
    tokens = CPU_PREFILL if on_cpu() else GPU_PREFILL
    many = f"{sizes.num_hidden_layers} layers"
    figures = {f"decode at {BASE:,}, {kind} layer, ms": layers[kind].decode[BASE] for kind in KINDS}
    figures["embedding and head, ms"] = ends_ms
    for kind in KINDS:
        label = f"prefill of {tokens} tokens behind {BASE:,}, {kind} layer, ms a token"
        figures[label] = layers[kind].prefill
    read = whole(lambda layer: layer.stored_read, ends[1]) + edges_read
    held_read = whole(lambda layer: layer.held_read, ends[3]) + edges_read
    figures |= {
        f"weights a token reads of {many}, as stored (the minimum), GB": read / 1e9,
        "… as held in memory here, GB": held_read / 1e9,
        "… a token's time x bandwidth of a copy, GB": step(BASE) * _bandwidth() / 1e12,
        "KV a token, bytes": kv,
        "peak memory of MLX, ends and one layer, GB": mx.get_peak_memory() / 1e9,
        "… of the process, GB": _peak_of_process() / 1e9,
        f"{many}: weights as stored, GB": (whole(lambda x: x.stored, ends[0]) + edges) / 1e9,
        f"{many}: weights as held here, GB": (whole(lambda x: x.held, ends[2]) + edges) / 1e9,
        f"{many}: KV of {last:,} tokens, GB": kv * last / 1e9,
    }
    for context in contexts:
        figures[f"{many}: decode at {context:,}, ms a token, extrapolated"] = step(context)
    figures[f"whole step at {last:,} / at {BASE:,}"] = step(last) / step(BASE)
    own = {kind: (layer.attention, layer.choice) for kind, layer in layers.items()}
    return figures | _attention_figures(own, last)


def _attention_figures(
    layers: Mapping[LayerKind, tuple[dict[int, float], float]], last: int
) -> dict[str, float]:
    """Of the layers that have compressed rows: (ms of the attention by context, of the choice)."""
    figures = {}
    for kind in ("csa", "hca"):
        times, choice = layers[kind]
        for context in (BASE, last):
            figures[f"attention of a {kind} layer at {context:,}, ms"] = times[context]
        figures[f"… {kind} at {last:,} / at {BASE:,}"] = times[last] / times[BASE]
        if kind == "csa":
            figures[f"… the indexer's choice at {last:,}, ms"] = choice
    return figures


def _kv_token(layer: _Layer, contexts: Sequence[int]) -> float:
    """Bytes that a token adds to a state."""
    if len(layer.kv) == 1:
        return 0.0
    return (layer.kv[contexts[-1]] - layer.kv[BASE]) / (contexts[-1] - BASE)


def _peak_of_process() -> int:
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024  # Linux counts kilobytes
