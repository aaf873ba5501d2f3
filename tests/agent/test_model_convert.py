"""`model convert --calibrate`: what it rounds is nearer to the source on text it has not seen, a
stopped one goes on, and what cannot be meant is one line."""

import json
import signal

import pytest

from ds4_agent.agent.cli import main
from ds4_agent.agent.sample_text import calibration_ids, verification_ids
from ds4_agent.engine.dsml.segments import BOS
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.engine.errors import Cancelled, ConversionError, DestinationError, MemoryLimitError
from ds4_agent.engine.machine import Machine
from ds4_agent.engine.model.prefill import chunk_spans
from ds4_agent.engine.open import NANO
from ds4_agent.engine.weights.calibration import IMPORTANCE, by_file, by_text
from ds4_agent.engine.weights.convert import convert
from ds4_agent.engine.weights.manifest import read_manifest
from ds4_agent.engine.weights.recipe import RECIPES

pytestmark = pytest.mark.nano


def answer(capsys, *words):
    code = main(["model", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def windows(count):
    tokenizer = Tokenizer.from_file(NANO / "tokenizer.json")
    return [[tokenizer.control(BOS), *calibration_ids(tokenizer)[:count]]]


def text_of(path, ids):
    tokenizer = Tokenizer.from_file(NANO / "tokenizer.json")
    path.write_text(tokenizer.decode(ids))
    return path


def test_calibrated_is_nearer_to_the_source_than_rounding_to_the_nearest(capsys, tmp_path):
    """On chapters of the handbook that it was not calibrated with."""
    tokenizer = Tokenizer.from_file(NANO / "tokenizer.json")
    seen = text_of(tmp_path / "seen", calibration_ids(tokenizer)[:5000])
    unseen = text_of(tmp_path / "unseen", verification_ids(tokenizer)[2000:2600])
    far = {}
    for name, options in (("nearest", ()), ("calibrated", ("--calibrate", seen))):
        made = tmp_path / name
        code, _, err = answer(capsys, "convert", "nano", made, "--recipe", "q2", *options)
        assert code == 0, err
        beside = ("--against", "nano", "--text", unseen, "--json")
        code, out, _ = answer(capsys, "verify", made, *beside)
        assert code == 0
        far[name] = json.loads(out)["against"]["kl"]
    assert far["calibrated"] < 0.85 * far["nearest"]


def test_what_was_calibrated_is_kept_when_the_rest_is_stopped(tmp_path):
    made, times = tmp_path / "made", []
    calibration = by_text("some text", windows(300))

    def make(source, follow):
        times.append(source)
        return calibration.make(source, follow)

    def stop(progress):
        if progress.stage == "converting":
            raise Cancelled("stopped")

    counted = type(calibration)(calibration.name, calibration.digest, make)
    with pytest.raises(Cancelled):
        convert(NANO, made, RECIPES["q2"], calibration=counted, on_progress=stop)
    assert not (made / "config.json").exists()
    assert read_manifest(made).command(made).endswith("--recipe q2 --calibrate 'some text'")
    with pytest.raises(DestinationError, match="another recipe or calibration"):
        convert(NANO, made, RECIPES["q2"])
    convert(NANO, made, RECIPES["q2"], calibration=counted)
    assert times == [NANO]
    whole = tmp_path / "whole"
    convert(NANO, whole, RECIPES["q2"], calibration=by_file(made / IMPORTANCE, "it"))
    for path in whole.glob("model-*"):
        assert path.read_bytes() == (made / path.name).read_bytes()


def test_a_stop_while_the_text_runs_leaves_nothing(tmp_path):
    def stop(progress):
        if progress.stage == "calibrating":
            raise Cancelled("stopped")

    calibration = by_text("text", windows(300))
    with pytest.raises(Cancelled):
        convert(NANO, tmp_path / "made", RECIPES["q2"], calibration=calibration, on_progress=stop)
    assert not (tmp_path / "made").exists()


def test_an_interrupt_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    """In the middle of the text; the same command again makes it whole."""
    text = text_of(tmp_path / "text", windows(900)[0][1:])
    words = ("convert", "nano", tmp_path / "made", "--recipe", "q2", "--calibrate", text)
    with monkeypatch.context() as patch:
        patch.setattr("ds4_agent.engine.weights.calibrate.chunk_spans", interrupting)
        code, out, err = answer(capsys, *words)
    assert (code, out) == (130, "")
    assert "goes on where it stopped" in err
    assert answer(capsys, *words)[0] == 0


def interrupting(start, end, chunk):
    for span in chunk_spans(start, end, chunk):
        signal.raise_signal(signal.SIGINT)
        yield span


def test_a_model_that_does_not_fit_is_calibrated_elsewhere(tmp_path, monkeypatch):
    small = Machine(memory=16 << 20, usable=8 << 20)
    monkeypatch.setattr("ds4_agent.engine.weights.checkpoint.this_machine", lambda: small)
    with pytest.raises(MemoryLimitError, match=f"larger machine and give the {IMPORTANCE}"):
        convert(NANO, tmp_path / "made", RECIPES["q2"], calibration=by_text("x", windows(300)))
    assert not (tmp_path / "made").exists()


def test_room_for_the_importance_is_counted(tmp_path):
    needed = []
    for calibration in (None, by_text("x", windows(300))):
        with pytest.raises(ConversionError) as refused:
            convert(
                NANO, tmp_path / "made", RECIPES["q2"], calibration=calibration, free=lambda _: 0
            )
        needed.append(float(str(refused.value).split("takes ")[1].split()[0]))
    assert needed[1] >= needed[0]


def test_what_cannot_be_meant_is_one_line(capsys, tmp_path):
    (tmp_path / "latin").write_bytes(b"\xe9t\xe9")
    (tmp_path / "short").write_text("a word")
    (tmp_path / "foreign.safetensors").write_bytes((NANO / "model.safetensors").read_bytes())
    for recipe, named, exit_code, words in (
        ("q2", tmp_path / "none", 1, "cannot be read"),
        ("q2", tmp_path / "latin", 1, "not UTF-8"),
        ("q2", tmp_path / "short", 2, "calibration needs"),
        ("q2", tmp_path / "foreign.safetensors", 2, "no importance file"),
        ("q2", tmp_path / "none.safetensors", 2, "cannot be read"),
        ("native", "handbook", 1, "rounds nothing"),
    ):
        made = tmp_path / "made"
        code, out, err = answer(
            capsys, "convert", "nano", made, "--recipe", recipe, "--calibrate", named
        )
        assert (code, out) == (exit_code, ""), named
        assert words in err
        assert err.count("\n") == 1
        assert not made.exists()
