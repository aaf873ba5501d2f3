"""How long a session takes to go on is told beforehand, from what is on the disk."""

import json
from pathlib import Path

import pytest

from ds4_agent.agent.choose import Choice
from ds4_agent.agent.places import find_places
from ds4_agent.agent.resume_time import resume_times, shown_time
from ds4_agent.engine.kvstore.disk import Disk
from ds4_agent.sessions.catalogue import list_sessions
from ds4_agent.sessions.summary import Summary


def session(name: str, tokens: int, rate: float = 0.0, model: str = "f") -> Summary:
    return Summary(name, fingerprint=model, tokens=tokens, prefill_rate=rate)


def test_what_is_kept_takes_as_long_as_reading_it(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 1 << 30)
    disk.put("r/rows", "a" * 40, [bytes(50_000_000)])
    disk.put("r/places", f"000000999-a-{'0' * 40}", [b'{"rows": ["%s"]}\n' % (b"a" * 40)])
    disk.close()

    times = resume_times([session("s", 1000, 10.0), session("t", 500, 10.0)], tmp_path)

    assert times["s"] == pytest.approx(0.1, rel=0.01)
    assert times["t"] == 50.0


def test_what_is_not_kept_takes_as_long_as_its_model_needs(tmp_path: Path) -> None:
    """Where a session says nothing of it, the last of the same model does."""
    sessions = [
        session("new", 600),
        session("fast", 1000, 200.0),
        session("slow", 1000, 100.0),
        session("other", 1000, model="g"),
        session("empty", 0, 100.0),
    ]
    times = resume_times(sessions, tmp_path / "nothing")
    assert times == {"new": 3.0, "fast": 5.0, "slow": 10.0, "other": None, "empty": None}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0.01, "~0.1 s"), (0.44, "~0.4 s"), (9.94, "~9.9 s"), (9.96, "~10 s"),
        (99.6, "~2 min"), (600.0, "~10 min"),
    ],
)  # fmt: skip
def test_it_is_shown_as_an_estimate(seconds: float | None, text: str) -> None:
    assert shown_time(seconds) == text


def test_a_session_of_a_model_says_how_fast_it_was_and_is_found_in_the_store(
    make_agent, home: Path
) -> None:
    agent = make_agent(model="nano", permission_mode="plan")
    list(agent.run("read src/client.py"))
    agent.close()
    places = find_places({"DS4_HOME": str(home)})

    (summary,) = list_sessions(places.sessions)

    assert summary.prefill_rate > 0
    kept = resume_times([summary], places.kv)[summary.id]
    computed = resume_times([summary], home / "nothing")[summary.id]
    assert kept is not None
    assert computed == pytest.approx(max(0.01, summary.tokens / summary.prefill_rate))
    assert kept <= computed
    log = places.sessions / summary.id / "events.jsonl"
    results = [json.loads(line) for line in log.read_text().splitlines() if '"result"' in line]
    assert results[-1]["prefill_rate"] == summary.prefill_rate
    resumed = make_agent(resumes=Choice(places.sessions / summary.id))
    assert "0 to compute" not in str(resumed.replay()[1])
