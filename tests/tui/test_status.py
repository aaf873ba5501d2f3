"""The status line tells the engine's numbers and fits."""

import pytest

from ds4_agent.agent.events import (
    CallReady,
    CallStarted,
    PrefillProgressed,
    StepFinished,
    StepStarted,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from ds4_agent.tui.status import Status, render_status, status_after

FULL = Status(
    activity="writing",
    prefill=(8200, 12400, 412.0),
    restored=29_000,
    context_used=41_000,
    context_total=256_000,
    tokens_per_second=26.4,
    queued=2,
    mode="accept-edits",
    branch="main",
)


def test_everything_on_a_wide_line():
    assert render_status(FULL, 200).plain == (
        "prefill ▰▰▰▰▰▰▱▱▱▱ 8.2k/12.4k 66% 412 tok/s ETA 10s │ 2 queued │ ctx 41.0k/256k"
        " │ kv 29.0k restored │ 26 tok/s │ accept-edits │ git main"
    )


@pytest.mark.parametrize("width", range(20, 200, 7))
def test_a_narrow_line_loses_the_least_first(width):
    line = render_status(FULL, width)
    assert line.cell_length <= max(width, 60)  # the activity itself is never cut
    if "git main" in line.plain:
        assert "ctx" in line.plain
    if "ctx" in line.plain:
        assert "accept-edits" in line.plain


def test_what_events_change():
    assert status_after(Status(), StepStarted(1, 900)).prefill == (0, 900, 0.0)
    status = status_after(Status(), PrefillProgressed(512, 1024, 0, 99.0))
    assert status.prefill == (512, 1024, 99.0)
    status = status_after(status, PrefillProgressed(1024, 1024, 0, 99.0))
    assert status.prefill is None
    assert status_after(status, ThinkingDelta("x")).activity == "thinking"
    assert status_after(status, TextDelta("x")).activity == "writing"
    assert status_after(status, CallStarted("1", "edit")).activity == "writing edit"
    assert status_after(status, CallReady("1", "bash", {})).activity == "running bash"
    status = status_after(status, StepFinished(Usage(cached_tokens=7), 10, 20, 3.0))
    assert (status.context_used, status.context_total, status.restored) == (10, 20, 7)


def test_an_interrupt_is_acknowledged_whatever_still_comes():
    status = status_after(Status(is_ending=True), PrefillProgressed(512, 1024, 0, 99.0))
    assert render_status(status, 80).plain.startswith("interrupting")


def test_a_branch_is_somebody_elses_text():
    line = render_status(Status(branch="x\x1b[31m\u202e[bold]"), 100)
    assert line.plain.endswith("git x␛[31m\\u202e[bold]")
