"""Calibration records, by official name, the mean squares of what each product of the model is
given, and the file it is kept in gives back the same or one clear line."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.errors import EngineError, ModelFormatError
from ds4_agent.engine.model import experts
from ds4_agent.engine.model.packed import Observed
from ds4_agent.engine.weights.calibrate import PRIOR_ROWS, collect_importance
from ds4_agent.engine.weights.checkpoint import load_model
from ds4_agent.engine.weights.importance import Importance, read_importance, write_importance

IDS = [int(i) for i in np.random.default_rng(0).integers(3, 60, 300)]


@pytest.fixture
def model(official):
    return load_model(official.write())


def matrices(model, official):
    """Official names and shapes of everything a recipe may quantise."""
    wanted = (
        ".wq_a.",
        ".wkv.weight",
        ".wq_b.",
        ".wo_a.",
        ".wo_b.",
        ".w1.",
        ".w2.",
        ".w3.",
        "head.w",
    )
    return {
        name: tensor.shape
        for name, tensor in official.tensors.items()
        if any(part in name for part in wanted) and "compressor" not in name
    }


def test_every_product_of_a_recipe_has_its_importance(model, official):
    importance = collect_importance(model, [IDS])
    shapes = matrices(model, official)
    assert len(shapes) > 50
    for name, shape in shapes.items():
        counts = importance.of(name, shape)
        assert counts is not None, name
        spread = np.array(mx.broadcast_to(counts, shape))
        assert np.isfinite(spread).all(), name
        assert (spread >= 0).all(), name
        assert spread.any(), name
    assert importance.of("embed.weight", (8, 8)) is None
    assert importance.of("mtp.0.attn.wq_a.weight", (8, 8)) is None


def test_the_output_is_that_of_the_model_alone(model):
    plain, _ = model.logits_all(IDS, model.init_state())
    seen = []

    def watched(parameters):
        head = Observed(parameters.head, lambda rows, _: seen.append(len(rows)))
        return replace(parameters, head=head)

    observed, _ = model.changed(watched).logits_all(IDS, model.init_state())
    assert np.array_equal(np.array(plain), np.array(observed))
    assert sum(seen) == len(IDS)


def test_means_are_those_of_the_inputs(model):
    """The head's inputs can be had from the logits where the head is a matrix one can invert by
    least squares; chunks, windows and threads change nothing but the last bits."""
    windows = [IDS[:200], IDS[200:]]
    importance = collect_importance(model, windows)
    head = np.array(model._parameters.head, dtype=np.float64)
    squares = []
    for ids in windows:
        logits, _ = model.logits_all(ids, model.init_state())
        inputs = np.linalg.lstsq(head, np.array(logits, dtype=np.float64).T, rcond=None)[0].T
        squares.append(inputs**2)
    expected = np.concatenate(squares).mean(axis=0)
    assert np.allclose(importance.means["head.weight"], expected, rtol=1e-3)
    assert importance.rows["head.weight"] == len(IDS)


def test_an_expert_is_known_by_what_reaches_it(model):
    """All tokens' rows are the experts' rows together; an expert never reached has the layer's."""
    importance = collect_importance(model, [IDS])
    k, config = model.config.num_experts_per_tok, model.config
    for layer in range(config.num_hidden_layers):
        stack = f"layers.{layer}.ffn.experts.gate_up_proj.weight"
        assert importance.rows[stack].sum() == k * len(IDS)
    # Of hash-routed layers the table says who comes.
    layer = config.hash_routed.index(True)
    table = model._parameters.layers[layer].experts.table
    counts = np.bincount(table[IDS].reshape(-1), minlength=config.n_routed_experts)
    stack = f"layers.{layer}.ffn.experts.gate_up_proj.weight"
    assert np.array_equal(importance.rows[stack], counts)
    one = [token for token in range(len(table)) if 0 not in table[token]][:1] * 8
    few = collect_importance(model, [one])
    assert few.rows[stack][0] == 0
    own, rows = few.means[stack].astype(np.float64), few.rows[stack][:, None]
    sums = own * (rows + PRIOR_ROWS) - PRIOR_ROWS * own[0]  # expert 0 has the layer's mean
    assert np.allclose(sums.sum(axis=0) / rows.sum(), own[0], rtol=1e-4)


def test_a_gpu_gathers_the_same(model, monkeypatch):
    """Few tokens and many take other ways there, which MLX can go here, too."""
    for count in (experts.SORTED_TOKENS - 1, 20):
        expected = collect_importance(model, [IDS[:count]])
        with monkeypatch.context() as patch:
            patch.setattr(experts, "on_cpu", lambda: False)
            patch.setattr("ds4_agent.engine.model.model.on_cpu", lambda: False)
            found = collect_importance(model, [IDS[:count]])
        assert found.means.keys() == expected.means.keys()
        for name, means in expected.means.items():
            assert np.array_equal(found.rows[name], expected.rows[name]), name
            assert np.allclose(found.means[name], means, rtol=1e-3, atol=1e-6), name


def test_groups_and_stacks_have_rows_of_their_own():
    means = {
        "layers.0.attn.wo_a.weight": np.array([[1, 2], [3, 4]], np.float32),
        "layers.0.ffn.experts.down_proj.weight": np.array([[5, 6], [7, 8]], np.float32),
    }
    rows = {name: np.array([1, 1]) for name in means}
    importance = Importance(means, rows)

    def of(name, *shape):
        return np.array(importance.of(name, shape)).tolist()

    assert of("layers.0.attn.wo_a.weight", 4, 2) == [[1, 2], [1, 2], [3, 4], [3, 4]]
    assert of("layers.0.attn.wo_a.weight", 2, 9, 2) == [[[1, 2]], [[3, 4]]]
    assert of("layers.0.ffn.experts.1.w2.weight", 9, 2) == [[7, 8]]
    assert of("layers.0.ffn.experts.down_proj.weight", 2, 9, 2) == [[[5, 6]], [[7, 8]]]
    for name, shape in (
        ("layers.0.attn.wo_a.weight", (4, 3)),
        ("layers.0.ffn.experts.2.w2.weight", (9, 2)),
        ("layers.0.ffn.experts.down_proj.weight", (3, 9, 2)),
    ):
        with pytest.raises(ModelFormatError, match="another size"):
            importance.of(name, shape)


def test_a_file_gives_back_what_was_written(model, tmp_path):
    importance = collect_importance(model, [IDS[:50]])
    path = tmp_path / "importance.safetensors"
    write_importance(path, importance)
    found = read_importance(path)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [path.name]
    for mine, theirs in ((importance.means, found.means), (importance.rows, found.rows)):
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_a_file_that_cannot_be_meant_is_one_line(model, tmp_path):
    path = tmp_path / "importance.safetensors"
    mx.save_safetensors(str(path), {"a": mx.zeros((2,))})
    with pytest.raises(ModelFormatError, match="no importance file"):
        read_importance(path)
    means, rows = {"head.weight": np.array([1, np.nan], np.float32)}, {"head.weight": np.array(3)}
    write_importance(path, Importance(means, rows))
    with pytest.raises(ModelFormatError, match="damaged"):
        read_importance(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFormatError, match="truncated"):
        read_importance(path)
    with pytest.raises(ModelFormatError, match="cannot be read"):
        read_importance(tmp_path / "none")
    with pytest.raises(EngineError, match="cannot write"):
        write_importance(tmp_path / "none" / "x", Importance(means, rows))
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [path.name]
