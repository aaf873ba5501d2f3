"""A batch from the command line: what it changes, what it refuses, what it says."""

import json
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from ds4_agent.sessions.lines import read_lines

Batch = Callable[..., SimpleNamespace]
Work = Callable[..., list[dict[str, Any]]]
PROMPT = ("-p", "make n two")
JSON = ("--output-format", "json")


def texts(tree: Path) -> list[str]:
    return [(tree / f"src/{name}.py").read_text() for name in "abcd"]


def states(done: SimpleNamespace) -> dict[str, str]:
    return {item["path"]: item["state"] for item in done.result["items"]}


AS_IT_WAS = [f"# {name}\nn = 1\n" for name in "abcd"]
ALL_DONE = [f"# {name}\nn = 2\n" for name in "abcd"]


def test_every_file_is_changed(batch: Batch, work: Work, tree: Path, home: Path) -> None:
    steps = [step for name in "abcd" for step in work(f"src/{name}.py")]
    done = batch(steps, "src/[a-d].py", *PROMPT)
    assert done.code == 0
    assert texts(tree) == ALL_DONE
    assert "4 items: 4 changed" in done.out
    assert "[4/4] changed src/d.py +1 -1" in done.err
    assert "\x1b" not in done.out + done.err
    (ledger,) = home.glob("data/batches/*/ledger.jsonl")
    assert str(ledger) in done.out
    records = read_lines(ledger).records
    ends = [r for r in records if r.get("state") == "changed"]
    assert [r["path"] for r in ends] == [f"src/{name}.py" for name in "abcd"]
    assert all(len(r["diff_sha256"]) == 64 and r["tokens"]["output_tokens"] for r in ends)
    assert not list(ledger.parent.glob("blobs/*")), "contents are kept although it is finished"
    assert ledger.stat().st_mode & 0o777 == 0o600


def test_an_item_reads_what_it_has_changed(
    batch: Batch, work: Work, play: SimpleNamespace, tree: Path
) -> None:
    steps = [
        play.call("edit", path="src/a.py", old="n = 1", new="n = 2"),
        {**play.call("read", path="src/a.py"), "expect": "Edited"},
        {
            **play.call("search", pattern="n = 2", path="src/a.py"),
            "expect": r"(?s)lines 1-2.*n = 2",
        },
        {**play.call("edit", path="src/a.py", old="n = 2", new="n = 3"), "expect": "1 match"},
        play.say("Done."),
    ]
    assert batch(steps, "src/a.py", *PROMPT).code == 0
    assert texts(tree)[0] == "# a\nn = 3\n"


def test_nothing_stands_in_the_file_before_the_item_is_done(
    batch: Batch, play: SimpleNamespace, tree: Path
) -> None:
    steps = [
        play.call("edit", path="src/a.py", old="n = 1", new="n = 2"),
        {"text": "cut", "finish": "length"},
    ]
    done = batch(steps, "src/a.py", *PROMPT, *JSON)
    assert done.code == 5
    assert texts(tree) == AS_IT_WAS
    assert states(done) == {"src/a.py": "failed"}
    assert done.result["subtype"] == "error"


@pytest.mark.parametrize("tool", ["edit", "write"])
def test_an_item_changes_its_own_file_and_no_other(
    batch: Batch, play: SimpleNamespace, tree: Path, tool: str
) -> None:
    (tree / "src/link.py").symlink_to("c.py")
    steps = []
    for path in ("src/b.py", "src/link.py", "src/new.py", "../out.py", ".ds4/tools/x.py"):
        change = {"old": "n = 1", "new": "n = 9"} if tool == "edit" else {"content": "n = 9\n"}
        steps.append(play.call(tool, path=path, **change))
    steps.append({**play.say("No."), "expect": "."})
    done = batch(steps, "src/a.py", *PROMPT, *JSON, "--allowed-tools", "edit,write")
    assert done.code == 0
    assert states(done) == {"src/a.py": "unchanged"}
    assert texts(tree) == AS_IT_WAS
    assert not (tree / "src/new.py").exists()
    assert not (tree.parent / "out.py").exists()
    assert not (tree / ".ds4").exists()


def test_the_refusal_says_what_may_be_changed(
    batch: Batch, play: SimpleNamespace, tree: Path
) -> None:
    steps = [
        play.call("edit", path="src/b.py", old="n = 1", new="n = 9"),
        {**play.say("No."), "expect": "src/b.py was not changed: only src/a.py may be changed"},
    ]
    assert batch(steps, "src/a.py", *PROMPT).code == 0


def test_scope_widens_it(batch: Batch, play: SimpleNamespace, tree: Path, tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text('{"path": "src/a.py", "test": "a"}\n')
    steps = [
        play.call("write", path="tests/test_a.py", content="import a\n"),
        play.call("edit", path="src/a.py", old="n = 1", new="n = 2"),
        play.call("write", path="tests/test_b.py", content="import b\n"),
        {**play.say("Done."), "expect": "was not changed: only src/a.py and files of --scope"},
    ]
    done = batch(
        steps, "--items", str(items), "--scope", "tests/test_{item.test}.py", *PROMPT, *JSON
    )
    assert done.code == 0, done.err
    assert (tree / "tests/test_a.py").read_text() == "import a\n"
    assert not (tree / "tests/test_b.py").exists()
    assert texts(tree)[0] == "# a\nn = 2\n"
    assert [f["path"] for f in done.result["items"][0]["files"]] == ["tests/test_a.py", "src/a.py"]


def test_commands_run_only_by_rules_and_see_the_change(
    batch: Batch, play: SimpleNamespace, tree: Path
) -> None:
    steps = [
        play.call("bash", command="touch forbidden"),
        {
            **play.call("edit", path="src/a.py", old="n = 1", new="n = 2"),
            "expect": "not allowed",
        },
        play.call("bash", command="cat src/a.py"),
        {**play.say("Done."), "expect": "n = 2"},
    ]
    done = batch(steps, "src/a.py", *PROMPT, "--allowed-tools", "bash(cat:*)", "--dry-run")
    assert done.code == 0, done.err
    assert not (tree / "forbidden").exists()
    assert texts(tree) == AS_IT_WAS
    assert "+n = 2" in done.out


def test_what_a_command_makes_of_the_file_is_part_of_the_item(
    batch: Batch, play: SimpleNamespace, tree: Path
) -> None:
    (tree / "fmt.sh").write_text("sed -i 's/n = 1/n = 7/' src/a.py\n")
    steps = [play.call("bash", command="sh fmt.sh"), play.say("Done.")]
    allowed = ("--allowed-tools", "bash(sh fmt.sh)")
    done = batch(steps, "src/a.py", *PROMPT, *allowed, "--dry-run")
    assert "+n = 7" in done.out
    assert texts(tree) == AS_IT_WAS
    assert batch(steps, "src/a.py", *PROMPT, *allowed).code == 0
    assert texts(tree)[0] == "# a\nn = 7\n"


# The check


def test_a_failed_check_is_told_and_tried_once_more(batch: Batch, work: Work, tree: Path) -> None:
    first = work("src/a.py", "n = 5")
    second = work("src/a.py", "n = 2", "n = 5")
    second[0]["expect"] = r"(?s)The check `.*src/a.py` failed: exit code 1.\nn is not two"
    verify = "grep -q 'n = 2' {path} || { echo n is not two; exit 1; }; : {path}"
    done = batch([*first, *second], "src/a.py", *PROMPT, *JSON, "--verify", verify)
    assert done.code == 0, done.err
    assert done.result["items"][0]["tries"] == 2
    assert texts(tree)[0] == "# a\nn = 2\n"


def test_a_second_fork_makes_the_other_try(batch: Batch, work: Work, tree: Path) -> None:
    """It knows the first one's conversation, which ends where its check failed."""
    second = work("src/a.py", "n = 2", "n = 5")
    steps = [*work("src/a.py", "n = 5"), *second]
    arguments = ("--output-format", "stream-json", "--verify", "grep -q 'n = 2' {path}")
    done = batch(steps, "src/a.py", *PROMPT, *arguments)
    assert done.code == 0, done.err
    blocks = [b for line in done.lines if "message" in line for b in line["message"]["content"]]
    assert [b["id"] for b in blocks if b["type"] == "tool_use"] == ["call_01", "try_2.1"]
    (item,) = done.result["items"]
    computed = item["tokens"]["prefilled_tokens"]
    assert computed < 150, "the session's prompt or the first try was computed again"


def test_the_reason_is_what_the_check_said_last(batch: Batch, work: Work, tree: Path) -> None:
    arguments = ("--verify", "echo one; echo two; exit 3", "--retries", "0")
    done = batch(work("src/a.py"), "src/a.py", *PROMPT, *JSON, *arguments)
    assert done.result["items"][0]["reason"] == "the check failed: exit code 3: two"


def test_between_the_tries_the_file_is_as_it_was(batch: Batch, work: Work, tree: Path) -> None:
    look = {"expect": "check"}
    steps = [*work("src/a.py", "n = 5"), {**look, "text": "I cannot."}]
    seen = tree / "seen"
    verify = f"cat src/a.py >> {seen}; false"
    done = batch(steps, "src/a.py", *PROMPT, *JSON, "--verify", verify)
    assert done.code == 5
    assert seen.read_text() == "# a\nn = 5\n" * 2
    assert texts(tree) == AS_IT_WAS
    (item,) = done.result["items"]
    assert (item["state"], item["tries"], item["files"]) == ("failed", 2, [])
    assert "exit code 1" in item["reason"]


def test_without_retries_there_is_one_try(batch: Batch, work: Work, tree: Path) -> None:
    arguments = ("--verify", "false", "--retries", "0")
    done = batch(work("src/a.py"), "src/a.py", *PROMPT, *JSON, *arguments)
    assert done.code == 5
    assert done.result["items"][0]["tries"] == 1
    assert texts(tree) == AS_IT_WAS


def test_a_check_that_hangs_is_stopped(batch: Batch, work: Work, tree: Path) -> None:
    arguments = ("--verify", "sleep 600", "--verify-timeout", "0.3", "--retries", "0")
    done = batch(work("src/a.py"), "src/a.py", *PROMPT, *JSON, *arguments)
    assert done.code == 5
    assert "did not end within 0.3 s" in done.result["items"][0]["reason"]
    assert texts(tree) == AS_IT_WAS


def test_what_the_check_does_to_the_file_is_kept_or_taken_back(
    batch: Batch, work: Work, tree: Path
) -> None:
    formats = "echo '# formatted' >> {path}"
    assert batch(work("src/a.py"), "src/a.py", *PROMPT, "--verify", formats).code == 0
    assert texts(tree)[0] == "# a\nn = 2\n# formatted\n"
    arguments = ("--verify", f"{formats}; false", "--retries", "0")
    assert batch(work("src/b.py"), "src/b.py", *PROMPT, *arguments).code == 5
    assert texts(tree)[1] == "# b\nn = 1\n"


def test_limits_are_an_items(batch: Batch, play: SimpleNamespace, tree: Path) -> None:
    steps = [play.call("read", path=f"src/{name}.py") for name in "aabb"]
    done = batch(steps, "src/[ab].py", *PROMPT, *JSON, "--max-turns", "2")
    assert done.code == 5
    assert [item["reason"] for item in done.result["items"]] == [
        "stopped after 2 model steps (--max-turns)"
    ] * 2


def test_tokens_and_time_are_an_items_too(
    batch: Batch, play: SimpleNamespace, work: Work, tree: Path
) -> None:
    """Each has all of the limit for itself; one that uses it up fails alone."""
    half = play.say("w " * 25)
    long = play.say("w " * 400)
    done = batch([half, half, long, half], "src/[a-d].py", *PROMPT, *JSON, "--max-tokens", "100")
    assert done.code == 5
    assert list(states(done).values()) == ["unchanged", "unchanged", "failed", "unchanged"]
    assert "(--max-tokens)" in done.result["items"][2]["reason"]

    hangs = {**work("src/b.py")[0], "delay_ms": 600_000}
    steps = [*work("src/a.py"), hangs, *work("src/c.py")]
    done = batch(steps, "src/[a-c].py", *PROMPT, *JSON, "--time-limit", "1")
    assert done.code == 5
    assert states(done) == {"src/a.py": "changed", "src/b.py": "failed", "src/c.py": "changed"}
    assert done.result["items"][1]["reason"] == "stopped after 1 s (--time-limit)"


# Without applying


def test_a_dry_run_prints_diffs_that_apply(batch: Batch, work: Work, tree: Path) -> None:
    done = batch([*work("src/a.py"), *work("src/b.py")], "src/[ab].py", *PROMPT, "--dry-run")
    assert done.code == 0
    assert texts(tree) == AS_IT_WAS
    subprocess.run(["git", "apply"], input=done.out.encode(), cwd=tree, check=True)
    assert texts(tree)[:2] == ALL_DONE[:2]


def test_a_patch_is_written_of_what_holds_its_check(
    batch: Batch, work: Work, tree: Path, tmp_path: Path
) -> None:
    file = tmp_path / "out.patch"
    steps = [*work("src/a.py"), *work("src/b.py", "n = 5"), {"text": "No."}]
    verify = "grep -q 'n = 2' {path}"
    done = batch(steps, "src/[ab].py", *PROMPT, "--patch", str(file), "--verify", verify)
    assert done.code == 5
    assert texts(tree) == AS_IT_WAS
    subprocess.run(["git", "apply", str(file)], cwd=tree, check=True)
    assert texts(tree) == [ALL_DONE[0], *AS_IT_WAS[1:]]


def test_a_patch_of_a_subdirectory_applies_from_there_and_from_the_top(
    batch: Batch, work: Work, tree: Path, tmp_path: Path
) -> None:
    file = tmp_path / "out.patch"
    patching = ("-C", str(tree / "src"), *PROMPT, "--patch", str(file))
    assert batch([*work("a.py")], "a.py", *patching).code == 0
    for place in (tree / "src", tree):
        subprocess.run(["git", "apply", str(file)], cwd=place, check=True)
        assert texts(tree)[0] == ALL_DONE[0]
        subprocess.run(["git", "apply", "-R", str(file)], cwd=place, check=True)


def test_changes_of_one_file_by_two_items_cannot_be_in_one_patch(
    batch: Batch, work: Work, tree: Path, tmp_path: Path
) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text('{"path": "src/a.py"}\n' * 2)
    steps = [*work("src/a.py"), *work("src/a.py")]
    done = batch(steps, "--items", str(items), *PROMPT, *JSON, "--dry-run")
    assert done.code == 5
    assert "changed by item 1 too" in done.result["items"][1]["reason"]
    steps = [*work("src/a.py"), *work("src/a.py", "n = 3", "n = 2")]
    assert batch(steps, "--items", str(items), *PROMPT, "--jobs", "2").code == 0
    assert texts(tree)[0] == "# a\nn = 3\n"


# Commits


def test_one_commit_of_all(
    batch: Batch, work: Work, tree: Path, run_git: Callable[..., str]
) -> None:
    (tree / "other").write_text("staged by the user\n")
    run_git(tree, "add", "other")
    steps = [*work("src/a.py"), *work("src/b.py")]
    done = batch(steps, "src/[ab].py", *PROMPT, *JSON, "--commit")
    assert done.code == 0, done.err
    head = run_git(tree, "rev-parse", "HEAD").strip()
    assert done.result["batch"]["commit"] == head
    shown = run_git(tree, "show", "--name-only", "--format=%s", "HEAD").split("\n")
    assert shown[:1] == ["make n two (2 files)"]
    assert [line for line in shown[1:] if line] == ["src/a.py", "src/b.py"]
    assert run_git(tree, "status", "--porcelain").strip() == "A  other"


def test_a_commit_an_item_new_files_too(
    batch: Batch, play: SimpleNamespace, tree: Path, run_git: Callable[..., str], tmp_path: Path
) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text('{"path": "src/a.py"}\n{"path": "src/sub/new.py"}\n')
    steps = [
        play.call("edit", path="src/a.py", old="n = 1", new="n = 2"),
        play.say("Done."),
        play.call("write", path="src/sub/new.py", content="n = 2\n"),
        play.say("Done."),
    ]
    done = batch(steps, "--items", str(items), *PROMPT, *JSON, "--commit=each")
    assert done.code == 0, done.err
    log = run_git(tree, "log", "-2", "--reverse", "--format=%H %s").splitlines()
    assert [line.partition(" ")[2] for line in log] == [
        "src/a.py: make n two",
        "src/sub/new.py: make n two",
    ]
    assert [item["commit"] for item in done.result["items"]] == [line[:40] for line in log]
    assert run_git(tree, "status", "--porcelain") == ""


def test_a_commit_takes_no_change_of_the_user_along(
    batch: Batch, work: Work, tree: Path, run_git: Callable[..., str]
) -> None:
    (tree / "src/b.py").write_text("# b\nn = 1\nmine = 1\n")
    head = run_git(tree, "rev-parse", "HEAD")
    done = batch(work("src/a.py"), "src/[ab].py", *PROMPT, "--commit")
    assert done.code == 1
    assert "src/b.py has changes that are not committed" in done.err
    assert run_git(tree, "rev-parse", "HEAD") == head
    assert texts(tree)[0] == AS_IT_WAS[0]


# Held-up cases


def test_a_file_deleted_meanwhile_fails_alone(batch: Batch, work: Work, tree: Path) -> None:
    steps = [*work("src/a.py"), *work("src/c.py")]
    done = batch(steps, "src/[a-c].py", *PROMPT, *JSON, "--verify", "rm -f src/b.py")
    assert done.code == 5
    assert states(done) == {"src/a.py": "changed", "src/b.py": "failed", "src/c.py": "changed"}
    assert done.result["items"][1]["reason"] == "src/b.py does not exist any more"


def test_a_file_that_somebody_changes_meanwhile_is_left_to_him(
    batch: Batch, play: SimpleNamespace, tree: Path
) -> None:
    (tree / "user.sh").write_text("echo 'n = 8' > src/b.py\n")
    steps = [
        play.call("write", path="src/b.py", content="n = 2\n"),
        play.call("write", path="src/a.py", content="n = 2\n"),
        play.call("bash", command="sh user.sh"),
        play.say("Done."),
    ]
    arguments = ("--scope", "src/b.py", "--allowed-tools", "bash(sh user.sh)")
    # The command runs in the changed tree, so what it does to a file of the item is the item's.
    assert batch(steps, "src/a.py", *PROMPT, *arguments).code == 0
    assert texts(tree)[1] == "n = 8\n"


def test_every_item_fails(batch: Batch, play: SimpleNamespace, tree: Path) -> None:
    steps = [{"text": "…", "finish": "length"}] * 4
    done = batch(steps, "src/[a-d].py", *PROMPT, *JSON)
    assert done.code == 5
    assert done.result["batch"]["failed"] == 4
    assert texts(tree) == AS_IT_WAS


def test_the_model_breaks_off(batch: Batch, work: Work, tree: Path, home: Path) -> None:
    done = batch(work("src/a.py"), "src/[ab].py", *PROMPT, *JSON)  # the script is used up
    assert done.code == 2
    assert "used up" in done.err
    assert done.result["is_error"]
    assert done.result["batch"]["changed"] == 1
    assert done.result["batch"]["pending"] == 1
    assert texts(tree) == [ALL_DONE[0], *AS_IT_WAS[1:]]


# What it says


def test_stream_json_follows_the_schema(batch: Batch, work: Work, tree: Path) -> None:
    text = files("ds4_agent.agent").joinpath("stream_schema.json").read_text(encoding="utf-8")
    validator = jsonschema.Draft202012Validator(json.loads(text))
    steps = [*work("src/a.py"), *work("src/b.py")]
    done = batch(steps, "src/[ab].py", *PROMPT, "--output-format", "stream-json", "--jobs", "1")
    assert done.code == 0
    for line in done.lines:
        validator.validate(line)
    assert done.lines[0]["type"] == "system"
    assert done.lines[0]["items"] == 2
    assert done.result["type"] == "result"
    about = [line["item"] for line in done.lines[1:-1]]
    assert about == sorted(about)
    assert {line["type"] for line in done.lines} >= {"item", "assistant", "user", "engine"}


def test_prefill_is_what_all_share_and_what_is_each_items(
    batch: Batch, work: Work, tree: Path
) -> None:
    steps = [step for name in "abcd" for step in work(f"src/{name}.py")]
    done = batch(steps, "src/[a-d].py", *PROMPT, *JSON)
    prefill = done.result["batch"]["prefill"]
    assert prefill["prefilled_tokens"] == prefill["expected_tokens"]
    assert prefill["expected_tokens"] == prefill["shared_tokens"] + prefill["own_tokens"]
    assert prefill["items"] == 4
    assert prefill["separate_tokens"] > 2 * prefill["prefilled_tokens"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("src/a.py",), "no prompt"),
        (("-p", "x"), "which files"),
        (("src/a.py", "-p", "{item.x}"), "no field for {item.x}"),
        (("src/a.py", "-p", "x", "--commit", "--dry-run"), "does not go with"),
        (("src/a.py", "-p", "x", "--jobs", "0"), "--jobs must be at least 1"),
        (("src/a.py", "-p", "x", "--scope", "../*"), "no pattern"),
        (("src/a.py", "-p", "x", "--patch", "/nowhere/x"), "cannot write into /nowhere"),
        (("src/a.py", "--items", "f", "-p", "x"), "leave out the patterns"),
        (("--resume",), "no unfinished batch"),
        (("src/a.py", "-p", "x", "--allowed-tools", "bsh"), "no tool `bsh`"),
        (("src/a.py", "-p", "x", "--commit=all"), "invalid choice"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    batch: Batch, tree: Path, home: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = batch([], *arguments)
    assert done.code == 1
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not (home / "data").exists()


def test_outside_of_git_it_has_to_be_said(
    batch: Batch, work: Work, tree: Path, tmp_path: Path
) -> None:
    (tree / ".git").rename(tmp_path / "git")
    done = batch(work("src/a.py"), "src/a.py", *PROMPT)
    assert done.code == 1
    assert "no git repository" in done.err
    assert batch(work("src/a.py"), "src/a.py", *PROMPT, "--dry-run").code == 0
    allowed = ("--permission-mode", "accept-edits")
    assert batch(work("src/a.py"), "src/a.py", *PROMPT, *allowed).code == 0
    assert texts(tree)[0] == ALL_DONE[0]


def test_plan_mode_only_reads(batch: Batch, work: Work, tree: Path) -> None:
    steps = work("src/a.py")
    steps[1]["expect"] = "plan mode only reads"
    done = batch(steps, "src/a.py", *PROMPT, *JSON, "--permission-mode", "plan")
    assert done.code == 0
    assert done.result["items"][0]["text"] == "Done."
    assert texts(tree) == AS_IT_WAS


def test_the_table_shows_nothing_raw(batch: Batch, play: SimpleNamespace, tree: Path) -> None:
    done = batch([play.say("\x1b[31mred\u202e")], "src/a.py", *PROMPT)
    assert done.code == 0
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out
    assert "red" in done.out
