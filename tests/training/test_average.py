"""The mean of checkpoints is a checkpoint."""

import pytest

torch = pytest.importorskip("torch")

from training.average import average  # noqa: E402


def test_weights_are_averaged_and_tables_kept():
    first = {"w": torch.tensor([1.0, 3.0]).half(), "table": torch.tensor([1, 2])}
    second = {"w": torch.tensor([2.0, 5.0]).half(), "table": torch.tensor([1, 2])}

    mean = average([first, second])

    assert mean["w"].dtype == torch.float16
    assert mean["w"].tolist() == [1.5, 4.0]
    assert mean["table"].tolist() == [1, 2]
