"""A checkpoint's own draft layer behind the same interface: a random one guesses badly, and changes
no token."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ds4_agent.engine.api import Sampling
from ds4_agent.engine.context import ModelContext
from ds4_agent.engine.errors import ModelFormatError
from ds4_agent.engine.local import ModelEngine, with_guesses
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.state import evaluate
from ds4_agent.engine.speculative import layer as layer_module
from ds4_agent.engine.speculative.layer import LayerDrafter
from ds4_agent.engine.speculative.pace import Pace
from ds4_agent.engine.weights.draft import draft_kind, load_draft
from ds4_agent.engine.weights.tensors import TensorFiles

FILE = "model.safetensors"
HIDDEN, HEADS, HEAD, LOW, WIDE, EXPERTS = 64, 4, 32, 32, 32, 4  # of `write_tiny`


def mtp_tensors(seed=9):
    """The tensors of the preview's draft layer, by their official names."""
    rng = np.random.default_rng(seed)
    shapes = {
        "e_proj.weight": (HIDDEN, HIDDEN),
        "h_proj.weight": (HIDDEN, HIDDEN),
        "attn.wq_a.weight": (LOW, HIDDEN),
        "attn.wq_b.weight": (HEADS * HEAD, LOW),
        "attn.wkv.weight": (HEAD, HIDDEN),
        "attn.wo_a.weight": (2 * 16, HEADS * HEAD // 2),
        "attn.wo_b.weight": (HIDDEN, 2 * 16),
        "attn.attn_sink": (HEADS,),
        "ffn.gate.weight": (EXPERTS, HIDDEN),
        "ffn.gate.bias": (EXPERTS,),
        "hc_head_fn": (4, 4 * HIDDEN),
        "hc_head_base": (4,),
        "hc_head_scale": (1,),
    }
    for part in ("attn", "ffn"):
        shapes |= {f"hc_{part}_fn": (24, 4 * HIDDEN), f"hc_{part}_base": (24,)}
        shapes[f"hc_{part}_scale"] = (3,)
    for owner in ("shared_experts", *(f"experts.{e}" for e in range(EXPERTS))):
        for name in ("w1", "w3"):
            shapes[f"ffn.{owner}.{name}.weight"] = (WIDE, HIDDEN)
        shapes[f"ffn.{owner}.w2.weight"] = (HIDDEN, WIDE)
    norms = {"enorm": HIDDEN, "hnorm": HIDDEN, "norm": HIDDEN, "attn_norm": HIDDEN,
             "ffn_norm": HIDDEN, "attn.q_norm": LOW, "attn.kv_norm": HEAD}  # fmt: skip
    tensors = {name: rng.normal(0, 0.2, shape) for name, shape in shapes.items()}
    tensors |= {f"{name}.weight": 1 + rng.normal(0, 0.1, n) for name, n in norms.items()}
    return {f"mtp.0.{name}": tensor.astype(np.float32) for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def drafting(write_tiny, tmp_path_factory):
    """A tiny checkpoint with a draft layer."""
    directory = write_tiny(tmp_path_factory.mktemp("drafting") / "model")
    save_file({**load_file(directory / FILE), **mtp_tensors()}, directory / FILE)
    return directory


@pytest.fixture(scope="module")
def drafting_engine(drafting):
    engine = ModelEngine(drafting)
    yield engine
    engine.close()


def loaded(drafting, engine, in_numpy):
    """(the engine's runtime computing in numpy or in MLX, the draft layer for it)."""

    def load():
        model = engine.runtime.model
        if not in_numpy:
            model = Model(model.config, model.parameters, in_numpy=False)
        return replace(engine.runtime, model=model), load_draft(drafting, model)

    return engine.runtime.worker.call(load)


def decode(runtime, prompt, sampling, count=60):
    context = ModelContext(runtime)
    context.extend(prompt)
    return list(context.sample(sampling=sampling, grammar=None, max_tokens=count))


@pytest.mark.parametrize("in_numpy", [True, False], ids=["numpy", "mlx"])
@pytest.mark.parametrize("sampling", [Sampling(0.0), Sampling(1.0, top_p=0.9, seed=4)])
def test_a_random_layer_changes_no_token(drafting, drafting_engine, prompt, in_numpy, sampling):
    runtime, layer = loaded(drafting, drafting_engine, in_numpy)
    expected = [token.id for token in decode(runtime, prompt(90), sampling)]

    tokens = decode(with_guesses(runtime, Pace("on"), layer), prompt(90), sampling)

    assert [token.id for token in tokens] == expected
    assert sum(token.drafted for token in tokens) > 60


def test_long_after_its_last_guess_it_goes_on(drafting, drafting_engine, prompt, monkeypatch):
    """Passes it did not guess for are not kept for ever."""
    monkeypatch.setattr(layer_module, "MOST_SEEN", 4)
    runtime, layer = loaded(drafting, drafting_engine, in_numpy=True)
    drafter = LayerDrafter(layer, runtime.worker, runtime.vocabulary)
    ids = prompt(12)

    def streams():
        trail = runtime.model.pass_over(ids, runtime.model.init_state())
        return trail.streams

    seen = runtime.worker.call(streams)
    for place in range(11):
        drafter.saw(place, seen[place : place + 1], 1)
        assert len(drafter._streams) <= 4
    drafted = drafter.propose(ids).draft(3)

    assert len(drafted) == 3
    assert all(0 <= token < runtime.vocabulary for token in drafted)
    assert drafter.propose([*ids, 5]) is None


@pytest.mark.parametrize("in_numpy", [True, False], ids=["numpy", "mlx"])
def test_however_its_input_is_cut_the_layer_guesses_alike(drafting, drafting_engine, in_numpy):
    runtime, layer = loaded(drafting, drafting_engine, in_numpy)
    ids = np.random.default_rng(3).integers(16, 2048, 40).tolist()

    def compute():
        trail = runtime.model.pass_over(ids, runtime.model.init_state())
        trail.evaluate()
        whole = layer.step(ids[1:], trail.streams[:-1], layer.model.init_state())
        evaluate(whole[0], whole[2])
        state, lines = layer.model.init_state(), []
        for place in range(39):
            streams = trail.streams[place : place + 1]
            logits, _, state = layer.step(ids[place + 1 : place + 2], streams, state)
            evaluate(logits, state)
            lines.append(np.array(logits))
        return np.array(whole[0]), lines[-1]

    one, other = runtime.worker.call(compute)
    assert np.abs(one - other).max() <= 2e-5
    assert np.abs(one).max() > 0.1


def test_speculate_on_takes_the_layer_along(drafting, prompt):
    engine = ModelEngine(drafting, speculate="on")
    plain = ModelEngine(drafting)
    greedy = Sampling(0.0)
    tokens = decode(engine.runtime, prompt(90), greedy)

    assert [t.id for t in tokens] == [t.id for t in decode(plain.runtime, prompt(90), greedy)]
    assert "draft layer" in engine.speculation
    engine.close()
    plain.close()


def test_what_a_checkpoint_brings_is_recognised(tiny, drafting, drafting_engine, tmp_path):
    stages = {"mtp.0.main_proj.weight": np.ones((64, 192), np.float32)}
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    save_file({**load_file(tiny / FILE), **stages}, tmp_path / FILE)

    assert [draft_kind(TensorFiles(d)) for d in (tiny, drafting, tmp_path)] == ["", "mtp", "dspark"]
    model = drafting_engine.runtime.model
    assert drafting_engine.runtime.worker.call(load_draft, tmp_path, model) is None


def test_a_damaged_layer_is_one_line(drafting, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((drafting / name).read_bytes())
    tensors = load_file(drafting / FILE)
    del tensors["mtp.0.h_proj.weight"]
    save_file(tensors, tmp_path / FILE)

    with pytest.raises(ModelFormatError, match=r"mtp\.0\.h_proj\.weight is missing"):
        ModelEngine(tmp_path, speculate="on")
