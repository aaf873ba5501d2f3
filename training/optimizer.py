"""Muon for the matrices, Adam for everything else.

In: named weights with gradients and one factor for all learning rates. Out: updated weights, in
place. Muon makes each update of a matrix orthogonal; here it learns to copy with a quarter of the
tokens that AdamW needs (training/README.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from training.config import NanoConfig

MUON_RATE = 0.02
MUON_MOMENTUM = 0.95
MUON_DECAY = 0.1
ADAM_RATE = 3e-3
ADAM_BETAS = (0.9, 0.95)
ADAM_EPS = 1e-8
# Quintic Newton-Schulz coefficients of Muon (Jordan et al., 2024).
NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)
ORTHOGONAL_STEPS = 5


@dataclass
class OptimizerState:
    """Moments by weight name, and the number of steps taken; saved with every checkpoint."""

    step: int = 0
    momentum: dict[str, Tensor] = field(default_factory=dict)
    first: dict[str, Tensor] = field(default_factory=dict)
    second: dict[str, Tensor] = field(default_factory=dict)


def is_trained(name: str) -> bool:
    """False for what training leaves alone: hash tables, balancing bias, indexer."""
    return not any(part in name for part in (".indexer.", "tid2eid", "e_score_correction_bias"))


def is_muon(name: str, weight: Tensor) -> bool:
    """Hidden matrices; not embeddings, the output, routers, hyper-connections, position biases."""
    others = ("embed_tokens", "lm_head", "mlp.gate.", "hc", "position_bias")
    return weight.dim() >= 2 and not any(part in name for part in others)


def initial_state(weights: dict[str, Tensor]) -> OptimizerState:
    state = OptimizerState()
    for name, weight in weights.items():
        if not is_trained(name):
            continue
        if is_muon(name, weight):
            state.momentum[name] = torch.zeros_like(weight, requires_grad=False)
        else:
            state.first[name] = torch.zeros_like(weight, requires_grad=False)
            state.second[name] = torch.zeros_like(weight, requires_grad=False)
    return state


def update(
    weights: dict[str, Tensor], state: OptimizerState, factor: float, config: NanoConfig
) -> None:
    """One step on all weights that have a gradient; clears the gradients."""
    state.step += 1
    with torch.no_grad():
        update_matrices(weights, state, factor, config)
        update_others(weights, state, factor)


def update_others(weights: dict[str, Tensor], state: OptimizerState, factor: float) -> None:
    """Adam on everything that is no hidden matrix."""
    names = [name for name in state.first if weights[name].grad is not None]
    grads = gradients(weights, names)
    first = [state.first[name] for name in names]
    second = [state.second[name] for name in names]
    torch._foreach_lerp_(first, grads, 1 - ADAM_BETAS[0])
    torch._foreach_mul_(second, ADAM_BETAS[1])
    torch._foreach_addcmul_(second, grads, grads, 1 - ADAM_BETAS[1])
    mean = torch._foreach_div(first, 1 - ADAM_BETAS[0] ** state.step)
    spread = torch._foreach_div(second, 1 - ADAM_BETAS[1] ** state.step)
    torch._foreach_sqrt_(spread)
    torch._foreach_add_(spread, ADAM_EPS)
    own = [weights[name] for name in names]
    torch._foreach_addcdiv_(own, mean, spread, -ADAM_RATE * factor)


def gradients(weights: dict[str, Tensor], names: list[str]) -> list[Tensor]:
    """The gradients of these weights, which lose them."""
    grads = []
    for name in names:
        grad = weights[name].grad
        assert grad is not None
        grads.append(grad)
        weights[name].grad = None
    return grads


def update_matrices(
    weights: dict[str, Tensor], state: OptimizerState, factor: float, config: NanoConfig
) -> None:
    """Muon, with all matrices of one shape made orthogonal in one batch."""
    names = [name for name in state.momentum if weights[name].grad is not None]
    grads = gradients(weights, names)
    momentum = [state.momentum[name] for name in names]
    torch._foreach_lerp_(momentum, grads, 1 - MUON_MOMENTUM)
    looked_ahead = torch._foreach_lerp(grads, momentum, MUON_MOMENTUM)  # Nesterov
    groups: dict[tuple[int, int], list[tuple[str, Tensor]]] = {}
    for name, x in zip(names, looked_ahead, strict=True):
        stack = as_matrices(name, x, config)
        groups.setdefault((stack.shape[1], stack.shape[2]), []).append((name, stack))
    for (rows, columns), members in groups.items():
        steps = orthogonal(torch.cat([stack for _, stack in members]))
        steps *= MUON_RATE * factor * max(1.0, rows / columns) ** 0.5
        own = [weights[name] for name, _ in members]
        parts = steps.split([len(stack) for _, stack in members])
        torch._foreach_mul_(own, 1 - MUON_RATE * MUON_DECAY * factor)
        torch._foreach_sub_(own, [p.reshape(w.shape) for p, w in zip(parts, own, strict=True)])


def as_matrices(name: str, x: Tensor, config: NanoConfig) -> Tensor:
    """A weight as a stack [n, rows, columns] of the matrices it really is."""
    if name.endswith("o_a_proj.weight"):
        return x.view(config.o_groups, -1, x.shape[-1])
    if name.endswith("gate_up_proj"):
        return x.view(2 * config.experts, -1, x.shape[-1])
    return x.view(-1, x.shape[-2], x.shape[-1])


def orthogonal(x: Tensor) -> Tensor:
    """The nearest (half-)orthogonal matrix to each of x [n, rows, columns], roughly."""
    a, b, c = NEWTON_SCHULZ
    is_tall = x.shape[1] > x.shape[2]
    x = x.mT if is_tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ORTHOGONAL_STEPS):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.mT if is_tall else x
