"""Plugins in a run: who may bring them, where they stand in the prompt, and the commands."""

import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent.agent.cli import main
from ds4_agent.agent.trust import TrustError, is_trusted, repository_of, trust

TOOL = """\
from pathlib import Path
from ds4_agent import tool

Path(__file__).with_suffix(".loaded").touch()

@tool(effect="read")
def {name}(word: str) -> str:
    '''Repeat a word.'''
    return f"<{{word}}>"
"""


@pytest.fixture
def user_tool(home: Path) -> Callable[..., Path]:
    """A plugin in the user's own directory."""

    def write(name: str = "echo", text: str = TOOL) -> Path:
        return _write(home / "config/tools", name, text)

    return write


@pytest.fixture
def project_tool(repo: Path) -> Callable[..., Path]:
    """A plugin the repository brings."""

    def write(name: str = "echo", text: str = TOOL) -> Path:
        return _write(repo / ".ds4/tools", name, text)

    return write


def _write(directory: Path, name: str, text: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.py"
    path.write_text(text.replace("{name}", name).replace("{{", "{").replace("}}", "}"))
    return path


def was_loaded(path: Path) -> bool:
    return path.with_suffix(".loaded").exists()


def prompt(capsys: pytest.CaptureFixture[str], repo: Path, *arguments: str) -> str:
    assert main(["config", "prompt", "--profile", "lean", "-C", str(repo), *arguments]) == 0
    return capsys.readouterr().out


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


# In a run


def test_the_model_can_call_a_tool_of_the_users(ds4, play: SimpleNamespace, user_tool) -> None:
    user_tool()
    steps = [play.call("echo", word="hi"), play.say("done", expect="<hi>")]
    assert ds4(steps, "-p", "go").out == "done\n"


def test_without_plugins_the_prompt_is_the_same_to_the_byte(
    capsys: pytest.CaptureFixture[str], repo: Path, home: Path
) -> None:
    before = prompt(capsys, repo)
    (home / "config/tools").mkdir(parents=True)
    (home / "config/tools/broken.py").write_text("1 / 0\n")
    assert prompt(capsys, repo) == before


def test_plugins_stand_after_the_built_in_tools_by_name(
    capsys: pytest.CaptureFixture[str], repo: Path, user_tool
) -> None:
    before = prompt(capsys, repo)
    user_tool("zebra")
    user_tool("ape")
    names = [
        json.loads(line)["name"]
        for line in prompt(capsys, repo).splitlines()
        if line.startswith('{"name"')
    ]
    assert names[:2] == ["read", "write"]
    assert names[-2:] == ["ape", "zebra"]
    last = before.rindex('{"name"')
    assert prompt(capsys, repo).startswith(before[: before.index("\n", last)])


def test_a_broken_plugin_is_a_notice_and_the_run_goes_on(
    ds4, play: SimpleNamespace, user_tool
) -> None:
    path = user_tool("broken", "import sys\nprint('boo')\nsys.exit(1)\n")
    done = ds4([play.say("ok")], "-p", "hi")
    assert (done.code, done.out) == (0, "ok\n")
    assert done.err.count(str(path)) == 1
    assert "boo" not in done.err


def test_what_a_plugin_prints_does_not_spoil_the_answer(
    ds4, play: SimpleNamespace, user_tool
) -> None:
    body = "from ds4_agent import tool\n@tool(effect='read')\ndef loud():\n    'Be loud.'\n"
    user_tool("loud", body + "    print('\\x1b[2J')\n    return 'quiet'\n")
    steps = [play.call("loud"), play.say("ok", expect="quiet")]
    done = ds4(steps, "-p", "go", "--output-format", "json")
    assert json.loads(done.out)["result"] == "ok"
    assert "\x1b" not in done.err


@pytest.mark.parametrize("output_format", ["text", "json", "stream-json"])
def test_what_a_plugins_child_prints_does_not_spoil_the_answer(
    ds4, play: SimpleNamespace, user_tool, output_format: str
) -> None:
    text = """
import os, subprocess
from ds4_agent import tool

@tool(effect="read")
def loud() -> str:
    "Print past Python."
    os.write(1, b"RAW\\n")
    subprocess.run(["echo", "CHILD"])
    return "fine"
"""
    user_tool("loud", text)
    done = ds4([play.call("loud"), play.say("ok")], "-p", "x", "--output-format", output_format)
    assert done.code == 0
    assert "RAW" not in done.out
    assert "CHILD" not in done.out
    assert "RAW\nCHILD\n" in done.err
    if output_format == "text":
        assert done.out == "ok\n"
    else:
        assert [json.loads(line) for line in done.out.splitlines()]


def test_a_plugin_that_executes_needs_permission(ds4, play: SimpleNamespace, user_tool) -> None:
    user_tool("echo", TOOL.replace('effect="read"', 'effect="execute"'))
    steps = [play.call("echo", word="hi"), play.say("ok", expect="not allowed")]
    assert ds4(steps, "-p", "go", "--permission-mode", "ask").code == 0


def test_rules_know_plugins(ds4, play: SimpleNamespace, user_tool) -> None:
    user_tool()
    steps = [play.call("echo", word="hi"), play.say("ok", expect="not allowed")]
    assert ds4(steps, "-p", "go", "--disallowed-tools", "echo").code == 0


HANG = """\
import time
from ds4_agent import tool
@tool(effect="read")
def hang():
    'Hang.'
    time.sleep(600)
"""


def test_a_plugin_that_hangs_does_not_hold_up_a_time_limit(
    ds4, play: SimpleNamespace, user_tool
) -> None:
    user_tool("hang", HANG)
    began = time.monotonic()
    assert ds4([play.call("hang")], "-p", "go", "--time-limit", "1").code == 3
    assert time.monotonic() - began < 10


def test_a_plugin_that_hangs_does_not_hold_up_an_interrupt(
    play: SimpleNamespace, user_tool, script: Any, repo: Path
) -> None:
    user_tool("hang", HANG)
    model = script(play.call("hang"), play.say("no"))
    command = [sys.executable, "-m", "ds4_agent", "-C", str(repo), "--model", model, "-p", "go"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while not process.stderr.readline().startswith("hang"):
        assert process.poll() is None
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")


# Trust


def test_of_an_untrusted_repository_nothing_is_loaded_and_one_notice_says_how(
    ds4, play: SimpleNamespace, project_tool, repo: Path
) -> None:
    path = project_tool()
    program = repo / ".ds4/tools/program"
    program.write_text(f"#!/bin/sh\ntouch {repo}/executed\n")
    program.chmod(0o755)
    done = ds4([play.say("ok")], "-p", "hi")
    assert done.code == 0
    assert done.err.count("ds4-agent --trust") == 1
    assert not was_loaded(path)
    assert not (repo / "executed").exists()


def test_a_repository_without_tools_is_not_spoken_of(ds4, play: SimpleNamespace) -> None:
    assert "trust" not in ds4([play.say("ok")], "-p", "hi").err


def test_trust_loads_the_tools_now_and_from_now_on(
    ds4, play: SimpleNamespace, project_tool, home: Path
) -> None:
    project_tool()
    steps = [play.call("echo", word="hi"), play.say("done", expect="<hi>")]
    assert ds4(steps, "-p", "go", "--trust").out == "done\n"
    done = ds4(steps, "-p", "go")
    assert done.out == "done\n"
    assert "trust" not in done.err
    file = home / "state/trusted.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["trusted.json"]


def test_trust_holds_in_every_directory_of_the_repository(
    ds4, play: SimpleNamespace, project_tool, repo: Path
) -> None:
    project_tool()
    ds4([play.say("ok")], "-p", "hi", "--trust")
    steps = [play.call("echo", word="hi"), play.say("done", expect="<hi>")]
    assert ds4(steps, "-p", "go", "-C", str(repo / "src")).out == "done\n"


def test_a_clone_inside_a_trusted_repository_is_another(
    ds4, play: SimpleNamespace, repo: Path
) -> None:
    inner = repo / "vendor/inner"
    (inner / ".git").mkdir(parents=True)
    path = _write(inner / ".ds4/tools", "echo", TOOL)
    ds4([play.say("ok")], "-p", "hi", "--trust")
    assert "--trust" in ds4([play.say("ok")], "-p", "hi", "-C", str(inner)).err
    assert not was_loaded(path)


def test_trust_that_cannot_be_stored_holds_for_this_run(
    ds4, play: SimpleNamespace, project_tool, home: Path
) -> None:
    project_tool()
    home.mkdir()
    (home / "state").write_text("in the way")
    steps = [play.call("echo", word="hi"), play.say("done", expect="<hi>")]
    done = ds4(steps, "-p", "go", "--trust")
    assert done.out == "done\n"
    assert "for this run only" in done.err


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"directories": 5}', b"\xff", b"[" * 100_000])
def test_a_damaged_list_trusts_nobody_and_can_be_begun_anew(
    tmp_path: Path, repo: Path, damage: bytes
) -> None:
    file = tmp_path / "trusted.json"
    file.write_bytes(damage)
    with pytest.raises(TrustError, match="damaged"):
        is_trusted(repo, file)
    trust(repo, file)
    assert is_trusted(repo, file)


def test_a_directory_whose_name_is_no_text_can_be_trusted(tmp_path: Path) -> None:
    strange = Path(str(tmp_path) + "/\udcff\n")
    trust(strange, tmp_path / "trusted.json")
    trust(tmp_path, tmp_path / "trusted.json")
    assert is_trusted(strange, tmp_path / "trusted.json")
    assert is_trusted(tmp_path, tmp_path / "trusted.json")


def test_a_link_to_a_repository_is_that_repository(tmp_path: Path, repo: Path) -> None:
    (tmp_path / "link").symlink_to(repo)
    assert repository_of(tmp_path / "link/src") == repo.resolve()


# ds4-agent tools


@pytest.mark.parametrize("where", [[], ["--project"]], ids=["user", "project"])
def test_tools_new_writes_a_tool_that_works_with_a_test_that_passes(
    capsys: pytest.CaptureFixture[str], repo: Path, home: Path, where: list[str]
) -> None:
    code, out, err = answer(capsys, "tools", "new", "todo_count", "-C", str(repo), *where)
    file, test = map(Path, out.splitlines())
    directory = repo / ".ds4/tools" if where else home / "config/tools"
    assert (code, file, test) == (
        0,
        directory / "todo_count.py",
        directory / "test_todo_count.py",
    )
    assert ("--trust" in err) == bool(where)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)],
        capture_output=True,
        text=True,
        cwd=directory,
    )
    assert done.returncode == 0, done.stdout
    trusting = ["--trust"] if where else []
    assert answer(capsys, "tools", "check", "-C", str(repo), *trusting)[::2] == (0, "")
    (repo / "src/a.py").write_text("# TODO\n")
    run = ["tools", "run", "todo_count", json.dumps({"path": f"{repo}/src"}), "-C", str(repo)]
    assert answer(capsys, *run) == (0, "1 lines with TODO\n", "")


def test_tools_new_overwrites_nothing(
    capsys: pytest.CaptureFixture[str], user_tool, home: Path
) -> None:
    path = user_tool("mine", "precious")
    code, _, err = answer(capsys, "tools", "new", "mine")
    assert (code, err.count("\n")) == (1, 1)
    assert "mine.py is there already" in err
    assert path.read_text() == "precious"
    (home / "config/tools/test_other.py").write_text("precious")
    assert answer(capsys, "tools", "new", "other")[0] == 1
    assert not (home / "config/tools/other.py").exists()


@pytest.mark.parametrize("name", ["read", "Upper", "a-b", "../x", "class", "test_x", "_x", ""])
def test_tools_new_refuses_a_name_that_cannot_be_one(
    capsys: pytest.CaptureFixture[str], name: str, home: Path
) -> None:
    code, out, err = answer(capsys, "tools", "new", name)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert not (home / "config").exists()


def test_tools_check_says_what_is_wrong_with_each(
    capsys: pytest.CaptureFixture[str], user_tool, tmp_path: Path
) -> None:
    good, bad = user_tool("good"), user_tool("bad", "1 / 0\n")
    code, out, err = answer(capsys, "tools", "check")
    assert code == 1
    assert f"{good}: good(word)" in out
    assert err.count("\n") == 1
    assert f"{bad}: it cannot be loaded, ZeroDivisionError" in err
    assert answer(capsys, "tools", "check", str(good))[0] == 0
    gone = answer(capsys, "tools", "check", str(tmp_path / "gone.py"))
    assert gone[0] == 1
    assert "no such file" in gone[2]


def test_tools_check_names_a_built_in_name(capsys: pytest.CaptureFixture[str], user_tool) -> None:
    code, _, err = answer(capsys, "tools", "check", str(user_tool("read")))
    assert code == 1
    assert "the tool read is built in" in err


def test_tools_check_executes_nothing_of_an_untrusted_repository(
    capsys: pytest.CaptureFixture[str], project_tool, repo: Path
) -> None:
    path = project_tool()
    code, _, err = answer(capsys, "tools", "check", str(path), "-C", str(repo))
    assert code == 1
    assert "not trusted" in err
    assert not was_loaded(path)
    assert answer(capsys, "tools", "check", str(path), "-C", str(repo), "--trust")[0] == 0


def test_tools_list_says_where_a_tool_comes_from_and_what_it_costs(
    capsys: pytest.CaptureFixture[str], user_tool
) -> None:
    path = user_tool()
    listed: list[dict[str, Any]] = json.loads(answer(capsys, "tools", "list", "--json")[1])
    by_name = {tool["name"]: tool for tool in listed}
    assert list(by_name)[-1] == "echo"
    assert by_name["echo"]["origin"] == str(path)
    assert by_name["read"]["origin"] == "built-in"
    assert 20 < by_name["echo"]["tokens"] < by_name["git"]["tokens"]
    shown = answer(capsys, "tools", "list")[1]
    assert f"from {path}" in shown
    assert f"({by_name['echo']['tokens']} tokens)" in shown


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        (["echo", '{"word": "a"}'], 0, "<a>\n", ""),
        (["echo", "{}"], 1, "", "needs the parameter word"),
        (["echo", "{"], 1, "", "no JSON"),
        (["echo", "[]"], 1, "", "must be an object"),
        (["nothing"], 1, "", "no tool nothing"),
        ([], 1, "", "tools run NAME"),
    ],
)
def test_tools_run_runs_one_tool(
    capsys: pytest.CaptureFixture[str], user_tool, words: list[str], code: int, out: str, err: str
) -> None:
    user_tool()
    done = answer(capsys, "tools", "run", *words)
    assert done[:2] == (code, out)
    assert err in done[2]
