"""Measures `ds4-agent batch` with nano: one refactor in many files, beside the same prompt in runs
of their own. `python -m bench.batch [FILES]` prints one JSON list of table rows. Works in a scratch
repository with a DS4_HOME of its own; both ways find the system prompt's state on disk.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FILES = 200
ALONE = 40  # runs of their own that are timed; the time of all is in proportion
BAR = 4.0
OLD, NEW = "retry_limit = 3", "retry_limit = 5"
PROMPT = f'replace "{OLD}" with "{NEW}"'
AREAS = [
    "api",
    "auth",
    "billing",
    "cache",
    "client",
    "config",
    "events",
    "export",
    "forms",
    "graph",
]
PARTS = [
    "base",
    "codec",
    "errors",
    "filters",
    "helpers",
    "hooks",
    "index",
    "limits",
    "loader",
    "models",
]


def measured(files: int) -> list[list[str]]:
    """Rows: name, figure, two empty cells, the bar and whether it is met."""
    with tempfile.TemporaryDirectory(prefix="ds4-bench-") as place:
        root, home = Path(place, "repository"), Path(place, "home")
        names = _write(root, files)
        _run(
            root, home, ["batch", names[0], "-p", PROMPT]
        )  # the first run of all stores the prompt
        alone = min(ALONE, files)
        _restore(root)
        began = time.perf_counter()
        for name in names[:alone]:
            _run(root, home, ["-p", f"{PROMPT} in {name}"])
        separate = (time.perf_counter() - began) / alone * files
        one, together = _batch(root, home, 1), _batch(root, home, 8)
    seconds, result = one
    prefill = result["batch"]["prefill"]
    ratio, best = separate / seconds, separate / together[0]
    eight = seconds / together[0]
    return [
        [f"batch: {files} files, s", f"{seconds:.1f}", "", "", "", ""],
        [f"batch: {files} runs of their own ({alone} timed), s", f"{separate:.1f}", "", "", "", ""],
        ["batch: times as fast, one after the other", f"{ratio:.1f} x", "", "", "", ""],
        [
            *("batch: times as fast with --jobs 8", f"{best:.1f} x", "", ""),
            *(f">= {BAR:g} x", "met" if best >= BAR else "MISSED"),
        ],
        ["batch: files that are as asked for", f"{result['right']} of {files}", "", "", "", ""],
        ["batch: tokens prefilled", f"{prefill['prefilled_tokens']:,}", "", "", "", ""],
        ["batch: P + N·s", f"{prefill['expected_tokens']:,}", "", "", "", ""],
        ["batch: N · (P + s)", f"{prefill['separate_tokens']:,}", "", "", "", ""],
        ["batch: --jobs 8 / --jobs 1, speed", f"{eight:.2f} x", "", "", "", ""],
    ]


def _write(root: Path, files: int) -> list[str]:
    (root / "src").mkdir(parents=True)
    names = []
    for number in range(files):
        turn, place = divmod(number, len(AREAS) * len(PARTS))
        area, part = AREAS[place % len(AREAS)], PARTS[place // len(AREAS)]
        names.append(f"src/{area}_{part}{turn or ''}.py")
    for number, name in enumerate(names):
        lines = [
            "import os",
            "",
            f"class Client{number}:",
            f"    {OLD}",
            "",
            "    def close(self):",
        ]
        (root / name).write_text("\n".join([*lines, "        return os.getpid()", ""]))
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(root), *words], check=True)
    return names


def _batch(root: Path, home: Path, jobs: int) -> tuple[float, dict[str, Any]]:
    _restore(root)
    began = time.perf_counter()
    arguments = ["src/*.py", "-p", PROMPT, "--jobs", str(jobs), "--output-format", "json"]
    out = _run(root, home, ["batch", *arguments])
    seconds = time.perf_counter() - began
    result: dict[str, Any] = json.loads(out)
    result["right"] = sum(NEW in file.read_text() for file in root.glob("src/*.py"))
    return seconds, result


def _restore(root: Path) -> None:
    subprocess.run(["git", "-C", str(root), "checkout", "-q", "."], check=True)


def _run(root: Path, home: Path, arguments: list[str]) -> str:
    command = [sys.executable, "-m", "ds4_agent.agent.cli", *arguments]
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "DS4_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"bench: {arguments[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    print(json.dumps(measured(int(sys.argv[1]) if len(sys.argv) > 1 else FILES)))
