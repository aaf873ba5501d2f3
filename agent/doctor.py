"""The command `doctor`: what the engine runs on, what is installed, where things are. With
`--model` it checks a model instead, see `doctor_model`.

In: its arguments. Out: a few lines on stdout, or JSON with `--json`; the exit code, 2 where the
engine does not work. It loads no weights and changes nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ds4_agent.agent.cli import Parser, add_common, options_from
from ds4_agent.agent.display import visible
from ds4_agent.agent.printing import print_json

__all__ = ["run_doctor"]


def run_doctor(arguments: Sequence[str]) -> int:
    """Run `ds4-agent doctor …`. Raises UsageError and EngineError."""
    parser = Parser(prog="ds4-agent doctor", allow_abbrev=False)
    parser.add_argument(
        "--model", nargs="?", const="", metavar="NAME", help="check a model on this machine "
        "(without NAME the one that is used) and print a report for an issue; a large one takes "
        "minutes",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="machine-readable")
    add_common(parser)
    chosen = parser.parse_args(arguments)
    if chosen.model is None:
        return _doctor(chosen)
    from ds4_agent.agent.doctor_model import check_model

    chosen.model = chosen.model or None  # the configured one
    return check_model(options_from(chosen, is_headless=True), as_json=chosen.json)


def _doctor(chosen: argparse.Namespace) -> int:
    """Exit code 2 when the engine does not work."""
    import platform
    import shutil

    from ds4_agent.agent.places import find_places
    from ds4_agent.engine.doctor import examine
    from ds4_agent.engine.errors import EngineError

    places = find_places(os.environ)
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": shutil.which("git"),
        "ripgrep": shutil.which("rg"),
        "config": os.fspath(places.config_file),
        "sessions": os.fspath(places.sessions),
        "cache": os.fspath(places.cache),
    }
    problem = ""
    try:
        facts = examine()
        report["engine"] = {**asdict(facts), "is_slow": facts.is_slow}
    except EngineError as error:
        problem = str(error)
        report["engine"] = {"error": problem}
    if chosen.json:
        print_json(report)
    else:
        _print_doctor(report)
    return 2 if problem else 0


def _print_doctor(report: dict[str, Any]) -> None:
    engine = report.pop("engine")
    for name, value in report.items():
        print(f"{name:<10} {visible(value or 'not installed')}")
    if "error" in engine:
        print(f"{'engine':<10} {engine['error']}")
        return
    threads = f", {engine['blas_threads']} threads" if engine["blas_threads"] else ""
    print(f"{'mlx':<10} {engine['mlx_version']} on {engine['device']}")
    print(f"{'blas':<10} {engine['blas']}{threads}, {engine['gflops']:.0f} GFLOP/s (fp32)")
    print(f"{'numpy':<10} {engine['numpy_blas']}, {engine['numpy_gflops']:.0f} GFLOP/s (fp32)")
    if engine["is_slow"]:
        print("a reference BLAS answers: install numpy's wheel from PyPI, which brings OpenBLAS")
    print(f"{'nano':<10} {'bundled' if engine['nano_is_bundled'] else 'missing: install again'}")
    if report["git"] is None:
        print("git is missing: install it, the git tool needs it")
    if report["ripgrep"] is None:
        print("ripgrep (rg) is missing: search works without it, more slowly")
