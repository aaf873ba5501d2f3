"""`ds4-agent doctor --model`: checks a model on this machine and prints a report to paste into an
issue. The checks are `engine.checkup`'s; here is what is said of them.

In: the options of a run, the model named among them. Out: Markdown on stdout, or JSON; the exit
code, 2 where a check failed. Nothing in it tells of the user's directories.
"""

from __future__ import annotations

import platform
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ds4_agent import __version__
from ds4_agent.agent.display import one_line
from ds4_agent.agent.model_names import model_directory
from ds4_agent.agent.printing import print_json, print_text
from ds4_agent.agent.progress import LoadLine, ProgressLine
from ds4_agent.agent.sizes import shown_size

if TYPE_CHECKING:
    from ds4_agent.agent.build import RunOptions
    from ds4_agent.engine.checkup.examine import Checkup
    from ds4_agent.engine.doctor import EngineFacts

__all__ = ["check_model", "markdown"]

LONGEST = 600  # characters of a sentence in the report


def check_model(options: RunOptions, *, as_json: bool) -> int:
    """Check the model of `options` and print what was found. Raises UsageError and EngineError
    where there is nothing to check."""
    from ds4_agent.engine.checkup.examine import check_up
    from ds4_agent.engine.doctor import examine

    directory = model_directory(options.settings.model or "nano", options.places)
    with closing(LoadLine()) as loading, closing(ProgressLine(after=1.0)) as line:
        checkup = check_up(
            directory,
            verdicts=options.places.kernels,
            on_load=loading,
            on_step=lambda text: line.show(lambda: text),
        )
    report = report_of(checkup, examine())
    if as_json:
        print_json(report)
    else:
        print_text(markdown(report))
    return 2 if checkup.has_failed else 0


def report_of(checkup: Checkup, facts: EngineFacts) -> dict[str, Any]:
    """All of the report, as JSON can hold it."""
    from ds4_agent.engine.blas import usable_cores
    from ds4_agent.engine.machine import system_memory

    return {
        "ds4_agent": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": facts.processor,
        "cores": usable_cores(),
        "memory": system_memory(),
        "engine": {**asdict(facts), "is_slow": facts.is_slow},
        "model": asdict(checkup.model),
        "checks": [asdict(finding) for finding in checkup.findings],
        "failed": [f.check for f in checkup.findings if f.verdict == "failed"],
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as text for an issue."""
    engine, model = report["engine"], report["model"]
    where = f"{report['processor']}, {report['cores']} cores, {shown_size(report['memory'])}"
    parts = ", ".join(f"{dtype} {shown_size(size)}" for dtype, size in model["layout"].items())
    made = f", recipe {model['recipe']}" if model["recipe"] else ""
    rows = [
        ("ds4-agent", f"{report['ds4_agent']}, Python {report['python']}"),
        ("machine", f"{where}, {report['platform']}"),
        ("mlx", f"{engine['mlx_version']} on {engine['device']}, {engine['gflops']:.0f} GFLOP/s"),
        ("numpy", f"{engine['numpy_blas']}, {engine['numpy_gflops']:.0f} GFLOP/s"),
        (
            "model",
            f"{model['name']} ({model['release']}), {model['layers']} layers of "
            f"{model['hidden_size']:,}, {model['experts']} experts",
        ),
        ("layout", f"{parts}{made}"),
        ("fingerprint", model["fingerprint"][:16]),
    ]
    failed = report["failed"]
    lines = ["### ds4-agent doctor --model", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {_cell(value)} |" for key, value in rows]
    lines += ["", "| check | verdict | |", "|---|---|---|"]
    lines += [f"| {c['check']} | {c['verdict']} | {_cell(c['said'])} |" for c in report["checks"]]
    lines += ["", f"Failed: {', '.join(failed)}." if failed else "No check failed."]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text that stays within its cell of a Markdown table, on any terminal."""
    return one_line(text, LONGEST).replace("\\", "\\\\").replace("|", "\\|")
