"""What shows only while a model is loaded or runs: files that change meanwhile, weights that hold
numbers and give none. One line each, and no thread is left."""

import os
import shutil
import threading

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ds4_agent.engine.api import Sampling
from ds4_agent.engine.errors import EngineError, ModelFormatError
from ds4_agent.engine.open import open_engine

LAYERS = 4
GREEDY = Sampling(temperature=0.0)
WEIGHTS = "model.safetensors"


@pytest.fixture
def copy(write_tiny, tmp_path):
    return write_tiny(tmp_path / "copy")


def exchanged(directory):
    """Another file of the same size takes its place, as a download ends."""
    shutil.copy(directory / WEIGHTS, directory / "new")
    os.replace(directory / "new", directory / WEIGHTS)


def rewritten(directory):
    """The same file, written over, with its old size."""
    content = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(content)
    os.utime(directory / WEIGHTS, ns=(1, 1))  # a coarse clock must not hide it


def cut(directory):
    os.truncate(directory / WEIGHTS, 5000)


def removed(directory):
    (directory / WEIGHTS).unlink()


@pytest.mark.parametrize("after", [1, LAYERS, LAYERS + 1])
@pytest.mark.parametrize("change", [exchanged, rewritten, cut, removed])
def test_weights_that_change_while_they_are_loaded(copy, change, after):
    """Behind the first layer, before the ends and behind all."""
    calls, threads = [], threading.active_count()

    def on_load(*_):
        calls.append(1)
        if len(calls) == after:
            change(copy)

    with pytest.raises(ModelFormatError) as caught:
        open_engine(str(copy), on_load=on_load)
    line = str(caught.value)
    assert "\n" not in line
    assert str(copy / WEIGHTS) in line
    assert "changed while the model was being loaded" in line
    assert threading.active_count() == threads


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_other_files_that_change_while_the_weights_are_loaded(copy, name):
    def on_load(*_):
        (copy / name).write_text((copy / name).read_text() + " ")

    with pytest.raises(ModelFormatError, match=f"{name} changed while the model was being loaded"):
        open_engine(str(copy), on_load=on_load)


def test_weights_whose_products_are_no_numbers(copy):
    """Each is finite, so that it loads; the first token that would be drawn says what is wrong."""
    tensors = load_file(copy / WEIGHTS)
    tensors["lm_head.weight"] = np.full_like(tensors["lm_head.weight"], 3e38)
    save_file(tensors, copy / WEIGHTS)
    engine = open_engine(str(copy))
    try:
        context = engine.new_context()
        context.extend([5, 6])
        with pytest.raises(EngineError, match="not finite; its weights are damaged") as caught:
            next(iter(context.sample(sampling=GREEDY, grammar=None, max_tokens=1)))
        assert "\n" not in str(caught.value)
    finally:
        engine.close()
