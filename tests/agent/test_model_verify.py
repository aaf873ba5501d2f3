"""`model verify`: what it says of a model, and when it ends with exit code 2."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ds4_agent.agent.cli import main
from ds4_agent.agent.sample_text import VERIFIED, calibration_ids, verification_ids
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.engine.machine import Machine
from ds4_agent.engine.open import NANO

pytestmark = pytest.mark.nano


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("The model reads the name, the type hints and the docstring.\n" * 20)
    return path


@pytest.fixture
def model(tmp_path):
    """A directory of the bundled model, to be spoiled."""
    directory = tmp_path / "model"
    shutil.copytree(NANO, directory)
    return directory


def answer(capsys, *arguments):
    code = main(["model", "verify", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def spoil(directory, change):
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def test_it_says_what_there_is(capsys, text):
    code, out, _ = answer(capsys, "nano", "--text", text)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("files              1 with ")
    assert any(line.startswith("values") and "every one is a number" in line for line in lines)
    assert any(line.startswith("perplexity") and str(text) in line for line in lines)


def test_a_model_beside_its_source(capsys, model, text):
    spoil(model, lambda tensors: tensors["lm_head.weight"].__imul__(np.float16(0.9)))
    code, out, _ = answer(capsys, model, "--against", "nano", "--text", text, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["faults"] == []
    assert found["tokens"] > 100
    assert found["against"]["directory"] == str(NANO)
    assert 0 < found["against"]["kl"] < 1
    assert found["against"]["same_first"] == 1.0  # the logits' order is the same
    assert found["perplexity"] != found["against"]["perplexity"]
    code, out, _ = answer(capsys, model, "--against", "nano", "--text", text)
    assert "KL from it" in out
    assert "100.0%" in out


def test_a_fault_is_told_and_nothing_is_measured(capsys, model, text):
    spoil(model, lambda tensors: tensors["model.norm.weight"].__setitem__(3, np.nan))
    code, out, _ = answer(capsys, model, "--text", text)
    assert code == 2
    assert "model.norm.weight holds values that are no numbers" in out
    assert "perplexity" not in out
    code, out, _ = answer(capsys, model, "--json")
    assert code == 2
    assert json.loads(out)["perplexity"] is None


def test_what_cannot_be_meant_is_one_line(capsys, tmp_path, model, text):
    (tmp_path / "latin").write_bytes(b"\xe9t\xe9")
    (tmp_path / "empty").write_text("")
    (model / "tokenizer.json").unlink()
    for arguments, exit_code, words in (
        (("nano", "--text", tmp_path / "none"), 1, "cannot be read"),
        (("nano", "--text", tmp_path / "latin"), 1, "not UTF-8"),
        (("nano", "--text", tmp_path / "empty"), 2, "no text"),
        (("nano", "--against", tmp_path / "none"), 2, "no model directory"),
        ((tmp_path,), 2, "holds no *.safetensors"),
        ((model, "--text", text), 2, "tokenizer.json"),
    ):
        code, out, err = answer(capsys, *arguments)
        assert (code, out) == (exit_code, ""), arguments
        assert words in err
        assert err.count("\n") == 1


def test_a_model_without_room_is_still_looked_through(capsys, monkeypatch, text):
    """Nobody asked for figures then; who did gets the refusal."""

    small = Machine(memory=16 << 20, usable=8 << 20)
    monkeypatch.setattr("ds4_agent.engine.weights.checkpoint.this_machine", lambda: small)
    code, out, _ = answer(capsys, "nano")
    assert code == 0
    assert "every one is a number" in out
    assert "not measured       " in out
    assert "perplexity" not in out
    code, out, err = answer(capsys, "nano", "--text", text)
    assert (code, out) == (2, "")
    assert f"{NANO} needs" in err


def test_no_passage_is_calibrated_and_measured():
    tokenizer = Tokenizer.from_file(NANO / "tokenizer.json")
    calibrated, verified = calibration_ids(tokenizer), verification_ids(tokenizer)
    assert len(calibrated) > 15_000
    assert 0.9 * VERIFIED < len(verified) <= VERIFIED
    size = 24
    known = {tuple(calibrated[i : i + size]) for i in range(len(calibrated) - size)}
    shared = [tuple(verified[i : i + size]) in known for i in range(len(verified) - size)]
    assert sum(shared) < 0.05 * len(shared)  # a few phrases and headings recur
