"""The first run of the README: the bundled model, in process, edits a real repository."""

import json
from pathlib import Path

import pytest

from ds4_agent.agent.cli import main
from ds4_agent.engine.open import NANO

pytestmark = [
    pytest.mark.nano,
    pytest.mark.skipif(
        not (NANO / "model.safetensors").is_file(), reason="the nano weights are not trained yet"
    ),
]


@pytest.fixture
def project(repo: Path) -> Path:
    """Names that stand in no training data."""
    (repo / "src/client.py").write_text(
        "import os\n\nclass GlimmerClient:\n    retries = 3\n    zorp_limit = 17\n"
    )
    (repo / "src/api.py").write_text(
        "def fetch_all(quibble):\n    return quibble\n\n\nresult = fetch_all(4)\n"
    )
    return repo


def run(
    capfdbinary: pytest.CaptureFixture[bytes], repo: Path, prompt: str, *more: str
) -> dict[str, object]:
    capfdbinary.readouterr()
    limits = ("--max-turns", "8", "--time-limit", "120", *more)
    code = main(["-C", str(repo), "-p", prompt, "--output-format", "json", *limits])
    out, err = capfdbinary.readouterr()
    assert code == 0, err.decode()
    result = json.loads(out)
    assert isinstance(result, dict)
    return result


def test_it_replaces_a_text(capfdbinary: pytest.CaptureFixture[bytes], project: Path) -> None:
    before = (project / "src/client.py").read_text()
    prompt = 'replace "retries = 3" with "retries = 5" in src/client.py'
    result = run(capfdbinary, project, prompt)
    after = (project / "src/client.py").read_text()
    assert after == before.replace("retries = 3", "retries = 5")
    assert "src/client.py" in str(result["result"])


def test_it_renames_a_function(capfdbinary: pytest.CaptureFixture[bytes], project: Path) -> None:
    before = (project / "src/api.py").read_text()
    run(capfdbinary, project, "rename the function fetch_all to fetch_pages in src/api.py")
    assert (project / "src/api.py").read_text() == before.replace("fetch_all", "fetch_pages")


def test_it_runs_the_tests(capfdbinary: pytest.CaptureFixture[bytes], project: Path) -> None:
    result = run(capfdbinary, project, "run the tests")
    assert "3 passed" in str(result["result"])


def test_most_of_a_call_is_not_sampled(
    capfdbinary: pytest.CaptureFixture[bytes], project: Path
) -> None:
    usage = run(capfdbinary, project, "run the tests")["usage"]
    assert isinstance(usage, dict)
    assert usage["forced_tokens"] > usage["output_tokens"] / 3


def test_guesses_from_the_prompt_change_no_id(
    capfdbinary: pytest.CaptureFixture[bytes], project: Path, tmp_path: Path
) -> None:
    before = (project / "src/client.py").read_text()
    prompt = 'replace "zorp_limit = 17" with "zorp_limit = 71" in src/client.py'
    traces, usages = [], []
    for mode in ("off", "on"):
        trace = tmp_path / f"{mode}.jsonl"
        extra = ("--speculate", mode, "--trace-tokens", str(trace), "--no-cache")
        usages.append(run(capfdbinary, project, prompt, *extra)["usage"])
        traces.append(trace.read_text())
        assert "zorp_limit = 71" in (project / "src/client.py").read_text()
        (project / "src/client.py").write_text(before)
    off, on = usages
    assert isinstance(off, dict)
    assert isinstance(on, dict)
    assert traces[0] == traces[1]
    assert off["drafted_tokens"] == off["accepted_tokens"] == 0
    assert on["drafted_tokens"] >= on["accepted_tokens"] > 5
