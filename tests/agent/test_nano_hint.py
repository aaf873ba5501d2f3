"""The first run's hint: two lines that fit the smallest screen, by the machine's memory."""

import pytest

from ds4_agent.agent.nano_hint import GIB, nano_hint
from ds4_agent.engine.machine import system_memory


@pytest.mark.parametrize(
    ("gib", "says"),
    [
        (0, "V4 Flash needs 96 GB"),
        (16, "16 GB holds small ones; V4 Flash needs 96 GB"),
        (128, "128 GB holds V4 Flash in 2 bits"),
        (512, "512 GB holds V4 Flash in MXFP4"),
    ],
)
def test_it_says_which_real_model_the_memory_holds(gib: int, says: str) -> None:
    what, real = nano_hint(gib * GIB).split("\n")
    assert "nano" in what
    assert "--model DIR" in real
    assert says in real
    assert max(len(what), len(real)) <= 78


def test_this_machine_says_its_memory() -> None:
    assert system_memory() > GIB // 4
