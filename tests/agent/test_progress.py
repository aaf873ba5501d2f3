"""Long work says how far it is at a reader's pace, and leaves nothing on a terminal."""

import io

import pytest

from ds4_agent.agent.progress import LoadLine, Pace, ProgressLine, load_text, shown_time
from ds4_agent.engine.api import LoadProgress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_is_over_at_once_says_nothing(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ProgressLine(after=1.0, clock=clock)
    clock.now += 0.9
    line.show(lambda: pytest.fail("the text is not even made"))
    line.close()
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_a_line_is_added_now_and_then(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ProgressLine(after=1.0, clock=clock)
    for second in range(12):
        clock.now += 1.0
        line.show(lambda second=second: f"{second} of 12")
    line.close()
    assert capsys.readouterr() == ("", "0 of 12\n5 of 12\n10 of 12\n")


def test_on_a_terminal_the_line_is_written_over_and_taken_away(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    line = ProgressLine(clock=clock)
    line.show(lambda: "one\nand \x1b[31mtwo" + 100 * "x")
    line.close()
    line.close()

    drawn, wiped = terminal.getvalue().split("\r\x1b[K")[1:]
    assert len(drawn) <= 39
    assert "\n" not in drawn
    assert "\x1b" not in drawn
    assert wiped == ""


def test_a_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    pace = Pace(clock=clock)
    assert pace.text(10) == ""
    for second in range(60):
        clock.now += 1.0
        pace.note(second * 1_000_000 if second < 30 else 30_000_000 + (second - 30) * 4_000_000)
    assert pace.text(40_000_000) == ", 4.0 MB/s, ETA 10 s"


def test_loading_is_told_in_layers_and_bytes() -> None:
    progress = LoadProgress(12, 44, 41_200_000_000, 151_500_000_000)
    assert load_text(progress) == "loading model 12/44 layers, 41.2 GB of 151.5 GB"


def test_a_model_that_is_there_at_once_is_not_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    line = LoadLine()
    line(LoadProgress(1, 1, 10, 10))
    line.close()
    assert capsys.readouterr().err == ""


def test_a_long_load_says_its_speed_and_its_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    line = LoadLine(clock)
    for layer in range(1, 12):
        clock.now += 1.0
        line(LoadProgress(layer, 44, layer * 4_000_000_000, 176_000_000_000))
    line.close()
    assert capsys.readouterr().err.splitlines()[1] == (
        "loading model 6/44 layers, 24.0 GB of 176.0 GB, 4.0 GB/s, ETA 38 s"
    )


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_a_time_as_people_say_it(seconds: float, shown: str) -> None:
    assert shown_time(seconds) == shown
