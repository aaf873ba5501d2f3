"""The files of a checkpoint are read whole, and every fault of one is told in a line of its own."""

import json

import numpy as np
import pytest

from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.open import NANO
from ds4_agent.engine.weights import soundness
from ds4_agent.engine.weights.soundness import examine_files


def test_the_bundled_model_is_sound():
    told = []
    found = examine_files(NANO, lambda *done: told.append(done))
    size = (NANO / "model.safetensors").stat().st_size
    assert (found.files, found.bytes, found.faults) == (1, size, ())
    assert found.tensors > 100
    assert told == [(size, size)]


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_float_that_is_no_number(dialects, tmp_path, monkeypatch, dtype, value):
    monkeypatch.setattr(soundness, "_PIECE", 7)
    types = {"F64": np.float64, "F16": np.float16}
    values = np.zeros((3, 10), types.get(dtype, np.float32))
    last = np.finfo(np.float16).max if dtype == "F16" else 3e38
    values[0] = last  # the largest numbers are numbers
    spoiled = values.copy()
    spoiled[2, 9] = value
    for array, faults in ((values, 0), (spoiled, 1)):
        stored = (array.view(np.uint32) >> 16).astype(np.uint16) if dtype == "BF16" else array
        dialects.write_raw(tmp_path / "model.safetensors", {"a": (dtype, stored)})
        found = examine_files(tmp_path).faults
        assert len(found) == faults
        assert all(fault.endswith("a holds values that are no numbers") for fault in found)


@pytest.mark.parametrize(
    ("name", "dtype", "code", "words"),
    [
        ("a.weight", "F8_E4M3", 0x7F, 0),
        ("a.weight", "F8_E4M3", 0xFF, 0),
        ("a.weight", "F8_E5M2", 0x7C, 0),
        ("a.scale", "F8_E8M0", 255, 0),
        ("a.scales", "U8", 255, 16),  # mxfp4: one of 32 values, in four words
        ("a.scales", "U8", 255, 32),  # mxfp8
        ("a.scales", "U8", 0xFF, 8),  # nvfp4: one of 16 values, in two words
        ("a.scales", "U8", 0x7F, 8),
    ],
)
def test_a_code_that_is_no_number(dialects, tmp_path, name, dtype, code, words):
    sound = np.full((2, 4), 0x30, np.uint8)
    spoiled = sound.copy()
    spoiled[1, 3] = code
    for codes, faults in ((sound, 0), (spoiled, 1)):
        tensors = {name: (dtype, codes)}
        if words:
            tensors["a.weight"] = ("U32", np.full((2, words), 0xFFFFFFFF, np.uint32))
        dialects.write_raw(tmp_path / "model.safetensors", tensors)
        found = examine_files(tmp_path).faults
        assert len(found) == faults
        assert all(f"{name} holds values" in fault for fault in found)


def test_index_and_files_have_to_agree(checkpoint):
    directory = checkpoint.write_shards(3)
    assert examine_files(directory).faults == ()
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    places = index["weight_map"]
    names = sorted(places)
    files = sorted(set(places.values()))
    elsewhere = next(file for file in files if file != places[names[0]])
    before = places.pop(names[1])
    places[names[0]], own = elsewhere, places[names[0]]
    path.write_text(json.dumps(index))
    assert set(examine_files(directory).faults) == {
        f"{path} names {names[0]} in {elsewhere}, which does not hold it",
        f"{path} does not name {names[0]} of {own}",
        f"{path} does not name {names[1]} of {before}",
    }


def test_a_shard_cut_off_is_a_fault_and_the_others_are_read(checkpoint):
    directory = checkpoint.write_shards(3)
    first, second, _ = sorted(directory.glob("model-*.safetensors"))
    data = bytearray(second.read_bytes())
    data[-4:] = np.array([np.nan], np.float32).tobytes()
    second.write_bytes(data)
    first.write_bytes(first.read_bytes()[:-10])
    cut, spoiled = examine_files(directory).faults
    assert cut.startswith(f"{first} is truncated")
    assert spoiled.startswith(f"{second}: ")
    assert spoiled.endswith("no numbers")


def test_no_files_at_all(tmp_path):
    with pytest.raises(ModelFormatError, match="no model directory"):
        examine_files(tmp_path / "none")
    with pytest.raises(ModelFormatError, match=r"holds no \*.safetensors"):
        examine_files(tmp_path)
