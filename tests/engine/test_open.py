"""Opening an engine: by name or directory, with the right defaults, or with one clear line."""

import json
import threading

import pytest

from ds4_agent.engine.api import Sampling
from ds4_agent.engine.errors import EngineError, ModelFormatError
from ds4_agent.engine.local import ModelEngine
from ds4_agent.engine.open import NANO, open_engine

needs_nano = pytest.mark.skipif(
    not (NANO / "model.safetensors").is_file(), reason="the nano model is not trained yet"
)


def change(directory, **keys):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


@pytest.fixture
def copy(write_tiny, tmp_path):
    return write_tiny(tmp_path / "copy")


def test_a_directory_opens_with_the_defaults_of_a_published_model(tiny):
    seen = []
    engine = open_engine(str(tiny), on_load=lambda p: seen.append((p.done, p.total)))

    assert engine.model_name == "model"
    assert engine.context_length == 4096
    assert (engine.default_thinking, engine.default_profile) == ("low", "lean")
    assert engine.default_sampling == Sampling(temperature=1.0, top_p=0.95)
    assert engine.tokenizer.vocab_size == 2048
    assert seen[-1][0] == seen[-1][1]
    engine.close()


def test_a_config_that_says_nano_opens_with_the_defaults_of_nano(copy):
    change(copy, ds4_nano=True)
    engine = open_engine(str(copy))

    assert (engine.model_name, engine.default_thinking) == ("nano", "off")
    assert (engine.default_profile, engine.default_sampling.temperature) == ("nano", 0.0)
    engine.close()


def test_the_context_length_can_be_chosen_up_to_what_the_model_takes(tiny):
    engine = open_engine(str(tiny), context_length=100)
    assert engine.context_length == 100
    engine.close()

    with pytest.raises(EngineError, match=r"--ctx 4,097 is more than the 4,096 tokens"):
        open_engine(str(tiny), context_length=4097)
    with pytest.raises(EngineError, match="--ctx 0 is not a number of tokens"):
        open_engine(str(tiny), context_length=0)


def test_the_fingerprint_tells_weights_apart(tiny, write_tiny, tmp_path):
    prints = []
    for directory in (
        tiny,
        write_tiny(tmp_path / "same"),
        write_tiny(tmp_path / "other", seed=2),
    ):
        engine = open_engine(str(directory))
        prints.append(engine.fingerprint)
        engine.close()

    assert prints[0] == prints[1] != prints[2]


def test_a_closed_engine_says_so_and_leaves_no_thread(tiny):
    engine = open_engine(str(tiny))
    context = engine.new_context()
    before = threading.active_count()
    engine.close()
    engine.close()

    assert threading.active_count() == before - 1
    with pytest.raises(EngineError, match="the engine is closed"):
        context.extend([5])


def test_a_failed_opening_leaves_no_thread(copy):
    before = threading.active_count()
    (copy / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelFormatError):
        open_engine(str(copy))

    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda d: (d / "config.json").unlink(), "config.json"),
        (lambda d: (d / "config.json").write_text("{"), "config.json"),
        (lambda d: (d / "model.safetensors").unlink(), "safetensors"),
        (lambda d: (d / "tokenizer.json").unlink(), "tokenizer.json: No such file"),
        (lambda d: (d / "tokenizer.json").write_text("{}"), "tokenizer.json"),
        (lambda d: change(d, hidden_size=128), "model.safetensors: model.layers.0."),
        (lambda d: change(d, model_type="llama"), "llama"),
    ],
)
def test_a_damaged_directory_is_one_line_that_names_it(copy, damage, says):
    damage(copy)
    with pytest.raises(ModelFormatError) as caught:
        open_engine(str(copy))

    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_one_line_that_names_it(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ModelFormatError, match=r"model\.safetensors"):
        open_engine(str(copy))


def test_a_tokenizer_of_another_model_is_refused(copy, write_tiny, tmp_path):
    small = write_tiny(tmp_path / "small", vocab_size=1000)

    with pytest.raises(
        ModelFormatError, match=r"tokenizer.json has 2,048 ids and config.json 1,000"
    ):
        open_engine(str(small))


@pytest.mark.parametrize("spec", ["no-such-model", "/no/such/dir"])
def test_an_unknown_model_says_what_can_be_given(spec):
    with pytest.raises(
        ModelFormatError, match=f"no readable model directory {spec}; give a directory"
    ):
        open_engine(spec)


def test_a_gguf_file_is_refused_with_what_would_work(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelFormatError, match=r"GGUF file.*deepseek-ai/DeepSeek-V4-Flash-0731"):
        open_engine(str(path))


def test_a_file_is_no_model_directory(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"12345678")

    with pytest.raises(ModelFormatError, match="no readable model directory"):
        open_engine(str(path))


def test_a_missing_bundled_model_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("ds4_agent.engine.open.NANO", tmp_path / "nano")

    with pytest.raises(EngineError, match="install ds4-agent again, or name a checkpoint"):
        open_engine(None)


def test_an_interrupt_while_loading_stops_at_the_next_layer_and_leaves_no_thread(tiny):
    before = threading.active_count()

    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ModelEngine(tiny, on_load=interrupt)
    assert threading.active_count() == before


@needs_nano
@pytest.mark.parametrize("spec", [None, "nano"])
def test_the_bundled_model_is_the_default(spec):
    engine = open_engine(spec)

    assert (engine.model_name, engine.default_profile) == ("nano", "nano")
    engine.close()
