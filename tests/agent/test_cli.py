"""The command line: what it understands, what it refuses, and the commands beside a run."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ds4_agent import __version__
from ds4_agent.agent.cli import main

Ds4 = Callable[..., SimpleNamespace]


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def test_help_says_the_default_permission_mode_and_the_exit_codes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for words in ("auto in a git repository", "exit codes:", "--permission-mode", "-o FILE"):
        assert words in text


def test_help_costs_little_and_loads_nothing_heavy() -> None:
    program = (
        "import sys, time; from ds4_agent.agent.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'mlx', 'textual', 'numpy', 'git', 'tokenizers', 'platformdirs', 'subprocess'}\n"
        "print(sorted(heavy & set(sys.modules)), time.process_time() < 0.5, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == "[] True"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "--version") == (0, f"ds4-agent {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["-p", "do it"],
        ["--print", "do it"],
        ["--print=do it"],
        ["do it", "-p"],
        ["-p", "--seed", "1", "do it"],
        ["-p", "do", "it"],
    ],
)
def test_every_way_to_write_a_headless_prompt(
    ds4: Ds4, play: SimpleNamespace, arguments: list[str]
) -> None:
    assert ds4([play.say("ok", expect="^do it$")], *arguments).out == "ok\n"


def test_a_prompt_may_be_the_word_of_a_later_command(ds4: Ds4, play: SimpleNamespace) -> None:
    assert (
        ds4([play.say("ok", expect="^sessions are broken$")], "-p", "sessions are broken").code == 0
    )


def test_no_prompt_at_all_is_a_usage_error(ds4: Ds4, play: SimpleNamespace) -> None:
    done = ds4([play.say("ok")], "-p")
    assert done.code == 1
    assert "there is no prompt" in done.err


def test_the_screen_needs_a_terminal(ds4: Ds4) -> None:
    done = ds4([], "do it")
    assert done.code == 1
    assert "needs a terminal" in done.err


def test_options_of_headless_runs_go_with_p(ds4: Ds4) -> None:
    done = ds4([], "do it", "--output-format", "json")
    assert done.code == 1
    assert "go with -p" in done.err


def test_python_m_is_the_same_program(repo: Path, script: Any, play: SimpleNamespace) -> None:
    model = script(play.say("hello"))
    command = [sys.executable, "-m", "ds4_agent", "-C", str(repo), "--model", model, "-p", "hi"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr


def test_a_run_leaves_a_session_unless_told_not_to(
    ds4: Ds4, play: SimpleNamespace, home: Path
) -> None:
    ds4([play.say("ok")], "-p", "hi", "--no-session")
    assert not home.exists()
    ds4([play.say("ok")], "-p", "hi")
    (session,) = (home / "data/sessions").iterdir()
    first, tools, prompt, *_ = map(json.loads, (session / "events.jsonl").read_text().splitlines())
    assert (first["type"], tools["type"]) == ("session", "tools")
    assert (prompt["type"], prompt["text"]) == ("prompt", "hi")
    tokens = map(json.loads, (session / "tokens.jsonl").read_text().splitlines())
    assert next(tokens)["kind"] == "control"


def test_a_home_that_cannot_be_written_is_a_notice(
    ds4: Ds4, play: SimpleNamespace, home: Path
) -> None:
    home.write_text("not a directory")
    done = ds4([play.say("ok")], "-p", "hi")
    assert (done.code, done.out) == (0, "ok\n")
    assert done.err.count("this session is not saved") == 1


def test_a_broken_config_file_is_exit_code_1(ds4: Ds4, home: Path) -> None:
    (home / "config").mkdir(parents=True)
    (home / "config/config.toml").write_text("ctx = 'big'")
    done = ds4([], "-p", "hi")
    assert done.code == 1
    assert "config.toml: ctx must be a whole number" in done.err


def test_tools_list(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, "tools", "list", "--json")
    listed = json.loads(out)
    assert code == 0
    assert [tool["name"] for tool in listed][:3] == ["read", "write", "edit"]
    assert set(listed[0]) == {"name", "description", "parameters", "effect", "origin", "tokens"}
    assert "read(path, start_line?, max_lines?)" in answer(capsys, "tools", "list")[1]


def test_config_show_says_where_a_setting_comes_from(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    (home / "config").mkdir(parents=True)
    (home / "config/config.toml").write_text("ctx = 4096")
    shown = json.loads(answer(capsys, "config", "show", "--json")[1])
    assert shown["ctx"] == {"value": 4096, "from": str(home / "config/config.toml")}
    assert shown["model"] == {"value": None, "from": "default"}


def test_config_path(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert answer(capsys, "config", "path")[1] == f"{home}/config/config.toml\n"


@pytest.mark.parametrize("profile", ["nano", "lean"])
def test_config_prompt_counts_its_tokens(
    capsys: pytest.CaptureFixture[str], repo: Path, profile: str
) -> None:
    arguments = ("config", "prompt", "--profile", profile, "-C", str(repo))
    shown = json.loads(answer(capsys, *arguments, "--json")[1])
    assert shown["profile"] == profile
    assert shown["tokens"] > 0
    assert sum(section["tokens"] for section in shown["sections"]) >= shown["tokens"]
    code, out, _ = answer(capsys, *arguments)
    assert code == 0
    assert out == "".join(section["text"] for section in shown["sections"]) + "\n"


def test_model_list_has_the_bundled_model(capsys: pytest.CaptureFixture[str]) -> None:
    (nano,) = json.loads(answer(capsys, "model", "list", "--json")[1])
    assert (nano["name"], nano["is_default"]) == ("nano", True)


def test_a_model_that_is_not_there_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = answer(capsys, "model", "info", "/nonexistent")
    assert (code, out) == (2, "")
    assert "/nonexistent" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tools", "juggle"], "juggle"),
        (["tools"], "required"),
        (["config", "prompt", "--profile", "x"], "no prompt profile `x`"),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    code, out, err = answer(capsys, *arguments)
    assert (code, out) == (1, "")
    assert words in err
    assert err.count("\n") == 1


def test_model_plan_of_the_bundled_model(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, "model", "plan", "nano", "--ctx", "8192", "--json")
    figures = json.loads(out)
    assert code == 0
    assert figures["context"] == 8192
    assert figures["fits"]
    assert figures["needed"] == figures["weights"] + figures["kv"] + figures["work"]
    assert figures["largest_context"] >= 8192


def test_model_use_keeps_the_rest_of_the_configuration(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    config_file = home / "config" / "config.toml"
    config_file.parent.mkdir(parents=True, exist_ok=True)
    config_file.write_text('# mine\nctx = 4096\n\n[permissions]\nallow = ["read"]\n')
    code, out, _ = answer(capsys, "model", "use", "nano")
    assert code == 0
    assert "nano is the model now" in out
    parsed = tomllib.loads(config_file.read_text())
    assert parsed == {"ctx": 4096, "model": "nano", "permissions": {"allow": ["read"]}}
    assert config_file.read_text().startswith("# mine\n")


def test_model_use_of_no_model(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert answer(capsys, "model", "use")[0] == 1
    code, _, err = answer(capsys, "model", "use", "/nonexistent")
    assert code == 2
    assert "there is no model directory /nonexistent" in err
    assert not (home / "config" / "config.toml").exists()
