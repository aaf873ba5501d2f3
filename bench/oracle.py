"""Measures transformers' DeepseekV4ForCausalLM on the same checkpoint: `python -m bench.oracle
DIRECTORY LENGTH…` prints one JSON list. It gets what serves it best: all cores, inference mode,
its own KV cache, the logits of the last token only, and the faster of a one-shot and a chunked
prefill, computed with the faster of two expert implementations. Needs the `oracle` extra.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import DeepseekV4Config, DeepseekV4ForCausalLM

from bench.figures import DECODED, Speed, prompt_ids
from ds4_agent.engine.blas import usable_cores

CHUNK = 512
# One-shot prefill is what `generate` does by default, but its cost a token grows with the prompt:
# beyond this length it takes minutes and gigabytes, and the chunked one has long been faster.
ONE_SHOT_LIMIT = 2048
EXPERTS = ("eager", "grouped_mm")


def measure(directory: Path, lengths: list[int]) -> list[Speed]:
    """One row a length, shortest first; each figure is the best of all settings."""
    torch.set_num_threads(usable_cores())
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    weights = load_file(directory / "model.safetensors")
    models = {experts: _load(config, weights, experts) for experts in EXPERTS}
    with torch.inference_mode():
        for model in models.values():
            _once(model, torch.tensor([prompt_ids(256)]), CHUNK)  # warm
        return [_best(models, length) for length in sorted(lengths)]


def _best(models: dict[str, Any], length: int) -> Speed:
    ids = torch.tensor([prompt_ids(length)])
    chunks = {CHUNK, length} if length <= ONE_SHOT_LIMIT else {CHUNK}
    runs = [
        (
            *_once(model, ids, chunk),
            f"{'one shot' if chunk == length else f'by {chunk}'}, {experts}",
        )
        for experts, model in models.items()
        for chunk in sorted(chunks)
    ]
    prefill, _, setting = max(runs)
    return Speed(length, prefill, max(run[1] for run in runs), setting=setting)


def _once(model: Any, ids: torch.Tensor, chunk: int) -> tuple[float, float]:
    """Prefill and decode in tokens a second: one pass."""
    began = time.perf_counter()
    cache = None
    for start in range(0, ids.shape[1], chunk):
        out = model(
            ids[:, start : start + chunk], past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        cache = out.past_key_values
    prefill = ids.shape[1] / (time.perf_counter() - began)
    began = time.perf_counter()
    for _ in range(DECODED):
        out = model(out.logits[:, -1:].argmax(-1), past_key_values=cache, use_cache=True)
    return prefill, DECODED / (time.perf_counter() - began)


def _load(config: dict[str, Any], weights: dict[str, torch.Tensor], experts: str) -> Any:
    settings = DeepseekV4Config(**config)
    settings._experts_implementation = experts
    model = DeepseekV4ForCausalLM(settings)
    model.load_state_dict(weights, strict=True)
    return model.eval()


if __name__ == "__main__":
    rows = measure(Path(sys.argv[1]), [int(length) for length in sys.argv[2:]])
    print(json.dumps([asdict(row) for row in rows]))
