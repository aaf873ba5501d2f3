"""The release of a checkpoint is told from its own files, whatever its directory is called, and
decides how it thinks and how it is sampled where the user says nothing."""

import json

import pytest

from ds4_agent.engine.api import Sampling
from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.open import NANO
from ds4_agent.engine.version import NANO_VERSION, read_version, version_of

LAYERS = {"num_hidden_layers": 43}
BACKBONE = [0, 0] + [4, 128] * 20 + [4]
DSPARK = {"dspark_block_size": 5, "dspark_target_layer_ids": [40, 41, 42]}


@pytest.mark.parametrize(
    ("config", "tensors", "name"),
    [
        # As published.
        (
            LAYERS | DSPARK | {"compress_ratios": [*BACKBONE, 0, 0, 0]},
            ["mtp.2.norm.weight"],
            "0731",
        ),
        (LAYERS | {"compress_ratios": [*BACKBONE, 0]}, ["mtp.0.e_proj.weight"], "preview"),
        # Repacked, without the draft layers, or with a prefix.
        (LAYERS | DSPARK, [], "0731"),
        (LAYERS | {"compress_ratios": [*BACKBONE, 0, 0, 0]}, [], "0731"),
        (LAYERS | {"compress_ratios": [*BACKBONE, 0]}, [], "preview"),
        (LAYERS, ["language_model.mtp.0.main_proj.weight"], "0731"),
        # Another's config: the tensors are what there is.
        (LAYERS | DSPARK, ["mtp.0.e_proj.weight"], "preview"),
    ],
)
def test_the_release_is_told_from_tensors_and_config(config, tensors, name):
    assert version_of(config, tensors).name == f"V4 Flash {name}"


def test_what_tells_nothing_is_taken_for_the_later_release():
    version = version_of(LAYERS, ["layers.0.attn_norm.weight"])

    assert version.name == "V4"
    assert (version.thinking, version.sampling) == ("low", Sampling(temperature=1.0, top_p=0.95))


def test_a_level_of_thinking_is_what_the_release_was_trained_with():
    later = version_of(LAYERS | DSPARK, [])
    preview = version_of(LAYERS, ["mtp.0.e_proj.weight"])

    assert later.efforts == {"off": None, "low": "low", "high": "high", "max": "max"}
    assert preview.efforts == {"off": None, "high": "low", "max": "high"}  # plain, and one text
    assert (later.thinking, preview.thinking) == ("low", "high")
    assert NANO_VERSION.efforts == {"off": None}


def test_the_bundled_model_is_greedy_and_does_not_think():
    version = read_version(NANO)

    assert version is NANO_VERSION
    assert (version.thinking, version.sampling.temperature) == ("off", 0.0)


@pytest.mark.parametrize(
    ("wish", "sampling"),
    [
        ({"temperature": 1.0, "top_p": 1.0}, Sampling(1.0, 0.95)),  # published: for a plain chat
        ({"temperature": 0.6, "top_p": 0.9, "min_p": 0.05}, Sampling(0.6, 0.9, 0.05)),
        ({"eos_token_id": 1}, Sampling(1.0, 0.95)),
        ({"do_sample": False, "temperature": 0.6}, Sampling(0.0)),
    ],
)
def test_a_makers_own_sampling_is_respected(write_tiny, tmp_path, wish, sampling):
    directory = write_tiny(tmp_path / "DeepSeek-V4-Flash-preview")
    (directory / "generation_config.json").write_text(json.dumps(wish))

    version = read_version(directory)
    assert version.sampling == sampling
    assert version.name == "V4"  # whatever the directory is called


@pytest.mark.parametrize("text", ['{"temperature": "hot"}', '{"top_p": 1.5}', "{", "[]"])
def test_a_damaged_generation_config_is_one_line(write_tiny, tmp_path, text):
    directory = write_tiny(tmp_path / "model")
    (directory / "generation_config.json").write_text(text)

    with pytest.raises(ModelFormatError, match=r"generation_config\.json") as caught:
        read_version(directory)
    assert "\n" not in str(caught.value)
