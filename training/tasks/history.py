"""Tasks around git that go further than its status, TODOs, bounded searches and commands that fail.

In: words, a phrasing, and where processes have to be started a member of a pool. Out: a Task.
"""

from __future__ import annotations

from training.tasks import answers
from training.tasks.commands import RUN, Job, repository, run_policy
from training.tasks.edits import REPLACE, file_with, path_text, replace_policy, request
from training.tasks.lines import bare_or_quoted, named
from training.tasks.phrasing import Phrasing, quoted
from training.tasks.skeletons import FRAMES
from training.tasks.task import Ask, Call, Git, Policy, Task
from training.tasks.vocabulary import Words, language_of, source

DIFF = FRAMES["diff"]
DIFF_FILE = FRAMES["diff_file"]
DIFF_STAGED = FRAMES["diff_staged"]
BRANCH = FRAMES["branch"]
BRANCH_SWITCH = FRAMES["branch_switch"]
ADD_COMMIT = FRAMES["add_commit"]
TODO = FRAMES["todo"]
SEARCH_MOST = FRAMES["search_most"]
MARKERS = ("TODO", "TODO", "TODO", "FIXME", "XXX", "HACK")


def diff(words: Words, phrasing: Phrasing, git: Git) -> Task:
    """What changed, in all files, in one, or in the index."""
    pick = words.rng.random()
    if pick < 0.3 and git.changes:
        path = words.rng.choice(sorted(git.changes))
        text = phrasing.request(DIFF_FILE, {"f": path_text(words, path)})
        ask = Ask(text, lambda: diff_policy({"path": path}))
    elif pick < 0.45:
        ask = Ask(phrasing.request(DIFF_STAGED, {}), lambda: diff_policy({"staged": True}))
    else:
        ask = Ask(phrasing.request(DIFF, {}), lambda: diff_policy({}))
    return Task("git diff", {}, (ask,), git=git, is_pooled=True)


def edited_repository(words: Words) -> Git:
    """A repository with lines changed, added and deleted in a committed file or two."""
    committed: dict[str, str] = {}
    changes: dict[str, str | None] = {}
    for _ in range(words.rng.choice((1, 1, 1, 2))):
        path = words.path()
        lines = source(words, path, words.rng.randint(1, 5))
        committed[path] = "\n".join(lines) + "\n"
        for _ in range(words.rng.choice((1, 1, 2))):
            at = words.rng.randrange(len(lines))
            change = words.rng.choice(("line", "line", "more", "less"))
            if change == "line":
                lines[at] = words.changed(lines[at])
            elif change == "more":
                lines.insert(at, words.statement(language_of(path)))
            elif len(lines) > 1:
                lines.pop(at)
        changes[path] = "\n".join(lines) + "\n"
    if words.chance(0.08):
        changes = {}
    elif words.chance(0.2):
        changes[words.path()] = words.sentence() + "\n"
    staged = tuple(path for path in changes if words.chance(0.25))
    return Git(((words.phrase(1, 3), committed),), changes, staged)


def edit_and_diff(words: Words, phrasing: Phrasing) -> Task:
    """A replacement in a committed file, then "show the diff"."""
    path = words.path()
    old, new = words.pair(language_of(path))
    first = request(words, phrasing, REPLACE, path, old, new)
    content = file_with(words, path, old, 1, most=4)
    asks = (
        Ask(first, lambda: replace_policy(path, old, new)),
        Ask(phrasing.request(DIFF, {}), lambda: diff_policy({})),
    )
    git = Git(((words.phrase(1, 3), {path: content}),))
    return Task("replace, diff", {}, asks, git=git)


def branch(words: Words, phrasing: Phrasing) -> Task:
    """A new branch; now and then there is one of that name."""
    name = branch_name(words)
    git = Git(((words.phrase(1, 3), {words.path(): words.sentence() + "\n"}),))
    if words.chance(0.08):
        git = Git(git.commits, branch=name)
    text = phrasing.request(BRANCH, {"b": bare_or_quoted(words, name)})
    return Task("git branch", {}, (Ask(text, lambda: branch_policy(name)),), git=git)


def branch_and_switch(words: Words, phrasing: Phrasing) -> Task:
    """A new branch, and onto it."""
    name = branch_name(words)
    git = Git(((words.phrase(1, 3), {words.path(): words.sentence() + "\n"}),))
    text = phrasing.request(BRANCH_SWITCH, {"b": bare_or_quoted(words, name)})
    return Task("branch, switch", {}, (Ask(text, lambda: switch_policy(name)),), git=git)


def add_and_commit(words: Words, phrasing: Phrasing) -> Task:
    """A named file staged and committed with a given message."""
    git = repository(words, least=1)
    git = Git(git.commits, git.changes, (), git.branch)
    path = words.rng.choice(sorted(git.changes))
    message = words.phrase(2, 6)
    message = message[0].upper() + message[1:] if words.chance(0.5) else message
    texts = {"m": quoted(words.rng, message)[0], "f": path_text(words, path)}
    text = phrasing.request(ADD_COMMIT, texts)
    return Task("add, commit", {}, (Ask(text, lambda: commit_policy(path, message)),), git=git)


def todos(words: Words, phrasing: Phrasing) -> Task:
    """The TODOs (FIXMEs …) of all files, or none."""
    marker = words.rng.choice(MARKERS)
    text = phrasing.request(TODO, {"a": marker})
    files = {}
    for _ in range(words.rng.randint(1, 3)):
        path = words.path()
        lines = source(words, path, words.rng.randint(1, 3))
        for _ in range(words.rng.choice((0, 1, 1, 2))):
            sign = "//" if language_of(path) in ("js", "ts", "go", "rs", "c", "java") else "#"
            mark = marker if words.chance(0.85) else words.rng.choice(MARKERS)
            colon = words.rng.choice((":", ":", "", f"({words.word()}):"))
            lines.insert(
                words.rng.randint(0, len(lines)), f"{sign} {mark}{colon} {words.phrase(1, 5)}"
            )
        files[path] = "\n".join(lines) + "\n"
    return Task("find todos", files, (Ask(text, lambda: most_policy(marker, None)),))


def search_most(words: Words, phrasing: Phrasing) -> Task:
    """A search that stops at so many matches, which its result says."""
    name, most = words.identifier(), words.rng.randint(1, 3)
    text = phrasing.request(SEARCH_MOST, {"a": named(words, name), "n": str(most)})
    path = words.path()
    lines = [f"{words.identifier()}({name})" for _ in range(words.rng.randint(1, 6))]
    lines += source(words, path, 2)
    words.rng.shuffle(lines)
    ask = Ask(text, lambda: most_policy(name, most))
    return Task("search, bounded", {path: "\n".join(lines) + "\n"}, (ask,))


def command_fails(words: Words, phrasing: Phrasing, job: Job) -> Task:
    """A given command that ends with an error, which the answer says."""
    text = phrasing.request(RUN, {"c": quoted(words.rng, job.command)[0]})
    ask = Ask(text, lambda: run_policy(job.command))
    return Task("command fails", job.files, (ask,), is_pooled=True)


def failing_job(words: Words) -> Job:
    """A command that fails: a missing program or file, no match, or a script that says why."""
    script, name, path = f"{words.word()}.sh", words.word(), words.path().replace(" ", "-")
    said = "".join(f"echo '{words.phrase(1, 4)}'\n" for _ in range(words.rng.randint(0, 3)))
    reason = words.rng.choice((f"error: {words.phrase(1, 4)}", f"{name}: {words.phrase(1, 3)}"))
    code = words.rng.choice((1, 1, 1, 2, 3, 4, 64, 99))
    if words.chance(0.5):
        body = f"{said}echo '{reason}' >&2\nexit {code}\n"
        return Job({script: body}, f"{words.rng.choice(('sh', 'bash'))} {script}")
    commands = (
        f"cat {path}",
        f"ls {name}/{words.word()}",
        f"rm {path}",
        f"cd {name}",
        f"{name} --{words.word()}",
        f"python3 {words.word()}.py",
        f"sh {script}",
        f"grep -n {words.word()} {path}",
        f"mv {path} {words.word()}.bak",
        f"test -f {path}",
        "false",
    )
    return Job({words.path(): words.sentence() + "\n"}, words.rng.choice(commands))


# Policies


def diff_policy(arguments: dict[str, object]) -> Policy:
    result = yield Call("git", {"action": "diff", **arguments})
    if result.startswith("Error: "):
        return answers.could_not("show the diff", result)
    return answers.difference(result)


def branch_policy(name: str) -> Policy:
    result = yield Call("git", {"action": "branch", "branch": name})
    if result.startswith("Error: "):
        return answers.could_not(f"create the branch {name}", result)
    return f"{result}."


def switch_policy(name: str) -> Policy:
    result = yield Call("git", {"action": "branch", "branch": name})
    if result.startswith("Error: "):
        return answers.could_not(f"create the branch {name}", result)
    result = yield Call("git", {"action": "switch", "branch": name})
    if result.startswith("Error: "):
        return answers.could_not(f"switch to {name}", result)
    return f"Created branch {name} and switched to it."


def commit_policy(path: str, message: str) -> Policy:
    result = yield Call("git", {"action": "add", "path": path})
    if result.startswith("Error: "):
        return answers.could_not(f"stage {path}", result)
    result = yield Call("git", {"action": "commit", "message": message})
    if result.startswith("Error: "):
        return answers.could_not("commit", result)
    return result.split("\n")[0] + "."


def most_policy(pattern: str, most: int | None) -> Policy:
    bound = {} if most is None else {"max_results": most}
    result = yield Call("search", {"pattern": pattern, **bound})
    if result.startswith("Error: "):
        return answers.could_not(f"search for `{pattern}`", result)
    return answers.found(pattern, result)


def branch_name(words: Words) -> str:
    kind = words.rng.choice(("", "", "", "feature/", "fix/", "bugfix/", f"{words.word()}/"))
    return kind + words.identifier(words.rng.choice(("kebab", "kebab", "snake")))
