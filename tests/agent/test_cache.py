"""Nothing is read by the model twice: sessions of the bundled model through the command line."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ds4_agent.agent.cli import main
from ds4_agent.agent.prompt.facts import Facts
from ds4_agent.agent.prompt.profile import render_prompt, stable_part
from ds4_agent.agent.slowness import slowness_lines
from ds4_agent.agent.transcript import Place, Transcript
from ds4_agent.engine.api import StoreOptions
from ds4_agent.engine.dsml.segments import spell
from ds4_agent.engine.open import NANO, open_engine
from ds4_agent.tools.registry import builtin_tools

needs_nano = pytest.mark.skipif(
    not (NANO / "model.safetensors").is_file(), reason="the nano weights are not trained yet"
)
ASK = 'replace "retries = 3" with "retries = 5" in src/client.py'
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], repo: Path) -> Run:
    """One session, in `where`; its result."""

    def run(*options: str, where: Path = repo, prompt: str = ASK) -> dict[str, Any]:
        capfdbinary.readouterr()
        limits = ("--max-turns", "6", "--time-limit", "120", "--output-format", "json")
        code = main(["-C", str(where), "-p", prompt, *limits, *options])
        out, err = capfdbinary.readouterr()
        assert code == 0, err.decode()
        result: dict[str, Any] = json.loads(out)
        result["stderr"] = err.decode()
        return result

    return run


@needs_nano
def test_the_same_session_again_computes_none_of_what_it_reads(run: Run, repo: Path) -> None:
    before = (repo / "src/client.py").read_text()
    first = run()
    assert first["usage"]["cached_tokens"] == 0
    after = (repo / "src/client.py").read_text()
    (repo / "src/client.py").write_text(before)

    second = run()

    assert second["usage"]["cached_tokens"] == second["usage"]["input_tokens"]
    assert second["usage"]["prefilled_tokens"] == 0
    assert second["result"] == first["result"]
    assert second["usage"]["output_tokens"] == first["usage"]["output_tokens"]
    assert (repo / "src/client.py").read_text() == after


@needs_nano
def test_another_directory_computes_nothing_of_the_system_prompt(
    run: Run, repo: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(repo, other)
    (other / "Makefile").unlink()  # so that it is told other facts
    run(prompt="hello")

    second = run(where=other, prompt="hello")

    system = len(_system_ids())
    assert second["usage"]["cached_tokens"] == system
    assert second["usage"]["prefilled_tokens"] == second["usage"]["input_tokens"] - system


def _system_ids() -> list[int]:
    engine = open_engine(None)
    try:
        prompt = render_prompt("nano", builtin_tools(), Facts())
        return engine.tokenizer.encode(stable_part(prompt))
    finally:
        engine.close()


@needs_nano
def test_without_the_cache_nothing_is_kept(run: Run, home: Path) -> None:
    run("--no-cache", prompt="hello")

    assert run("--no-cache", prompt="hello")["usage"]["cached_tokens"] == 0
    assert not (home / "cache").exists()


@needs_nano
def test_a_cache_that_cannot_be_written_is_told_once_and_changes_nothing(
    run: Run, home: Path
) -> None:
    (home / "cache").mkdir(parents=True)
    (home / "cache/kv").write_text("no directory")

    result = run()

    assert result["stderr"].count("the KV cache is off: ") == 1
    assert "retries" in result["result"]


@needs_nano
def test_verbose_says_what_was_restored_and_where_a_prompt_parts(run: Run) -> None:
    first = run("-v", prompt="hello")
    assert _counts(first["stderr"]) == (0, first["usage"]["input_tokens"])
    assert "stored system prompt" not in first["stderr"]

    second = run("-v", "--disallowed-tools", "git", prompt="hello")
    assert _counts(second["stderr"])[0] == second["usage"]["cached_tokens"] > 0


def _counts(text: str) -> tuple[int, int]:
    found = re.search(r"restored ([\d,]+) tokens from disk, computed ([\d,]+)", text)
    assert found is not None, text
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


@needs_nano
def test_the_first_differing_token_is_named(tmp_path: Path) -> None:
    """As after a change of the tools: another beginning than the stored one."""
    engine = open_engine(None, store=StoreOptions(tmp_path / "kv", 1 << 30))
    try:
        stored = engine.tokenizer.encode_data("You are kind. You have tools: read, write.")
        context = engine.new_context()
        context.extend(stored, stable=len(stored))
    finally:
        engine.close()
    engine = open_engine(None, store=StoreOptions(tmp_path / "kv", 1 << 30))
    try:
        own = engine.tokenizer.encode_data("You are kind. You have tools: edit, write.")
        at = next(i for i, (a, b) in enumerate(zip(stored, own, strict=False)) if a != b)
        transcript = Transcript(Place(engine.new_context()), engine.tokenizer, 1000, stable=own)
        transcript.append([(token_id, "data") for token_id in own])

        told = transcript.divergence()

        pieces = [engine.tokenizer.piece(ids[at]).decode() for ids in (stored, own)]
        assert f"token {at}, where this one has {pieces[1]!r}" in told
        assert repr(pieces[0]) in told
    finally:
        engine.close()


def test_what_is_slow_is_told_in_one_line_each(play: Any) -> None:
    from ds4_agent.agent.events import Usage

    usage = Usage(input_tokens=2500, cached_tokens=1200, prefilled_tokens=1300)
    assert slowness_lines(usage, "") == ["restored 1,200 tokens from disk, computed 1,300"]
    assert slowness_lines(usage, "it has 'a\x1b[31m'\nat token 3")[1].count("\n") == 0

    guessed = Usage(drafted_tokens=1200, accepted_tokens=900)
    assert slowness_lines(guessed, "", "speculation pays at present")[1:] == [
        "guessed 1,200 tokens ahead, 900 of them right",
        "speculation pays at present",
    ]


@pytest.mark.parametrize("profile", ["lean", "nano"])
def test_the_stable_part_is_the_same_everywhere_and_all_else_comes_after_it(profile: str) -> None:
    here = Facts(tests="make test", directory="/a", branch="main", date="2026-01-01")
    there = Facts(tests="npm test", directory="/b", branch="other", date="2027-02-02")
    prompts = [
        render_prompt(profile, builtin_tools(), here, effort="high", memory="Notes: AGENTS-MD-1"),
        render_prompt(profile, builtin_tools(), there, effort="high", memory=""),
    ]
    hashes = {hashlib.sha256(spell(stable_part(p)).encode()).hexdigest() for p in prompts}
    assert len(hashes) == 1

    stable = spell(stable_part(prompts[0]))
    assert all(tool.name in stable for tool in builtin_tools())
    known = ["make test", "/a\n", "main", "2026-01-01", "AGENTS-MD-1"]
    volatile = spell(prompts[0]).removeprefix(stable)
    for fact in known if profile == "lean" else known[:1]:
        assert fact in volatile
        assert fact not in stable


def test_the_stable_part_ends_where_a_token_ends(tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"text": "x"}\n')
    tokenizer = open_engine(f"scripted:{script}").tokenizer
    for append in ("", "Be kind", "x\n"):
        prompt = render_prompt("lean", builtin_tools(), Facts(date="1"), append=append, memory="m")
        stable = tokenizer.encode(stable_part(prompt))
        assert tokenizer.encode(prompt)[: len(stable)] == stable
