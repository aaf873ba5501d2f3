"""A rule for commands allows plain commands and nothing else, and forbids wherever one may run."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ds4_agent.agent.rules import allowed_by, denied_by, parse_rules
from ds4_agent.agent.shell_syntax import LONGEST, NotPlain, Plain, plain_commands

KNOWN = ("read", "bash", "git")


def is_allowed(command: str, *rules: str) -> bool:
    return allowed_by(parse_rules(rules, KNOWN), "bash", {"command": command}) is not None


def is_denied(command: str, *rules: str) -> bool:
    return denied_by(parse_rules(rules, KNOWN), "bash", {"command": command}) is not None


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("git log", ["git log"]),
        ("git log --format=%h:%s -5 src/a.py", ["git log --format=%h:%s -5 src/a.py"]),
        (
            "make test && git diff; ls | wc -l || pwd",
            ["make test", "git diff", "ls", "wc -l", "pwd"],
        ),
        ("ls\nls -l", ["ls", "ls -l"]),
        ("make test 2>&1", ["make test"]),
        ("make test > /dev/null 2>&1 | tail -3", ["make test", "tail -3"]),
        ("make 2>/dev/null && ls", ["make", "ls"]),
        ("grep 'a|b; $x `c` *' f", ["grep 'a|b; $x `c` *' f"]),
        ('git commit -m "Fix it (again)!"', ['git commit -m "Fix it (again)!"']),
        ("ls;", ["ls"]),
    ],
)
def test_plain_commands_are_taken_apart(command: str, parts: list[str]) -> None:
    assert plain_commands(command) == Plain(tuple(parts))


# The bypasses of the advisories: what each would run beside the allowed `echo` or `git log`.
NOT_PLAIN = [
    # substitutions and expansions
    "echo $(touch F)", "echo `touch F`", 'echo "$(touch F)"', 'echo "`touch F`"', "echo <(touch F)",
    "echo >(touch F)", "echo $x", "echo ${x@P}", "echo ${x:=$(touch F)}", "echo ${!x}",
    "echo $[ x='a[$(touch F)]', x ]", "echo $((x=1))", "echo $'\\x24(touch F)'", 'echo $"a"',
    "echo$IFS-n", "echo ${IFS}x", "echo {a,b}", "echo a{1..3}", "echo ~", "echo ~root/x",
    "echo *", "echo ?", "echo [ab]", "echo @(a|b)", "echo a\\ b", "echo \\$x", "echo !(x)",
    # redirections, heredocs
    "echo x > F", "echo x >> F", "echo x >| F", "echo x &> F", "echo x >& F", "echo x 2> F",
    "echo x <> F", "echo < F", "echo x > /dev/null/../F", "echo x >/dev/nullx", "> F echo",
    "> /dev/null echo x", "echo >/dev/null x > F", "echo x > '/dev/null'F",
    "cat <<E\n$(touch F)\nE",
    "cat <<'E'\nx\nE", "cat <<< x", "echo {fd}>F", "echo x > /dev/tcp/1.2.3.4/80", "echo >!F",
    # control flow, grouping, background
    "echo x & touch F", "echo &", "(echo x)", "{ echo x; }", "! echo x",
    "if echo; then touch F; fi",
    "for i in a; do echo; done", "while echo; do touch F; done", "case x in *) touch F;; esac",
    "f() { touch F; }", "function echo { touch F; }", "[[ -v a[$(touch F)] ]]", "[ x ]", "((x=1))",
    "coproc touch F", "echo x ;; touch F",
    # the environment of later commands
    "A=1 echo", "PATH=. echo", "A=1", "a[1]=2", "export A=b", "declare -x A", "typeset A=1",
    "readonly A=1", "unset A", "PAGER=sh git log", '"A"=1 echo', "x=(a b)",
    # a text that is run
    "sh -c 'touch F'", "bash -lc 'touch F'", "eval 'touch F'", "env sh -c 'touch F'",
    "/bin/sh -c x", "trap 'touch F' EXIT", "busybox sh -c x",
    # what cannot be seen or read
    "echo\ttouch", "echo x\r\ntouch F", "echo \x1b[2J", "echo \u202ex", "echo a\u200bb",
    "echo\xa0x",
    "echo \x00 x", "echo \ud800", "echo x # touch F", "echo x \\\n; touch F", "echo '\n'",
    # not bash, or not yet
    "echo 'x", 'echo "x', "echo )", "echo (", "echo x &&", "| echo", "if", "echo `", "", ";", "&&",
    "echo x; " * 40, "echo " + "x" * LONGEST,
]  # fmt: skip


@pytest.mark.parametrize("command", NOT_PLAIN)
def test_what_is_more_than_plain_commands_matches_no_pattern(command: str) -> None:
    assert isinstance(plain_commands(command), NotPlain)
    for name in ("echo", "git", "cat", "sh", "bash", "env", "A", "touch", "eval", "trap", "coproc"):
        assert not is_allowed(command, f"bash({name}:*)", f"bash({name}*)")


@pytest.mark.parametrize(
    "command",
    [
        "git log; touch F", "git log && touch F", "git log || touch F", "git log | touch F",
        "git log |& touch F", "git log\ntouch F", "touch F; git log", "'git' log", 'gi"t" log',
        "/tmp/git log", "./git log", "GIT log", "git  log", "git logs", "git log'x'", "gіt log",
    ],
)  # fmt: skip
def test_every_part_has_to_be_allowed_and_as_written(command: str) -> None:
    assert not is_allowed(command, "bash(git log:*)")


def test_parts_may_be_allowed_by_different_rules() -> None:
    rules = ("bash(git log:*)", "bash(head:*)", "bash(make test)")
    assert is_allowed("git log -3 | head -1 && make test 2>&1", *rules)
    assert not is_allowed("git log -3 | head -1 && make tests", *rules)


def test_a_command_that_stands_in_a_rule_word_for_word_is_allowed() -> None:
    assert is_allowed("ls *.py > out.txt", "bash(ls *.py > out.txt)")
    assert not is_allowed("ls *.py > out.txt; rm x", "bash(ls *.py > out.txt)")


MAY_RUN_RM = [
    "rm x", "rm", "ls && rm x", "ls; rm x", "ls | rm", "ls & rm x", "(rm x)", "{ rm x; }", "! rm x",
    "echo $(rm x)", "echo `rm x`", 'echo "$(rm x)"', "cat <(rm x)", "echo $((`rm x`))",
    "cat <<E\n$(rm x)\nE", "cat <<< $(rm x)", "ls > $(rm x)", "a=$(rm x)", "${x:-`rm x`}",
    "${x:-$(rm x)}", "if true; then rm x; fi", "for f in *; do rm $f; done", "f() { rm x; }; f",
    "case x in *) rm x;; esac", "while rm x; do :; done", "[[ -n $(rm x) ]]", "[ a ] && rm x",
    "declare -a x=($(rm x))", "let 'a[$(rm x)]=1'", "unset 'a[$(rm x)]'", "rm x > /dev/null",
    ">f rm x", "A=1 rm x", "rm $x", "rm *",
    # spelled otherwise
    "\\rm x", "r\\m x", "'rm' x", '"rm" x', 'r"m" x', "rm'' x", "$'rm' x", "$'\\x72m' x",
    '$"rm" x',
    "/bin/rm x", "/usr/bin/../bin/rm x", "$BIN/rm x", "r\\\nm x", "rm\\\n x", "r${E}m x",
    "/bin/r? x",
    "/bin/r[m] x", "{rm,x}", "rm${IFS}x", "$CMD x", "X=rm; $X x", "$(echo rm) x", "  rm x", "rm\tx",
    "ls\n\\rm x", "ls -l\n\\rm x", "! ! rm x", "! ! xargs rm x", "X=1 ``\trm x",
    # behind another command
    "env rm x", "env -i A=1 rm x", "env -S 'rm x'", "sudo rm x", "sudo -u root rm x", "nohup rm x",
    "timeout 5 rm x", "timeout -k 5 10 rm x", "xargs rm", "ls | xargs -n1 rm", "command rm x",
    "exec rm x", "exec -a ls rm x", "nice -n 5 rm x", "time rm x", "time -p rm x", "coproc rm x",
    "builtin rm", "/usr/bin/env rm x", "sudo env nice rm x", "stdbuf -o0 rm x", "setsid rm x",
    "find . -name x -exec rm {} +", "find . -execdir rm {} \\;", "watch rm x", "sudo $CMD x",
    # run as text
    "sh -c 'rm x'", "bash -lc 'ls; rm x'", "eval 'rm x'", "eval rm x", "echo 'rm x' | sh",
    "bash <<E\nrm x\nE", "bash <<< 'rm x'", "env bash -c 'rm x'", "trap 'rm x' EXIT",
    "sh -c \"sh -c 'rm x'\"", "sh -c '/bin/rm x'", "xargs sh -c 'rm x'", ". <(echo rm x)",
    "sh -c ${x:-rm y}", "sh -c 'r\\m x'", "env -S'rm x'", "su -c 'rm x'", "$SHELL -c 'rm x'",
    "let \"a[\\$(rm x)]=1\"", "x='a[$(rm y)]'; echo $((x))", "alias q='rm x'",
    # heredocs: what stands behind one, and what is expanded in one
    "cat <<E | rm x\nfoo\nE", "cat <<E && rm x\nfoo\nE", "cat <<E\nfoo\nE\nrm x",
    "cat <<E\n`rm x`\nE",
    "cat <<-E\n\t$(rm x)\n\tE", "cat <<'E F'\nx\nE F\nrm x", "cat <<A <<B\n1\nA\n2\nB\nrm x",
    "cat <<\\E\nx\nE\nrm x", "cat <<E\nE\nrm x\nE", "echo $((1<<2))\nrm x",
    # does not parse
    "rm x )", "echo ( rm x", "rm 'x", "if rm x", "ls ||| rm x", "rm x \x01", "x @(a) rm x",
    "rm " + "x" * 2 * LONGEST, "echo x;" * 2000 + "rm x", "((" * 500 + " rm x",
]  # fmt: skip


@pytest.mark.parametrize("command", MAY_RUN_RM)
def test_a_forbidden_command_is_found_wherever_it_may_run(command: str) -> None:
    assert is_denied(command, "bash(rm:*)")
    assert is_denied(command, "bash(rm*)")


@pytest.mark.parametrize(
    "command",
    [
        "ls", "rmdir x", "echo rm x", "grep -r rm .", "git rm x", "git commit -m 'rm x'",
        "npm run rm",
        "make test 2>&1 | tail -5", "for f in *.py; do wc -l $f; done", "cat > f <<'E'\nrm x\nE",
        "find . -name '*.py'", "sh build.sh", "PYTHONPATH=src python3 -m pytest -q \"$x\"",
        "$VENV/bin/python -m pytest", "awk '{print $1}' rm.txt", "git log --format=$FORMAT",
    ],
)  # fmt: skip
def test_what_only_mentions_a_forbidden_command_is_not_refused(command: str) -> None:
    assert not is_denied(command, "bash(rm:*)")


@pytest.mark.parametrize(
    ("command", "is_hit"),
    [
        ("git push", True), ("git push --force", True), ("git $x", True),
        ("git status -s", False), ("git 2>&1 push", True), ("ls && git >f <g push x", True),
        ("git <<E push\nE", True), ("git <<< x push", True),
        ("git pull", False), ("git >f push", True), ("git log $x", False), ("xargs git push", True),
        ("/usr/bin/git push", True), ("git 'push'", True), ("git p{ush,ull}", True),
    ],
)  # fmt: skip
def test_a_forbidden_sub_command(command: str, is_hit: bool) -> None:
    assert is_denied(command, "bash(git push:*)") == is_hit


def test_a_pattern_with_stars_is_looked_for_in_the_whole_line() -> None:
    assert is_denied("ls; git push -f --force", "bash(*--force*)")
    assert not is_denied("ls; git push", "bash(*--force*)")


WORD = st.text("abcxyz019._/-", min_size=1, max_size=6)
TAIL = st.text(
    st.sampled_from("aabb   ''\"\"-./=:%@+,\\$`(){}[]<>|&;!#~*?\n\t")
    | st.characters(max_codepoint=0x2100),
    max_size=10,
)
BREAKS = (
    "; touch {}", " && touch {}", " || touch {}", " | touch {}", " & touch {}", "\ntouch {}",
    " $(touch {})", " `touch {}`", ' "$(touch {})"', " <(touch {})", " > {}", " >> {}", " 2>{}",
    " $x{}", " ${{x:-{}}}", " <<E\n{}\nE", " *{}", " {{a,{}}}", " &", " &> {}", " <{}",
)  # fmt: skip


@given(WORD, st.lists(WORD, max_size=3), st.sampled_from(BREAKS), WORD, st.lists(WORD, max_size=2))
@settings(max_examples=400, deadline=None)
def test_no_separator_expansion_or_redirection_passes_the_rule_of_the_first_word(
    first: str, arguments: list[str], broken: str, target: str, after: list[str]
) -> None:
    command = " ".join((first, *arguments)) + broken.format(target) + " " + " ".join(after)
    assert not is_allowed(command, f"bash({first}:*)", f"bash({first} *)")


BASH = shutil.which("bash") or ""
needs_bash = pytest.mark.skipif(not BASH, reason="there is no bash")
SHOW = 'show() { for word in "$@"; do printf \'<%s>\' "$word"; done; }\n'


@needs_bash
@given(TAIL)
@settings(max_examples=300, deadline=None)
def test_what_is_plain_gives_bash_the_words_that_were_read(tail: str) -> None:
    command = f"show {tail}".strip(" \t\n")
    read = plain_commands(command)
    if isinstance(read, NotPlain) or len(read.parts) != 1:
        return
    assert run(SHOW + command, Path(__file__).parent) == "".join(
        f"<{word}>" for word in shlex.split(read.parts[0])[1:]
    )


def run(command: str, directory: Path, **environment: str) -> str:
    done = subprocess.run(
        [BASH, "--noprofile", "--norc", "-c", command],
        stdin=subprocess.DEVNULL, capture_output=True, cwd=directory, env=environment, timeout=20,
    )  # fmt: skip
    return done.stdout.decode("utf-8", "surrogateescape")


# Pieces that make, and break, every kind of shell syntax around the command `rm x`.
PIECES = (
    "rm x", "rm x", "rm x", "rm", "ok", "ok", "ok", " ", " ", "'", '"', "\\", "$(", ")", "`", ";",
    "\n", " && ", " | ", "<<E", "<<'E'", "\nE\n", "{ ", "; }", "if :; then ", "; fi", " #", "${x:-",
    "}", "$((", "))", "<(", ">f ", "2>&1 ", ">/dev/null", "env ", "X=1 ", "case a in a) ",
    ";; esac", "[[ ", " ]]", "f() ", "eval ", "sh -c ", "(", "! ", "&",
    "~", "*", "{a,b}", "$'", "\\\n", "<<<",
    "for i in a; do ", "; done", "xargs ", "a=(", "$[", "]", "a[", "\\'", "nice ", "\t", "\r",
)  # fmt: skip


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PATH on which `rm` only leaves a mark, and a directory to work in."""
    place = tmp_path_factory.mktemp("commands")
    (place / "bin").mkdir()
    (place / "work").mkdir()
    for name, script in (("rm", ': > "$MARK"'), ("ok", "exit 0")):
        (place / "bin" / name).write_text(f"#!{BASH}\n{script}\n")
        (place / "bin" / name).chmod(0o755)
    for name in ("bash", "env", "xargs", "nice", "cat"):
        (place / "bin" / name).symlink_to(shutil.which(name) or "/nonexistent")
    (place / "bin/sh").symlink_to(BASH)
    return place


@needs_bash
@given(pieces=st.lists(st.sampled_from(PIECES), min_size=2, max_size=9))
@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_what_bash_really_runs_was_seen(commands: Path, pieces: list[str]) -> None:
    """The differential: bash runs `rm` only where a refusing rule for it had spoken, and a command
    line allowed by the rule of another command neither runs it nor makes a file."""
    command = "".join(pieces)
    mark = commands / "mark"
    mark.unlink(missing_ok=True)
    run(command, commands / "work", PATH=str(commands / "bin"), MARK=str(mark))
    made = list((commands / "work").iterdir())
    for path in made:
        path.unlink()
    assert is_denied(command, "bash(rm:*)") or not mark.exists()
    if is_allowed(command, "bash(ok:*)"):
        assert not mark.exists()
        assert not made
