"""A State is a value: an old one keeps its meaning, a newer one shares its finished blocks, and
nothing in it is left to compute."""

import dataclasses
import io
import itertools

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.errors import TokenRangeError
from ds4_agent.engine.local import ModelEngine
from ds4_agent.engine.model import rows as rows_module
from ds4_agent.engine.model.model import Model
from ds4_agent.engine.model.prefill import chunk_spans, prefill
from ds4_agent.engine.model.rows import FULL_ROWS, OPEN_ROWS, Rows, block_sizes


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks that a short prompt fills: 32 rows, 128 tokens of CSA."""
    monkeypatch.setattr(rows_module, "OPEN_ROWS", 8)
    monkeypatch.setattr(rows_module, "FULL_ROWS", 32)


def histories(state):
    """Every Rows of a state."""
    found = [rows for layer in state.layers for rows in (layer.rows, layer.index_rows)]
    return [rows for rows in found if rows is not None]


def is_lazy(arrays):
    """Whether evaluating them would still compute something: their graph has an operation."""
    text = io.StringIO()
    mx.export_to_dot(text, *arrays)
    return "shape=rectangle" in text.getvalue()


def bits(state):
    return [np.array(leaf).tobytes() for leaf in state.leaves()]


def test_full_blocks_are_the_same_objects_in_a_newer_state(mixed, small_blocks):
    model, prompt = mixed.model, mixed.prompt
    _, older = prefill(model, prompt[:300], model.init_state(), chunk=100)
    _, newer = prefill(model, prompt[300:], older, chunk=37)

    shared = 0
    for old, new in zip(histories(older), histories(newer), strict=True):
        assert len(new.full) >= len(old.full)
        assert all(a is b for a, b in zip(old.full, new.full, strict=False))
        shared += len(old.full)
    assert shared >= 4  # rows and index rows of two CSA layers


def test_a_token_copies_neither_full_nor_growing_blocks(mixed, small_blocks):
    model, prompt = mixed.model, mixed.prompt
    _, older = prefill(model, prompt[:300], model.init_state())  # 75 rows: 64 full, 8, 3 open
    _, newer = prefill(model, prompt[300:304], older)

    for old, new in zip(histories(older), histories(newer), strict=True):
        assert all(a is b for a, b in zip(old.growing, new.growing, strict=True))
        assert all(a is b for a, b in zip(old.full, new.full, strict=True))


def test_an_older_state_gives_the_same_logits_after_newer_ones(mixed, small_blocks):
    model, prompt = mixed.model, mixed.prompt
    _, older = prefill(model, prompt[:200], model.init_state())
    before, _ = prefill(model, prompt[200:210], older)
    for part in (prompt[210:], prompt[:100], prompt[50:60]):
        prefill(model, part, older, chunk=64)

    after, _ = prefill(model, prompt[200:210], older)

    assert mx.array_equal(before, after)


def test_going_on_changes_no_bit_of_a_state(mixed):
    model, prompt = mixed.model, mixed.prompt
    _, older = prefill(model, prompt[:131], model.init_state())
    leaves, contents = older.leaves(), bits(older)

    prefill(model, prompt[131:], older, chunk=50)

    assert all(a is b for a, b in zip(leaves, older.leaves(), strict=True))
    assert bits(older) == contents


def test_a_state_cannot_be_assigned_to(mixed):
    state = mixed.model.init_state()
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.position = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.layers[0].window = state.layers[1].window
    assert isinstance(state.layers, tuple)


@pytest.fixture
def engine(write_tiny, tmp_path):
    engine = ModelEngine(write_tiny(tmp_path / "model"))
    yield engine
    engine.close()


def test_checkpoint_rewind_and_fork_of_a_context_keep_the_very_state(engine):
    """They take a reference. No array is made, however long the context."""
    context = engine.new_context()
    context.extend(list(range(16, 216)))
    checkpoint = context.checkpoint()
    fork = context.fork()
    context.extend(list(range(300, 350)))

    context.rewind(checkpoint)

    assert context.checkpoint().state is checkpoint.state
    assert fork.checkpoint().state is checkpoint.state
    assert all(
        a is b
        for a, b in zip(
            context.checkpoint().state.leaves(), fork.checkpoint().state.leaves(), strict=True
        )
    )


@pytest.mark.parametrize("chunk", [1, 5, 128])
def test_every_leaf_is_evaluated_after_prefill(golden, small_blocks, chunk):
    """Where MLX computes; numpy leaves nothing for later."""
    assert is_lazy([mx.zeros(1), mx.zeros(1) + 1]), "the probe must see a lazy leaf"
    model = Model(golden.model.config, golden.model._parameters, in_numpy=False)
    reached = []

    prefill(
        model,
        golden.prompt[:140],
        prefill(model, golden.prompt[:120], model.init_state())[1],
        chunk=chunk,
        on_chunk=lambda _, state: reached.append(is_lazy(state.leaves())) or len(reached) < 12,
    )

    assert reached
    assert not any(reached)


def test_the_first_state_is_evaluated_and_empty(golden):
    state = golden.model.init_state()

    assert state.position == 0
    assert not is_lazy(state.leaves())
    assert all(rows.length == 0 for rows in histories(state))


def test_a_state_holds_what_its_fields_say(golden):
    config, length = golden.model.config, 390
    _, state = prefill(golden.model, golden.prompt[:length], golden.model.init_state(), chunk=77)

    assert state.position == length
    for kind, layer in zip(config.layer_kinds, state.layers, strict=True):
        window = min(length, config.sliding_window - 1)
        assert layer.window.shape == (window, config.head_dim)
        if kind == "sliding":
            assert (layer.pending, layer.rows, layer.index_rows) == (None, None, None)
        elif kind == "hca":
            assert layer.rows.length == length // 128
            assert layer.pending.shape == (length % 128, 2 * config.head_dim)
        else:
            width = 4 * (config.head_dim + config.index_head_dim)
            assert layer.rows.length == layer.index_rows.length == length // 4
            assert layer.pending.shape == (4 + length % 4, width)


def test_rows_keep_every_value_in_blocks_of_the_real_size():
    rng = np.random.default_rng(1)
    whole = mx.array(np.arange(3 * FULL_ROWS, dtype=np.float32)[:, None])
    rows, start, seen = Rows.empty(1, mx.float32), 0, []
    while start < whole.shape[0]:
        size = int(rng.choice([1, 32, 700, OPEN_ROWS, FULL_ROWS + 5]))
        rows = rows.append(whole[start : start + size])
        start += size
        assert all(a is b for a, b in zip(seen, rows.full, strict=False))
        growing = [len(block) // OPEN_ROWS for block in rows.growing]
        assert all(len(block) % OPEN_ROWS == 0 for block in rows.growing)
        assert all(count & (count - 1) == 0 for count in growing)
        assert growing == sorted(set(growing), reverse=True)
        assert sum(growing) * OPEN_ROWS < FULL_ROWS
        assert len(rows.open) < OPEN_ROWS
        blocks = (*rows.full, *rows.growing, rows.open)
        assert [len(block) for block in blocks] == block_sizes(rows.length)
        seen = rows.full

    assert rows.length == whole.shape[0]
    assert mx.array_equal(mx.concatenate(rows.blocks()), whole)
    cut = rows.slice(FULL_ROWS - 3, 2 * FULL_ROWS + 9)
    assert mx.array_equal(cut[:, 0], mx.arange(FULL_ROWS - 3, 2 * FULL_ROWS + 9))
    assert rows.slice(5, 5).shape == (0, 1)


@pytest.mark.parametrize("chunk", [1, 127, 128, 129, 512, 700])
@pytest.mark.parametrize("position", [0, 1, 127, 300])
def test_spans_cover_the_tokens_and_end_on_blocks(chunk, position):
    spans = list(chunk_spans(position, 1500, chunk))

    assert spans[0][0] == 0
    assert spans[-1][1] == 1500
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert all(0 < stop - start <= chunk for start, stop in spans)
    if chunk >= 128:
        assert all((position + stop) % 128 == 0 for _, stop in spans[:-1])


@pytest.mark.parametrize("wrong", [-1, 97, 10**12])
def test_an_id_out_of_range_is_named(mixed, wrong):
    with pytest.raises(TokenRangeError, match=f"token id {wrong} is not in the vocabulary of 97"):
        mixed.model([3, wrong, 5], mixed.model.init_state())


def test_no_tokens_are_refused(mixed):
    with pytest.raises(TokenRangeError, match="at least one token"):
        mixed.model([], mixed.model.init_state())
