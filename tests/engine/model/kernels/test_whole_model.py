"""A whole model computed with the kernels gives what it gives without, and costs a CPU nothing."""

import subprocess
import sys
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from ds4_agent.engine.model import experts, model, prefill, tiles
from ds4_agent.engine.model.kernels.choose import choose
from ds4_agent.engine.model.kernels.trials import kernels
from ds4_agent.engine.model.kernels.verdicts import Verdicts
from ds4_agent.engine.model.model import Model

TOLERANCE = 5e-5  # of logits of unit size
# Decoding begins just before a block of 128 rows of the csa layer is full (at 512 tokens), and
# the hca layer gets a row of its own on the way.
PROMPT, DECODED = 505, 14


@pytest.fixture
def with_kernels(emulator, monkeypatch):
    """`with_kernels(model)`: (the model in MLX without kernels, with all of them)."""

    def convert(cpu_model):
        for module in (experts, model, prefill, tiles):
            monkeypatch.setattr(module, "on_cpu", lambda: False)
        config, parameters = cpu_model.config, cpu_model.parameters
        all_kernels = kernels(emulator)
        chosen = choose(all_kernels, config, mx.float32, Verdicts(None, ""))
        assert all(verdict.is_used for verdict in chosen.verdicts)
        emulator.launched.clear()
        return Model(config, parameters), Model(config, parameters, operations=chosen.operations)

    return convert


def test_prefill_and_decode_with_every_kernel(mixed, run, with_kernels, emulator):
    pure, own = map(run, with_kernels(mixed.model))
    ids = (mixed.prompt * 2)[: PROMPT + DECODED]
    sizes = [200, 64, PROMPT - 264, *[1] * DECODED]

    expected, before = pure.pieces(ids, sizes)
    given, after = own.pieces(ids, sizes)

    assert np.abs(given - expected).max() <= TOLERANCE
    assert pure.greedy(expected[-1], before, 4) == own.greedy(given[-1], after, 4)
    names = {name.partition("_rows_")[0] for name in emulator.launched}
    assert names >= {"read_streams", "write_streams", "index_scores", "attend_piece"}
    assert any(name.startswith("top_rows") for name in emulator.launched)
    assert any(name.startswith("taken_rows") for name in emulator.launched)


def test_a_few_guessed_tokens_in_one_pass(mixed, run, with_kernels):
    """The check of drafted ids: more queries than one, few enough for the kernels."""
    pure, own = map(run, with_kernels(mixed.model))
    sizes = [445, 5]

    expected, _ = pure.pieces(mixed.prompt, sizes)
    given, _ = own.pieces(mixed.prompt, sizes)

    assert np.abs(given - expected).max() <= TOLERANCE


def test_a_wrong_kernel_would_show(mixed, run, with_kernels):
    """The comparison above can fail."""
    pure, own = with_kernels(mixed.model)
    operations = own._operations

    def wrong(*arguments):
        return 1.01 * operations.attend_pieces(*arguments)

    spoilt = Model(own.config, own.parameters, operations=replace(operations, attend_pieces=wrong))
    expected, _ = run(pure).pieces(mixed.prompt[:40], [39, 1])
    given, _ = run(spoilt).pieces(mixed.prompt[:40], [39, 1])

    assert np.abs(given - expected).max() > TOLERANCE


def test_a_cpu_is_spared_the_kernels():
    """Opening nano on a CPU imports neither their trials nor what reads their sources."""
    if mx.metal.is_available():
        pytest.skip("there is Metal here")
    code = (
        "import sys; from ds4_agent.engine.open import open_engine\n"
        "open_engine('nano').close()\n"
        "print(*(name for name in sys.modules if '.model.kernels.' in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert {name.rpartition(".")[2] for name in done.stdout.split()} == {"chosen", "machine"}
