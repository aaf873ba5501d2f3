"""What is measured of a model on a text is what its logits say, token by token, however the text is
cut; and beside another model the distance is that of their distributions."""

import tempfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ds4_agent.engine import quality
from ds4_agent.engine.errors import EngineError, ModelFormatError
from ds4_agent.engine.open import NANO
from ds4_agent.engine.quality import measure, windows_of
from ds4_agent.engine.weights.checkpoint import load_model

IDS = np.random.default_rng(0).integers(3, 2000, 500).tolist()


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """nano with noise on the matrix that gives its logits."""
    directory = tmp_path_factory.mktemp("noisy")
    tensors = load_file(NANO / "model.safetensors")
    noise = np.random.default_rng(1).standard_normal(tensors["lm_head.weight"].shape)
    tensors["lm_head.weight"] += (0.02 * noise).astype(np.float16)
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_bytes((NANO / "config.json").read_bytes())
    return directory


def log_p(directory, windows):
    """[tokens, vocab] fp64 of all tokens that have a next one, each window at once."""
    model = load_model(directory)
    logits = [np.array(model.logits_all(ids[:-1], model.init_state())[0]) for ids in windows]
    rows = np.concatenate(logits).astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


def test_it_is_what_the_logits_say(other, monkeypatch):
    monkeypatch.setattr(quality, "WINDOW", 200)
    monkeypatch.setattr(quality, "CHUNK", 33)
    windows = windows_of(IDS, 0)
    assert [ids[0] for ids in windows] == [0, 0, 0]
    assert [token for ids in windows for token in ids[1:]] == IDS
    assert max(map(len, windows)) == 200
    counted = []
    found = measure(other, windows, NANO, on_tokens=lambda *done: counted.append(done))
    mine, theirs = log_p(other, windows), log_p(NANO, windows)
    rows = np.arange(len(IDS))
    assert found.tokens == len(IDS)
    assert found.perplexity == pytest.approx(np.exp(-mine[rows, IDS].mean()), rel=1e-4)
    assert found.source_perplexity == pytest.approx(np.exp(-theirs[rows, IDS].mean()), rel=1e-4)
    kl = (np.exp(theirs) * (theirs - mine)).sum(axis=1).mean()
    assert kl > 0.01
    assert found.divergence == pytest.approx(kl, rel=1e-3)
    same = (theirs.argmax(axis=1) == mine.argmax(axis=1)).mean()
    assert 0.5 < same < 1
    assert found.agreement == pytest.approx(same, abs=0.005)
    assert counted[-1] == (2 * len(IDS), 2 * len(IDS))


def test_a_model_is_no_distance_from_itself():
    windows = windows_of(IDS[:100], 0)
    found = measure(NANO, windows, NANO)
    assert (found.divergence, found.agreement) == (0.0, 1.0)
    assert found.perplexity == found.source_perplexity == measure(NANO, windows).perplexity


def test_what_cannot_be_compared_is_one_line(tmp_path, monkeypatch):
    config = (NANO / "config.json").read_text().replace('"vocab_size": 2048', '"vocab_size": 64')
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelFormatError, match="one vocabulary"):
        measure(tmp_path, windows_of(IDS, 0), NANO)
    with pytest.raises(EngineError, match="no text"):
        measure(NANO, windows_of([], 0))
    monkeypatch.setattr(quality, "_SPARE", 1 << 60)
    with pytest.raises(EngineError, match=r"comparing needs .* GB in .*; make room"):
        measure(NANO, windows_of(IDS, 0), NANO)
    monkeypatch.setattr(quality, "_SPARE", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(EngineError, match=r"cannot write to .*gone: No such file"):
        measure(NANO, windows_of(IDS, 0), NANO)


def test_it_can_be_stopped_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 8:  # while it reads the text: nano has six layers and ends
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(NANO, windows_of(IDS, 0), NANO, stop=stop)
    assert list(tmp_path.iterdir()) == []
