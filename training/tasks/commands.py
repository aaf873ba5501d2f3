"""Tasks that run something: the tests, a given command, git.

In: words, a phrasing, and where processes have to be started a member of a pool. Out: a Task.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from training.tasks import answers
from training.tasks.edits import path_text
from training.tasks.phrasing import Phrasing, is_unmistakable, quoted
from training.tasks.skeletons import FRAMES, Phrases
from training.tasks.task import Ask, Call, Git, Policy, Task, say
from training.tasks.vocabulary import Words, source

TESTS = FRAMES["tests"]
STATUS = FRAMES["status"]
RUN = FRAMES["run"]
RUN_BARE = Phrases(
    tuple(frame for frame in RUN.train if frame.endswith("{c}")),
    tuple(frame for frame in RUN.held if frame.endswith("{c}")),
)
LOG = FRAMES["log"]
ADD = FRAMES["add"]
COMMIT = FRAMES["commit"]
PYTEST = "python3 -m pytest -q"


@dataclass(frozen=True)
class Job:
    """Files, and a command to run among them. Of a project: the one that runs its tests."""

    files: dict[str, str]
    command: str


@dataclass(frozen=True)
class Pool:
    """What tasks that start processes share, so that each is really run only once."""

    projects: tuple[Job, ...]
    jobs: tuple[Job, ...]
    repositories: tuple[Git, ...]
    failing: tuple[Job, ...] = ()
    edited: tuple[Git, ...] = ()


def pool(words: Words, size: int) -> Pool:
    """A pool of `size` repositories and jobs and half as many projects."""
    return Pool(
        tuple(projects(words, size // 2)),
        tuple(shell_job(words) for _ in range(size)),
        tuple(repository(words) for _ in range(size)),
    )


def tests(words: Words, phrasing: Phrasing, project: Job) -> Task:
    """Run the tests of a project with the command of the prompt's "Tests:" line."""
    text = phrasing.request(TESTS, {})
    ask = Ask(text, lambda: tests_policy(project.command))
    return Task("run tests", project.files, (ask,), tests=project.command, is_pooled=True)


def tests_unknown(words: Words, phrasing: Phrasing) -> Task:
    """A repository without tests: ask instead of guessing."""
    ask = Ask(phrasing.request(TESTS, {}), say(answers.NO_TEST_COMMAND))
    files = {words.path("txt"): words.sentence() + "\n"}
    return Task("tests unknown", files, (ask,), tests="unknown")


def projects(words: Words, count: int) -> list[Job]:
    """A pool of projects of every kind, passing, failing and broken."""
    makers: tuple[Callable[[Words], Job], ...] = (
        pytest_project,
        pytest_project,
        pytest_project,
        pytest_project,
        unittest_project,
        unittest_project,
        make_project,
        make_project,
        npm_project,
        foreign_project,
        script_project,
        script_project,
    )
    return [makers[number % len(makers)](words) for number in range(count)]


def pytest_project(words: Words) -> Job:
    rng = words.rng
    folder = rng.choice(("tests/", "tests/", "", "test/"))
    name = f"{folder}test_{words.word()}.py"
    outcomes = test_outcomes(words)
    lines = [f"import {words.word()}_missing"] if words.chance(0.05) else []
    for is_good in outcomes:
        lines += [f"def test_{words.identifier('snake')}():", f"    assert {claim(words, is_good)}"]
    files = {name: "\n".join(lines) + "\n"}
    if words.chance(0.4):
        files["pytest.ini"] = "[pytest]\n"
    return Job(files, PYTEST)


def unittest_project(words: Words) -> Job:
    rng = words.rng
    folder = rng.choice(("tests", "test", ""))
    lines = ["import unittest", "", f"class {words.identifier('pascal')}Test(unittest.TestCase):"]
    for is_good in test_outcomes(words) or [True]:
        lines += [f"    def test_{words.identifier('snake')}(self):"]
        lines += [f"        self.assertTrue({claim(words, is_good)})"]
    files = {f"{folder}/test_{words.word()}.py".removeprefix("/"): "\n".join(lines) + "\n"}
    if folder and words.chance(0.5):
        files[f"{folder}/__init__.py"] = ""
    is_plain = folder and f"{folder}/__init__.py" not in files
    command = f"python3 -m unittest discover -s {folder}" if is_plain else "python3 -m unittest"
    return Job(files, command)


def make_project(words: Words) -> Job:
    """`make test` around a shell script that reports in its own way."""
    good, bad = words.rng.randint(1, 400), words.rng.choice((0, 0, 0, 1, 2, 7))
    report = words.rng.choice(
        (
            f"{good} passed, {bad} failed",
            f"{good} tests ok" if not bad else f"{bad} of {good + bad} tests failed",
            f"PASS: {good} FAIL: {bad}",
            f"ok {good}/{good + bad}",
            f"Tests: {bad} failed, {good} passed, {good + bad} total",
        )
    )
    before = "".join(f"echo '{words.phrase(1, 3)}'\n" for _ in range(words.rng.randint(0, 3)))
    script = f"{before}echo '{report}'\n" + ("exit 1\n" if bad else "")
    name = f"{words.word()}.sh"
    return Job({"Makefile": f"test:\n\t@sh {name}\n", name: script}, "make test")


def npm_project(words: Words) -> Job:
    good, bad = words.rng.randint(1, 90), words.rng.choice((0, 0, 1, 3))
    code = f"console.log('{good} passing');\n"
    code += f"console.log('{bad} failing');\nprocess.exit(1);\n" if bad else ""
    package = {"name": words.word(), "version": "1.0.0", "scripts": {"test": "node check.js"}}
    return Job({"package.json": json.dumps(package), "check.js": code}, "npm test")


def script_project(words: Words) -> Job:
    """Tests run by a script of any name, so that the command is copied and not known by heart.

    The product finds no such command; a prompt that names one is still to be followed.
    """
    name = f"{words.rng.choice(('', 'scripts/', f'{words.word()}/'))}{words.word()}.sh"
    flag = words.rng.choice(("", "", f" --{words.word()}", f" {words.word()}", " -q"))
    report = f"{words.rng.randint(1, 99)} {words.rng.choice(('passed', 'ok', 'checks passed'))}"
    ending = "" if words.chance(0.7) else "exit 1\n"
    report = report if not ending else f"{words.rng.randint(1, 9)} failed"
    return Job({name: f"echo '{report}'\n{ending}"}, f"sh {name}{flag}")


def foreign_project(words: Words) -> Job:
    """A project whose test runner may not be installed: the result is whatever really comes."""
    return Job({"go.mod": f"module {words.word()}\n"}, "go test ./...")


def test_outcomes(words: Words) -> list[bool]:
    """Which of a few tests pass: mostly all."""
    count = words.rng.choice((1, 1, 2, 3, 4, 6, 12))
    if words.chance(0.55):
        return [True] * count
    failing = words.rng.randrange(count)
    return [number != failing for number in range(min(count, 3))]


def claim(words: Words, is_good: bool) -> str:
    number = words.rng.randint(1, 99)
    return f"{number} == {number if is_good else number + words.rng.randint(1, 9)}"


def run_command(words: Words, phrasing: Phrasing, job: Job) -> Task:
    """A command given in the request."""
    command = job.command
    if words.chance(0.45) and is_unmistakable(command):
        text = phrasing.request(RUN_BARE, {"c": command}, plain=True)
        if words.chance(0.3):
            text = words.rng.choice(("please ", "Please ", "can you ", "now ", "hey, ")) + text
    else:
        text = phrasing.request(RUN, {"c": quoted(words.rng, command)[0]})
    ask = Ask(text, lambda: run_policy(command))
    return Task("run command", job.files, (ask,), is_pooled=True)


def shell_job(words: Words) -> Job:
    """A harmless command, and the files it works on."""
    path = words.path().replace(" ", "-")
    content = "\n".join(source(words, path, words.rng.randint(1, 4))) + "\n"
    name, number = words.word(), words.rng.randint(2, 9)
    script = f"{words.word()}.sh"
    body = "".join(f"echo '{words.phrase(1, 4)}'\n" for _ in range(words.rng.randint(0, 3)))
    code = words.rng.choice((0, 0, 0, 1, 2, 3))
    folder = path.rpartition("/")[0] or "."
    on_file = (
        f"cat {path}",
        f"wc -l {path}",
        f"head -n {number} {path}",
        f"tail -n {number} {path}",
        f"ls {folder}",
        f"grep -n {words.word()} {path}",
        f"cp {path} {words.word()}.bak",
        f"rm {path}",
        f"sort {path}",
        f"test -f {path} && echo {name}",
    )
    others = (
        f"echo {words.phrase(1, 3)}",
        f"echo '{words.phrase(1, 3)}' > {words.word()}.txt",
        f"mkdir -p {name}/{words.word()}",
        f"touch {name}.txt",
        f"ls -la {name}",
        f"seq {number}",
        f"expr {number} + {words.rng.randint(1, 99)}",
        f"printf '{name}\\n'",
        f"make {name}",
        f"{name} --{words.word()} {number}",
        f"{name} {words.word()}",
        f"{words.rng.choice(('go build ./...', f'{name}ctl get {words.word()}', f'{name} build'))}",
        f"./{name}.sh --{words.word()}",
        "false",
        "true",
    )
    pick = words.rng.random()
    if pick < 0.45:
        return Job({path: content}, words.rng.choice(on_file))
    if pick < 0.65:
        ending = f"exit {code}\n" if code else ""
        flag = words.rng.choice(("", "", f" --{words.word()}", f" {words.word()}"))
        shell = words.rng.choice(("sh", "bash"))
        return Job({script: body + ending}, f"{shell} {script}{flag}")
    return Job({path: content}, words.rng.choice(others))


def git_status(words: Words, phrasing: Phrasing, git: Git) -> Task:
    """Changed, new, deleted and staged files, or none."""
    ask = Ask(phrasing.request(STATUS, {}), status_policy)
    return Task("git status", {}, (ask,), git=git, is_pooled=True)


def git_log(words: Words, phrasing: Phrasing) -> Task:
    count = words.rng.randint(1, 5)
    messages = [words.phrase(2, 5) for _ in range(words.rng.randint(1, 3))]
    commits = tuple((message, {words.path(): words.sentence()}) for message in messages)
    text = phrasing.request(LOG, {"n": str(count)})

    def policy() -> Policy:
        result = yield Call("git", {"action": "log", "max_count": count})
        if result.startswith("Error: "):
            return answers.could_not("show the log", result)
        return answers.commits(result)

    return Task("git log", {}, (Ask(text, policy),), git=Git(commits))


def git_add(words: Words, phrasing: Phrasing) -> Task:
    git = repository(words, least=1)
    path = words.rng.choice(sorted(git.changes))
    text = phrasing.request(ADD, {"f": path_text(words, path)})

    def policy() -> Policy:
        result = yield Call("git", {"action": "add", "path": path})
        if result.startswith("Error: "):
            return answers.could_not(f"stage {path}", result)
        return f"Staged {path}." if result.startswith("Added") else f"{result}."

    return Task("git add", {}, (Ask(text, policy),), git=git)


def git_commit(words: Words, phrasing: Phrasing) -> Task:
    git = repository(words, least=1)
    git = Git(git.commits, git.changes, tuple(git.changes), git.branch)
    message = words.phrase(2, 6)
    message = message[0].upper() + message[1:] if words.chance(0.5) else message
    text = phrasing.request(COMMIT, {"m": quoted(words.rng, message)[0]})

    def policy() -> Policy:
        result = yield Call("git", {"action": "commit", "message": message})
        if result.startswith("Error: "):
            return answers.could_not("commit", result)
        return result.split("\n")[0] + "."

    return Task("git commit", {}, (Ask(text, policy),), git=git)


def repository(words: Words, *, least: int = 0) -> Git:
    """A repository with one commit and up to four changes."""
    branch = "main" if words.chance(0.7) else words.rng.choice((words.word(), "master", "dev"))
    paths = [words.path() for _ in range(words.rng.randint(1, 2))]
    committed = {path: words.sentence() + "\n" for path in paths}
    count = max(least, words.rng.choice((0, 1, 1, 2, 2, 3, 4)))
    changes: dict[str, str | None] = {}
    for path in (
        [*paths, *(words.path() for _ in range(4))][:count]
        if words.chance(0.6)
        else [words.path() for _ in range(count)]
    ):
        is_gone = path in committed and words.chance(0.2)
        changes[path] = None if is_gone else words.phrase(1, 3) + "\n"
    staged = tuple(path for path in changes if words.chance(0.2))
    return Git(((words.phrase(1, 3), committed),), changes, staged, branch)


def tests_policy(command: str) -> Policy:
    result = yield Call("bash", {"command": command})
    return answers.tested(result)


def run_policy(command: str) -> Policy:
    result = yield Call("bash", {"command": command})
    return answers.ran(result)


def status_policy() -> Policy:
    result = yield Call("git", {"action": "status"})
    if result.startswith("Error: "):
        return answers.could_not("show the status", result)
    return answers.status(result)
