"""What a model will take in memory, before any of it is loaded. In: the headers of a checkpoint, a
context length and a machine. Out: a `Plan` with all figures in bytes, and the line that refuses
what does not fit. It reads no tensor data.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ds4_agent.engine.machine import Machine
from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.prefill import CHUNK_TOKENS
from ds4_agent.engine.model.tiles import CPU_SCORES, GPU_SCORES
from ds4_agent.engine.weights.files import SMALL_REPOSITORY
from ds4_agent.engine.weights.safetensors_file import TensorEntry

__all__ = ["Plan", "plan_memory", "stored_sizes"]

SMALLEST = f"{SMALL_REPOSITORY} (97 GB)"
MAC_RESERVE = 8 << 30  # what macOS itself needs beside wired memory
# Kept in fp32 whatever they are stored as.
_FP32 = re.compile(r"(compressor\.|hc_|norm\.weight$|attn_sink$|ffn\.gate\.|^head\.weight$)")
_OURS = re.compile(r"(layers\.|embed\.|head\.|norm\.weight$|hc_head_)")
_ITEM = {"F8_E4M3": 1, "I8": 1, "F8_E8M0": 1, "U8": 1, "U32": 4}


@dataclass(frozen=True)
class Plan:
    """Figures in bytes."""

    directory: Path
    context: int  # tokens
    longest: int  # tokens the model can take
    weights: int
    kv_token: int  # of history, a token
    kv_fixed: int  # of the window and what is pending
    working: int  # the larger of a chunk's activations and one layer held twice while loading
    machine: Machine

    @property
    def kv(self) -> int:
        return self.kv_fixed + self.kv_token * self.context

    @property
    def needed(self) -> int:
        return self.weights + self.kv + self.working

    @property
    def fits(self) -> bool:
        return self.needed <= self.machine.usable

    @property
    def largest_context(self) -> int:
        """Tokens of the longest context that fits now, in whole blocks of 128; 0: none."""
        return self._context_in(self.machine.usable)

    @property
    def attainable(self) -> int:
        """What the machine can give a model when its owner has raised the wired limit."""
        if not self.machine.is_mac:
            return self.machine.usable
        return max(self.machine.usable, self.machine.memory - MAC_RESERVE)

    @property
    def sysctl(self) -> str | None:
        """The command that makes room on a Mac, where that is what is in the way."""
        if self.fits or self.needed > self.attainable:
            return None
        megabytes = min(math.ceil(self.needed / (1 << 30)) << 10, self.attainable >> 20)
        return f"sudo sysctl iogpu.wired_limit_mb={megabytes}"

    def refusal(self) -> str | None:
        """One line with the figures and what to do; None where it fits."""
        if self.fits:
            return None
        line = (
            f"{self.directory} needs {_gb(self.needed)} of memory (weights {_gb(self.weights)}, "
            f"{self.context:,} tokens of context {_gb(self.kv)}, work {_gb(self.working)}) and "
            f"this machine can give {_gb(self.machine.usable)} of its {_gb(self.machine.memory)}; "
        )
        ways = []
        if self.sysctl is not None:
            ways.append(f"run `{self.sysctl}`")
        if self.largest_context:
            ways.append(f"give --ctx {self.largest_context}")
        return line + (" or ".join(ways) or f"give a smaller checkpoint; the smallest: {SMALLEST}")

    def _context_in(self, memory: int) -> int:
        room = memory - self.weights - self.working - self.kv_fixed
        return max(min(room // max(self.kv_token, 1), self.longest) // 128 * 128, 0)


def plan_memory(
    directory: Path,
    config: ModelConfig,
    entries: Mapping[str, TensorEntry],
    context: int,
    machine: Machine,
    *,
    stream_bytes: int,
    on_cpu: bool,
) -> Plan:
    """The plan of the tensors `entries`, by official name. `stream_bytes`: an element of the
    streams' dtype, 4 or 2."""
    layers = _by_layer(entries, lambda name, entry: _loaded(name, entry, entries, stream_bytes))
    weights = sum(layers.values())
    if on_cpu and stream_bytes == 4 and not any(e.dtype in _ITEM for e in entries.values()):
        weights *= 2  # numpy computes with copies that lie by columns
    token, fixed = _kv(config, stream_bytes)
    return Plan(
        directory=directory,
        context=context,
        longest=config.max_position_embeddings,
        weights=weights,
        kv_token=token,
        kv_fixed=fixed,
        working=max(_activations(config, min(context, CHUNK_TOKENS), on_cpu), *layers.values()),
        machine=machine,
    )


def stored_sizes(entries: Mapping[str, TensorEntry]) -> dict[str, int]:
    """Bytes of the files for each "layers.N", and "" for the two ends; not the drafts."""
    return _by_layer(entries, lambda _, entry: entry.size)


def _by_layer(
    entries: Mapping[str, TensorEntry], size: Callable[[str, TensorEntry], int]
) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, entry in entries.items():
        if _OURS.match(name):
            part = ".".join(name.split(".")[:2]) if name.startswith("layers.") else ""
            sizes[part] = sizes.get(part, 0) + size(name, entry)
    return sizes


def _loaded(
    name: str, entry: TensorEntry, entries: Mapping[str, TensorEntry], stream_bytes: int
) -> int:
    """Bytes of a tensor once it is loaded."""
    count = math.prod(entry.shape)
    if entry.dtype == "F8_E4M3":
        return count + count // 32  # with its scales, repeated for rows and groups
    if entry.dtype == "F8_E8M0":
        weight = entries.get(f"{name.removesuffix('.scale')}.weight")
        return 0 if weight is not None and weight.dtype == "F8_E4M3" else count
    if name.endswith("tid2eid"):
        return 4 * count
    if entry.dtype == "U32" and name.startswith("layers.") and _FP32.search(name):
        return count * 4 * 4  # these are unpacked; of 8 bits, if any
    if entry.dtype in _ITEM:
        return count * _ITEM[entry.dtype]
    return count * (4 if _FP32.search(name) else stream_bytes)


def _kv(c: ModelConfig, stream_bytes: int) -> tuple[int, int]:
    """(bytes a token, fixed bytes) of a state."""
    token, fixed = 0.0, 0
    for kind in c.layer_kinds:
        fixed += c.sliding_window * c.head_dim * stream_bytes
        if kind == "csa":
            token += (c.head_dim + c.index_head_dim) * stream_bytes / c.csa_ratio
            fixed += 2 * c.csa_ratio * 4 * (c.head_dim + c.index_head_dim) * 4
        elif kind == "hca":
            token += c.head_dim * stream_bytes / c.hca_ratio
            fixed += c.hca_ratio * 2 * c.head_dim * 4
    return math.ceil(token), fixed


def _activations(c: ModelConfig, tokens: int, on_cpu: bool) -> int:
    """Of a chunk: streams, queries and outputs, experts, and three tiles of scores, all fp32."""
    scores = CPU_SCORES if on_cpu else GPU_SCORES
    streams = 4 * c.hc_mult * c.hidden_size
    queries = 4 * c.num_attention_heads * c.head_dim
    experts = 6 * c.num_experts_per_tok * c.moe_intermediate_size
    return 4 * (tokens * (streams + queries + experts) + 3 * scores + c.vocab_size)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
