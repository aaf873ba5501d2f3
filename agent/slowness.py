"""Why a prompt took long to read, in the engine's own numbers: what `-v` and `/why-slow` say.

In: exact token counts, and where the prompt parts from a stored one. Out: text for the user.
"""

from __future__ import annotations

from ds4_agent.agent.display import one_line
from ds4_agent.agent.events import Usage

__all__ = ["slowness_lines"]


def slowness_lines(usage: Usage, divergence: str) -> list[str]:
    """`usage`: of the prompt. `divergence`: see `Transcript.divergence`, "" for none."""
    lines = [
        f"restored {usage.cached_tokens:,} tokens from disk, computed {usage.prefilled_tokens:,}"
    ]
    if divergence:
        lines.append(one_line(divergence, 400))
    return lines
