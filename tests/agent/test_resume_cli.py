"""-c, -r and --fork on the command line, with real processes and the real small model."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

Ds4 = Callable[..., SimpleNamespace]


def sessions(home: Path) -> list[Path]:
    return sorted((home / "data/sessions").glob("2*"), key=lambda path: path.stat().st_mtime_ns)


def one(home: Path) -> Path:
    (only,) = sessions(home)
    return only


def test_c_goes_on_with_the_latest_session_here(
    ds4: Ds4, play: SimpleNamespace, home: Path
) -> None:
    assert ds4([play.say("One.")], "-p", "one").code == 0

    done = ds4([play.say("Two.", expect="two")], "-c", "-p", "two")

    assert (done.code, done.out) == (0, "Two.\n")
    assert "resumed: 1 turn" in done.err
    assert "One." not in done.err
    one(home)


def test_c_without_a_session_here_says_so(ds4: Ds4, play: SimpleNamespace, home: Path) -> None:
    done = ds4([play.say("x")], "-c", "-p", "two")
    assert done.code == 1
    assert "there is no session in " in done.err
    assert not sessions(home)


@pytest.mark.parametrize("name", ["id", "beginning", "title"])
def test_r_takes_an_id_its_beginning_or_a_title(
    ds4: Ds4, play: SimpleNamespace, home: Path, name: str
) -> None:
    ds4([play.say("One.")], "-p", "paint the doors")
    ds4([play.say("Other.")], "-p", "wash the car")
    first = min(sessions(home), key=lambda path: path.name)
    [first] = [s for s in sessions(home) if "paint" in (s / "events.jsonl").read_text()]
    word = {"id": first.name, "beginning": first.name[:-2], "title": "Paint the doors"}[name]

    done = ds4([play.say("Two.")], "-r", word, "-p", "two", "--output-format", "json")

    assert (done.code, json.loads(done.out)["session_id"]) == (0, first.name)


def test_r_without_a_screen_needs_a_name_and_lists_what_there_is(
    ds4: Ds4, play: SimpleNamespace, home: Path
) -> None:
    ds4([play.say("One.")], "-p", "paint the doors")
    done = ds4([play.say("x")], "-p", "go on", "-r")
    assert done.code == 1
    assert f"{one(home).name} (paint the doors)" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["-r", "nothing"], ["-c", "-r", "x"], ["-c", "--fork", "x"]])
def test_what_cannot_be_meant_ends_in_one_line(
    ds4: Ds4, play: SimpleNamespace, home: Path, arguments: list[str]
) -> None:
    ds4([play.say("One.")], "-p", "one")
    done = ds4([play.say("x")], *arguments, "-p", "two")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    one(home)


@pytest.mark.parametrize("flags", [["-c", "--fork"], ["--fork", "ID"], ["-r", "ID", "--fork"]])
def test_fork_goes_on_in_a_copy(
    ds4: Ds4, play: SimpleNamespace, home: Path, flags: list[str]
) -> None:
    ds4([play.say("One.")], "-p", "one")
    old = one(home)
    before = (old / "tokens.jsonl").read_bytes()
    words = [old.name if flag == "ID" else flag for flag in flags]

    done = ds4([play.say("Two.")], "-p", "two", *words, "--output-format", "json")

    assert done.code == 0
    assert json.loads(done.out)["session_id"] != old.name
    assert (old / "tokens.jsonl").read_bytes() == before
    assert len(sessions(home)) == 2


def test_a_session_goes_on_in_its_own_directory(
    ds4: Ds4, play: SimpleNamespace, home: Path, repo: Path, script
) -> None:
    ds4([play.say("One.")], "-p", "one")
    model = script(play.say("Two."))
    words = ["--model", model, "-p", "two", "-r", one(home).name, "--output-format", "stream-json"]
    out, _ = ds4_process(*words).communicate(timeout=60)
    assert json.loads(out.splitlines()[0])["cwd"] == str(repo)


def ds4_process(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ds4_agent.agent.cli", *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("after", ["prompt", "sampling", "call"])
def test_a_killed_turn_is_gone_on_from(
    ds4: Ds4, play: SimpleNamespace, home: Path, repo: Path, script, after: str
) -> None:
    slow = play.call("bash", command="echo begun > begun; sleep 60")
    steps = {
        "prompt": [play.say("never " * 50, delay_ms=60_000)],
        "sampling": [play.say("word " * 3000, delay_ms=2)],
        "call": [slow],
    }[after]
    process = ds4_process("-C", str(repo), "--model", script(*steps), "-p", "do it")
    try:
        deadline = time.monotonic() + 60
        while not begun(after, home, repo):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    expect = "stopped before this call ended" if after == "call" else "and now"
    done = ds4([play.say("Here again.", expect=expect)], "-c", "-p", "and now?")

    assert (done.code, done.out) == (0, "Here again.\n"), done.err
    assert ds4([play.say("Still.")], "-c", "-p", "still?").out == "Still.\n"
    one(home)


def begun(after: str, home: Path, repo: Path) -> bool:
    if after == "call":
        return (repo / "begun").exists()
    log = next(iter((home / "data/sessions").glob("2*/tokens.jsonl")), None)
    wanted = '"kind":"sampled"' if after == "sampling" else '"kind":"control"'
    return log is not None and wanted in log.read_text()


def test_a_session_in_use_is_refused_with_a_way_out(
    ds4: Ds4, play: SimpleNamespace, home: Path, repo: Path, script
) -> None:
    model = script(play.say("never " * 50, delay_ms=60_000))
    process = ds4_process("-C", str(repo), "--model", model, "-p", "do it")
    try:
        while not begun("prompt", home, repo):
            time.sleep(0.02)
        done = ds4([play.say("x")], "-c", "-p", "more")
        assert done.code == 1
        assert f"--fork {one(home).name} goes on in a copy" in done.err
        assert len(done.err.splitlines()) == 1
        assert ds4([play.say("A copy.")], "-c", "--fork", "-p", "more").out == "A copy.\n"
    finally:
        process.kill()
        process.communicate()


def test_greedy_words_are_those_of_a_session_never_interrupted(
    make_agent, home: Path, play: SimpleNamespace
) -> None:
    from ds4_agent.agent.choose import Choice

    prompts = ["set retries to 5 in src/client.py", "run the tests", "rename retries to tries"]
    whole = make_agent(model="nano", permission_mode="plan")
    for prompt in prompts:
        list(whole.run(prompt))
    ids = list(whole.context.tokens)
    whole.close()
    agent = make_agent(model="nano", permission_mode="plan")
    directory = home / "data/sessions" / agent.identity.session_id
    for index, prompt in enumerate(prompts):
        if index:
            agent.close()
            agent = make_agent(model="nano", permission_mode="plan", resumes=Choice(directory))
        list(agent.run(prompt))

    assert list(agent.context.tokens) == ids


def test_another_model_reads_the_conversation_as_text(
    ds4: Ds4, make_agent, play: SimpleNamespace, home: Path
) -> None:
    from ds4_agent.agent import events as ev
    from ds4_agent.agent.choose import Choice

    ds4([play.call("read", path="Makefile"), play.say("It tests.")], "-p", "what is in it?")
    resumed = make_agent(model="nano", permission_mode="plan", resumes=Choice(one(home)))

    events = list(resumed.run("set retries to 5 in src/client.py"))

    notices = [e.text for e in events if isinstance(e, ev.Notice)]
    assert any("as text since it was another model's (scripted:" in text for text in notices)
    text = resumed._transcript.tokenizer.decode(list(resumed.context.tokens))
    assert text.index("what is in it?") < text.index("3 passed") < text.index("It tests.")
    resumed.close()
    again = make_agent(model="nano", permission_mode="plan", resumes=Choice(one(home)))
    assert list(again.context.tokens) == list(resumed.context.tokens)
