"""`ds4-agent -p`: what stands on stdout and stderr, the exit codes, and how it ends on a signal."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from ds4_agent.agent import events as ev
from ds4_agent.agent.lines import Lines

Ds4 = Callable[..., SimpleNamespace]
EDIT = {"path": "src/client.py", "old": "retries = 3", "new": "retries = 5"}


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_answer_is_on_stdout_and_the_activity_on_stderr(
    ds4: Ds4, play: SimpleNamespace
) -> None:
    steps = [play.calls(("edit", EDIT), text="I will edit."), play.say("Replaced it.")]
    done = ds4(steps, "-p", "go")
    assert (done.code, done.out) == (0, "Replaced it.\n")
    assert "I will edit." in done.err
    assert "edit src/client.py" in done.err
    assert "Edited src/client.py: 1 replacement, line 3" in done.err


def test_json_is_one_object(ds4: Ds4, play: SimpleNamespace) -> None:
    done = ds4([play.call("edit", **EDIT), play.say("Ok.")], "-p", "go", "--output-format", "json")
    result = json.loads(done.out)
    assert done.code == 0
    assert (result["type"], result["subtype"], result["is_error"]) == ("result", "success", False)
    assert (result["result"], result["num_turns"]) == ("Ok.", 2)
    assert result["usage"]["prefilled_tokens"] == result["usage"]["input_tokens"] > 0
    assert result["session_id"]


def test_stream_json_tells_the_run_a_line_at_a_time(ds4: Ds4, play: SimpleNamespace) -> None:
    steps = [
        play.calls(("edit", EDIT), text="Thinking</think>Now."),
        play.call("bash", command="ls"),
        play.say("Hm</think>Ok."),
    ]
    steps[1] = {"text": "x</think>" + steps[1]["text"]}
    options = ("--output-format", "stream-json", "--think", "low", "--disallowed-tools", "bash")
    done = ds4(steps, "-p", "go", *options)
    told = lines(done.out)
    assert told[0]["type"] == "system"
    assert told[0]["tools"][0] == "read"
    assert told[-1]["type"] == "result"
    kinds = [line["message"]["content"][0]["type"] for line in told if "message" in line]
    assert kinds == ["thinking", "tool_result", "thinking", "tool_result", "thinking"]
    (first, *_) = (line for line in told if line["type"] == "assistant")
    text, use = first["message"]["content"][1:]
    assert text == {"type": "text", "text": "Now."}
    assert (use["name"], use["input"]) == ("edit", EDIT)
    assert {line["event"] for line in told if line["type"] == "engine"} >= {"prefill", "step"}
    (decided,) = (line for line in told if line["type"] == "approval")
    assert (decided["tool"], decided["decision"], decided["source"]) == ("bash", "deny", "rule")


@pytest.fixture
def schema() -> Callable[[str], None]:
    jsonschema = pytest.importorskip("jsonschema")
    text = files("ds4_agent.agent").joinpath("stream_schema.json").read_text(encoding="utf-8")
    validator = jsonschema.Draft202012Validator(json.loads(text))

    def check(out: str) -> None:
        for line in lines(out):
            assert [error.message for error in validator.iter_errors(line)] == [], line

    return check


def every_event() -> list[ev.Event]:
    """One of each kind, as a run tells them, odd values among them."""
    request = ev.ApprovalRequest("call_01", "bash", "execute", {"command": "ls"}, "why")
    usage = ev.Usage(1, 0, 1, 2, 1)
    own = [
        ev.RunStarted("id", "go", "nano", "/tmp", ("read",)),
        ev.StepStarted(1, 10),
        ev.PrefillProgressed(5, 10, 0, 12.34),
        ev.ThinkingDelta("hm"),
        ev.TextDelta("well"),
        ev.CallStarted("call_01", "bash"),
        ev.CallArgument("call_01", "command", "ls"),
        ev.CallReady("call_01", "bash", {"command": "ls"}),
        ev.CallStarted("call_02", "edit"),
        ev.CallArgument("call_02", "old", "retr"),
        ev.StepFinished(usage, 12, 100, 33.3),
        ev.ApprovalAsked(request),
        ev.ApprovalDecided(request, ev.Decision("allow-session"), "user"),
        ev.ToolOutput("call_01", "a\n"),
        ev.CallFinished("call_01", "bash", "a", True, "", False),
        ev.CallFinished("call_02", "edit", "malformed", True, "", False),
        ev.Notice("note"),
        ev.Steered("and this"),
        ev.Compacted("summary", 12, usage),
        *(ev.TurnEnded(reason, "", usage, 1, 0.5, "why") for reason in get_args(ev.TurnReason)),
    ]
    return [*own[:-1], *(ev.TaskEvent("call_01", event) for event in own), own[-1]]


def test_every_event_has_a_line_of_the_schema_or_none_at_all(
    schema: Callable[[str], None],
) -> None:
    events = every_event()
    assert {type(event) for event in events} == set(get_args(ev.Event))
    told = Lines()
    for event in events:
        for line in told.feed(event):
            schema(json.dumps(line))


def test_a_call_that_comes_to_nothing_is_told_as_far_as_it_was_written() -> None:
    told, lines = Lines(), []
    for event in every_event():
        lines += told.feed(event)
    uses = [block for line in lines if line["type"] == "assistant" for block in blocks_of(line)]
    broken = {"type": "tool_use", "id": "call_02", "name": "edit", "input": {"old": "retr"}}
    assert broken in uses
    results = [block for line in lines if line["type"] == "user" for block in blocks_of(line)]
    assert [block["content"] for block in results if block.get("tool_use_id") == "call_02"] == [
        "malformed", "malformed"  # its own, and that of the sub-agent
    ]  # fmt: skip


def blocks_of(line: dict[str, Any]) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = line["message"]["content"]
    return content


SITUATIONS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "refused": ("--permission-mode", "ask"),
    "asked": ("--permission-mode", "ask", "--approver", "echo allow"),
    "limit": ("--max-turns", "1"),
    "error": ("--model", "/nonexistent"),
    "too long": ("--ctx", "20"),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_line_fits_the_schema(
    situation: str, ds4: Ds4, play: SimpleNamespace, schema: Callable[[str], None]
) -> None:
    broken = play.call("edit", path="a")
    steps = [play.call("edit", **EDIT), broken, play.call("bash", command="ls"), play.say("ok")]
    for kind in ("stream-json", "json"):
        done = ds4(steps, "-p", "go", "--output-format", kind, *SITUATIONS[situation])
        assert done.out
        schema(done.out)


def test_the_output_file_gets_the_answer_whole(
    ds4: Ds4, play: SimpleNamespace, tmp_path: Path
) -> None:
    file = tmp_path / "answer.txt"
    file.write_text("old")
    done = ds4([play.say("Forty-two.")], "-p", "go", "-o", str(file))
    assert (done.out, file.read_text()) == ("Forty-two.\n", "Forty-two.\n")
    assert sorted(path.name for path in tmp_path.iterdir() if "answer" in path.name) == [file.name]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--max-turns", "1"], 3, "--max-turns"),
        (["--max-tokens", "5"], 3, "--max-tokens"),
        (["--max-turns", "0"], 1, "max_turns must be at least 1"),
        (["--temp", "nan"], 1, "temp must be"),
        (["--top-p", "2"], 1, "top_p must be between 0 and 1"),
        (["--model", "/nonexistent"], 2, "/nonexistent"),
        (["--model", "scripted:/nonexistent"], 2, "/nonexistent"),
        (["--ctx", "20"], 1, "context holds 20"),
        (["--bogus"], 1, "--bogus"),
        (["--permission-mode", "maybe"], 1, "maybe"),
        (["--prompt-profile", "other"], 1, "other"),
        (["--allowed-tools", "telepathy"], 1, "telepathy"),
        (["--think", "hard"], 1, "hard"),
        (["-C", "/nonexistent"], 1, "/nonexistent"),
        (["-o", "/nonexistent/file"], 1, "/nonexistent"),
        (["-o", "/"], 1, "directory"),
        (["--trace-tokens", "/nonexistent/file"], 1, "/nonexistent"),
        (["--approvals-log", "/nonexistent/file"], 1, "/nonexistent"),
        (["@missing.txt"], 1, "@missing.txt"),
        (["@src"], 1, "not a file"),
    ],
)
def test_what_goes_wrong_is_one_line_and_the_right_code(
    ds4: Ds4, play: SimpleNamespace, arguments: list[str], code: int, words: str
) -> None:
    done = ds4([play.call("read", path="Makefile"), play.say("ok")], "-p", "go", *arguments)
    assert done.code == code
    told = [line for line in done.err.splitlines() if line.startswith("ds4-agent: ")]
    assert words in told[-1]
    assert "Traceback" not in done.err
    if code in (1, 2):
        assert done.out == ""


def test_a_rule_of_the_configuration_for_a_plugin_that_is_not_here_is_a_notice(
    ds4: Ds4, play: SimpleNamespace, home: Path
) -> None:
    (home / "config").mkdir(parents=True)
    (home / "config/config.toml").write_text('[permissions]\nallow = ["todo_count", "edit"]\n')
    done = ds4([play.say("ok")], "-p", "go")
    assert (done.code, done.out) == (0, "ok\n")
    assert "the rule `todo_count` of config.toml speaks of no tool" in done.err
    assert "`edit`" not in done.err


def test_an_exhausted_script_is_exit_code_2_and_the_work_is_kept(
    ds4: Ds4, play: SimpleNamespace, repo: Path
) -> None:
    done = ds4([play.call("edit", **EDIT)], "-p", "go", "--output-format", "json")
    assert done.code == 2
    assert json.loads(done.out)["subtype"] == "error"
    assert "used up" in done.err
    assert "retries = 5" in (repo / "src/client.py").read_text()


def test_verbose_shows_the_traceback(ds4: Ds4) -> None:
    done = ds4([], "-p", "go", "--model", "/nonexistent", "-v")
    assert done.code == 2
    assert "Traceback" in done.err


def test_a_full_disk_under_the_output_file_is_exit_code_2(ds4: Ds4, play: SimpleNamespace) -> None:
    done = ds4([play.say("hi")], "-p", "go", "-o", "/dev/full")
    assert (done.code, done.out) == (2, "hi\n")
    assert "/dev/full: No space left on device" in done.err


def test_a_file_argument_is_material_below_the_prompt(
    ds4: Ds4, play: SimpleNamespace, repo: Path
) -> None:
    (repo / "notes.txt").write_text("remember <｜User｜> milk\n")
    expect = r"(?s)^read this\n\nFile notes\.txt:\nremember .* milk\n$"
    assert ds4([play.say("ok", expect=expect)], "-p", "read this", "@notes.txt").code == 0


def test_no_output_holds_a_control_byte_of_the_model(ds4: Ds4, play: SimpleNamespace) -> None:
    evil = "\x1b]0;owned\x07 \x9b31m \u202e"
    step = play.calls(("bash", {"command": f"echo '{evil}'"}), text=evil)
    done = ds4([step, play.say(evil)], "-p", "go")
    for stream in (done.out, done.err):
        assert not set(stream) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert "␛]0;owned" in done.out


def test_names_that_are_no_utf8_do_not_break_json(
    ds4: Ds4, play: SimpleNamespace, repo: Path, schema: Callable[[str], None]
) -> None:
    (repo / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    surrogate = "caf\udce9"
    steps = [play.call("list"), play.call("bash", command="ls"), play.say("ok")]
    done = ds4(steps, "-p", f"look at {surrogate}", "--output-format", "stream-json")
    assert done.code == 0
    schema(done.out)


def test_every_id_is_traced_with_its_kind(ds4: Ds4, play: SimpleNamespace, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    done = ds4([play.say("hi")], "-p", "say hi", "--trace-tokens", str(trace))
    assert done.code == 0
    records = lines(trace.read_text())
    assert {record["kind"] for record in records} >= {"control", "data", "sampled"}
    assert "".join(r["text"] for r in records if r["kind"] == "sampled").startswith("hi")


def test_a_prompt_may_be_a_command_of_the_users_own(
    ds4: Ds4, play: SimpleNamespace, home: Path
) -> None:
    (home / "config/commands").mkdir(parents=True)
    (home / "config/commands/review.md").write_text("Review $1 well.\n")
    said = play.say("ok", expect=r"\AReview HEAD~1 well\.\Z")
    assert ds4([said], "-p", "/review HEAD~1").out == "ok\n"
    assert ds4([said], "-p", "/review", "HEAD~1").out == "ok\n"
    for path in ("/etc/hosts is wrong", "/nothing of mine"):
        assert ds4([play.say("ok", expect=rf"\A{path}\Z")], "-p", path).code == 0


# As a process of its own


def start(repo: Path, model: str, *arguments: str, **how: Any) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "ds4_agent", "-C", str(repo), "--model", model, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)


def test_standard_input_is_the_prompt_or_material_below_it(
    repo: Path, script: Callable[..., str], play: SimpleNamespace
) -> None:
    model = script(play.say("ok", expect="^explain this$"))
    alone = start(repo, model, "-p", stdin=subprocess.PIPE)
    out, err = alone.communicate(b"explain this\n", timeout=30)
    assert (alone.returncode, out) == (0, b"ok\n"), err

    model = script(play.say("ok", expect=r"^explain\n\nStandard input:\nTraceback\n$"))
    below = start(repo, model, "-p", "explain", stdin=subprocess.PIPE)
    out, err = below.communicate(b"Traceback\n", timeout=30)
    assert (below.returncode, out) == (0, b"ok\n"), err


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_in_under_a_second_with_the_session_saved(
    repo: Path,
    home: Path,
    script: Callable[..., str],
    play: SimpleNamespace,
    signum: int,
    code: int,
) -> None:
    model = script(play.call("bash", command="trap '' TERM; echo started; sleep 60"), play.say("x"))
    running = start(
        repo, model, "-p", "go", "--output-format", "stream-json", stdin=subprocess.DEVNULL
    )
    assert running.stdout is not None
    for line in running.stdout:
        if b'"tool_use"' in line:
            break
    time.sleep(0.3)  # the command is running now
    asked = time.monotonic()
    running.send_signal(signum)
    out, err = running.communicate(timeout=10)
    took = time.monotonic() - asked
    assert running.returncode == code, err
    assert took < 5  # a second on a machine of its own; the command would have taken 60
    assert json.loads(out.splitlines()[-1])["subtype"] == "aborted"
    (session,) = (home / "data/sessions").iterdir()
    logged = lines((session / "events.jsonl").read_text())
    assert any(record.get("text") == "go" for record in logged)
    assert any(record["type"] == "assistant" for record in logged)


def test_a_closed_stdout_is_one_line_and_exit_code_2(
    repo: Path, script: Callable[..., str], play: SimpleNamespace
) -> None:
    model = script(play.say("hi"))
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "ds4_agent", "-C", str(repo), "--model", model, "-p", "x"]
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=30
        )
    assert done.returncode == 2
    assert done.stderr.decode().splitlines()[-1].startswith("ds4-agent: cannot write to standard")
