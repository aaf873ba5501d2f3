"""The oracle: transformers' DeepseekV4ForCausalLM in fp32 on torch CPU, run on the tiny models. In:
a config and weights. Out: logits, greedy continuations, and how narrowly the indexer chose. Needs
torch and transformers; only CI and make_golden.py have them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DeepseekV4Config, DeepseekV4ForCausalLM

__all__ = ["Oracle", "Run"]


@dataclass(frozen=True)
class Run:
    """One prompt through the oracle."""

    logits: NDArray[np.float32]  # [tokens, vocab]
    continuation: list[int]  # greedy
    index_gap: float
    """The least gap between the last row chosen and the first one not, over all queries. Below the
    noise of fp32 the choice is free, and another order of summation may choose another row."""
    token_gap: float  # the same for the continuation: least margin of the best logit


class Oracle:
    def __init__(self, config: dict[str, Any], weights: dict[str, NDArray[Any]]) -> None:
        settings = DeepseekV4Config(**config)
        self._top_k = settings.index_topk
        self._ratio = settings.compress_rates["compressed_sparse_attention"]
        self._model = DeepseekV4ForCausalLM(settings)
        tensors = {name: torch.from_numpy(tensor.copy()) for name, tensor in weights.items()}
        self._model.load_state_dict(tensors, strict=True)
        self._model.eval()

    def save(self, directory: Path) -> None:
        """The checkpoint directory that transformers itself writes."""
        self._model.save_pretrained(directory)

    @torch.inference_mode()
    def run(self, ids: list[int], continuation: int) -> Run:
        """One-shot prefill of `ids`, then `continuation` greedy tokens one by one."""
        gaps: list[float] = []
        hooks = [
            module.register_forward_hook(lambda _m, _i, scores: gaps.append(self._gap(scores)))
            for name, module in self._model.named_modules()
            if name.endswith("indexer.scorer")
        ]
        out = self._model(torch.tensor([ids]), use_cache=True)
        logits, tokens, margins = out.logits[0].numpy(), [], []
        for _ in range(continuation):
            best = out.logits[0, -1].topk(2)
            margins.append(float(best.values[0] - best.values[1]))
            tokens.append(int(best.indices[0]))
            out = self._model(
                torch.tensor([tokens[-1:]]), past_key_values=out.past_key_values, use_cache=True
            )
        for hook in hooks:
            hook.remove()
        return Run(logits, tokens, min(gaps, default=1.0), min(margins, default=1.0))

    def _gap(self, scores: torch.Tensor) -> float:
        """Of scores [1, queries, rows], the last query standing at the newest position."""
        _, queries, rows = scores.shape
        if rows <= self._top_k:
            return 1.0
        if queries > 1:
            visible = (torch.arange(queries) + 1) // self._ratio
            hidden = torch.arange(rows)[None] >= visible[:, None]
            scores = scores.masked_fill(hidden, float("-inf"))
        best = scores[0].topk(self._top_k + 1, dim=-1).values
        gap = best[:, -2] - best[:, -1]
        return float(gap[best[:, -1].isfinite()].min())
