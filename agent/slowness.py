"""Why a prompt took long, in the engine's own numbers: what `-v` and `/why-slow` say.

In: exact token counts, where the prompt parts from a stored one, and what the engine says of its
guesses. Out: text for the user.
"""

from __future__ import annotations

from ds4_agent.agent.display import one_line
from ds4_agent.agent.events import Usage

__all__ = ["slowness_lines"]


def slowness_lines(usage: Usage, divergence: str, speculation: str = "") -> list[str]:
    """`usage`: of the prompt. `divergence`, `speculation`: see `Transcript`, "" for none."""
    lines = [
        f"restored {usage.cached_tokens:,} tokens from disk, computed {usage.prefilled_tokens:,}"
    ]
    if divergence:
        lines.append(one_line(divergence, 400))
    if usage.drafted_tokens:
        right = f"{usage.accepted_tokens:,} of them right"
        lines.append(f"guessed {usage.drafted_tokens:,} tokens ahead, {right}")
    if speculation:
        lines.append(speculation)
    return lines
