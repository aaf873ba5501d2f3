"""`ds4-agent doctor`, with and without a model: what it says, and when it ends with exit code 2."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ds4_agent.agent.cli import main
from ds4_agent.agent.doctor_model import markdown
from ds4_agent.engine import doctor
from ds4_agent.engine.checkup import speed
from ds4_agent.engine.open import NANO

CHECKS = ["Metal kernels", "nano parity", "published answers", "recall", "speed"]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Smaller products and copies: their speed is not what is tested."""
    monkeypatch.setattr(doctor, "SIZE", 128)
    monkeypatch.setattr(speed, "CPU_BYTES", 16 << 20)


@pytest.fixture
def model(tmp_path):
    """A directory of the bundled model, to be spoiled."""
    directory = tmp_path / "private" / "my|model"
    shutil.copytree(NANO, directory)
    return directory


def spoil(directory, name, change):
    tensors = load_file(directory / "model.safetensors")
    tensors[name] = change(tensors[name])
    save_file(tensors, directory / "model.safetensors")


def answer(capfd, *arguments):
    code = main(["doctor", *map(str, arguments)])
    out, err = capfd.readouterr()
    return code, out, err


def rows(report):
    """The table of checks: {name: (verdict, sentence)}."""
    cells = [line.split(" | ") for line in report.splitlines() if line.startswith("| ")]
    return {c[0][2:]: (c[1], c[2].removesuffix(" |")) for c in cells if len(c) == 3}


def test_without_a_model_it_says_what_the_engine_runs_on(capfd):
    code, out, _ = answer(capfd)
    assert code == 0
    assert "mlx " in out
    code, out, _ = answer(capfd, "--json")
    assert (code, json.loads(out)["engine"]["nano_is_bundled"]) == (0, True)


@pytest.mark.nano
def test_nano_passes_and_the_report_can_be_pasted(capfd, home):
    code, out, _ = answer(capfd, "--model", "--json")
    report = json.loads(out)
    assert code == 0
    assert [check["check"] for check in report["checks"]] == CHECKS
    verdicts = {check["check"]: check["verdict"] for check in report["checks"]}
    assert verdicts["nano parity"] == verdicts["recall"] == "passed"
    assert verdicts["published answers"] == "not made"
    assert verdicts["speed"] == "measured"
    assert report["failed"] == []
    assert report["model"]["release"] == "nano"
    assert report["engine"]["mlx_version"]
    assert report["memory"] > 0

    text = markdown(report)
    assert set(CHECKS) < set(rows(text))
    assert "not asked: nano is another model" in text
    assert text.endswith("No check failed.")
    assert str(home) not in text


@pytest.mark.nano
def test_a_spoiled_model_ends_with_exit_code_2(capfd, model):
    """Weights that are drawn at random instead: every number is fine, what it says is not."""
    noise = np.random.default_rng(0)
    spoil(model, "lm_head.weight", lambda w: (noise.standard_normal(w.shape) / 16).astype(w.dtype))

    code, out, err = answer(capfd, "--model", model)

    assert code == 2
    assert rows(out)["recall"][0] == "failed"
    assert rows(out)["nano parity"][0] == "passed"  # of the bundled one
    assert out.endswith("Failed: recall.\n")
    assert "private" not in out
    assert "Traceback" not in err


@pytest.mark.nano
def test_logits_that_are_no_numbers_are_told_and_the_other_checks_are_made(capfd, model):
    spoil(model, "model.norm.weight", lambda w: np.full(w.shape, 3e38, np.float32))

    code, out, _ = answer(capfd, "--model", model)

    assert code == 2
    verdict, said = rows(out)["recall"]
    assert verdict == "failed"
    assert "not all numbers" in said
    assert rows(out)["speed"][0] == "measured"


def test_weights_that_are_no_numbers_are_one_line(capfd, model):
    spoil(model, "model.norm.weight", lambda w: w * np.float16(np.nan))

    code, out, err = answer(capfd, "--model", model)

    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "norm.weight holds values that are no numbers" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--model", "scripted:x.jsonl"), 1, "is a script, not a checkpoint"),
        (("--model", "/nowhere"), 2, "no model directory /nowhere"),
        (("--model", "a/b"), 2, "neither a pulled model nor a directory"),
        (("--model", "nano", "more"), 1, "unrecognized arguments: more"),
        (("--modell",), 1, "unrecognized arguments"),
    ],
)
def test_what_cannot_be_meant_is_one_line(capfd, arguments, code, words):
    got, out, err = answer(capfd, *arguments)

    assert (got, out) == (code, "")
    assert words in err
    assert err.count("\n") == 1


def test_a_model_that_does_not_load_is_one_line(capfd, model):
    file = model / "model.safetensors"
    os.truncate(file, file.stat().st_size - 100)

    code, out, err = answer(capfd, "--model", model)

    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "model.safetensors" in err


def test_a_name_stays_within_its_cell():
    finding = {"check": "recall", "verdict": "failed", "said": "a | b\n# c\x1b[31m \\| d"}
    model = {
        "name": "x|y\u202e", "release": "V4", "layers": 1, "hidden_size": 2, "experts": 3,
        "layout": {"F16": 10}, "recipe": "q2", "fingerprint": "f" * 64,
    }  # fmt: skip
    facts = doctor.EngineFacts("0.32", "cpu", "blas", 2, 5.0, "blas", 60.0, True, "a processor")
    report = {
        "ds4_agent": "1", "python": "3", "platform": "x", "processor": "p", "cores": 2,
        "memory": 10**9, "engine": asdict(facts), "model": model, "checks": [finding],
        "failed": ["recall"],
    }  # fmt: skip

    text = markdown(report)

    assert "\x1b" not in text
    assert "\u202e" not in text
    assert r"x\|y" in text
    assert sum(line.startswith("| recall") for line in text.splitlines()) == 1
    assert "recipe q2" in text


@pytest.mark.nano
def test_ctrl_c_ends_it_at_once(home):
    """While it computes: no report, no traceback, exit code 130."""
    code = (
        "import os, signal, sys\n"
        "from ds4_agent.agent.cli import main\n"
        "from ds4_agent.engine.checkup import recall\n"
        "made = recall.check_recall\n"
        "def check(*arguments, **options):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return made(*arguments, **options)\n"
        "recall.check_recall = check\n"
        "sys.exit(main(['doctor', '--model']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        timeout=60,
        env={**os.environ, "DS4_HOME": str(home)},
    )

    assert (done.returncode, done.stdout) == (128 + signal.SIGINT, b"")
    assert b"Traceback" not in done.stderr
