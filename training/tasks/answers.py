"""The one style of nano's final answers, made from what the request said and the tools returned.

In: texts of the request and of tool results. Out: the answer. Each is short and its facts are
copies, so that a small model can be exact.
"""

from __future__ import annotations

import re

SHOWN_LINES = 12  # longer files and outputs are not repeated in the answer
HELLO = "Hello! I am ds4-agent. Tell me what to read, edit, create or run in this repository."
WELCOME = "You are welcome."
CANNOT = "I cannot do that. I can read, edit, create and search files, run commands and use git."
NO_TEST_COMMAND = "I do not know how the tests of this repository are run. Which command runs them?"
# Endings of test output that say nothing about the tests: the runner of the runner speaks.
NOISE = re.compile(r"^(make(\[\d+\])?: |npm (ERR!|error|notice)|Error: Process|\s*$)")


def could_not(what: str, result: str) -> str:
    """An honest report: the reason is the tool's own."""
    reason = result.split("\n")[0].removeprefix("Error: ")
    return f"I could not {what}: {reason}"


def places(result: str) -> str:
    """`(4 places)` from an edit's `… 4 replacements …`."""
    found = re.search(r": (\d+) replacement", result)
    count = int(found[1]) if found else 0
    return f"({count} place{'' if count == 1 else 's'})"


def replaced(old: str, new: str, path: str, result: str, *, everywhere: bool) -> str:
    end = f" {places(result)}." if everywhere else "."
    return f"Replaced `{old}` with `{new}` in {path}{end}"


def renamed(old: str, new: str, path: str, result: str) -> str:
    return f"Renamed `{old}` to `{new}` in {path} {places(result)}."


def fence(text: str) -> str:
    return f"```\n{text.removesuffix(chr(10))}\n```"


def shown(result: str) -> str:
    """The answer to "show the file" from a successful `read` result."""
    header, _, body = result.partition("\n")
    match = re.fullmatch(r"(.*), lines (\d+)-(\d+) of (\d+)(;.*)?", header)
    if match is None:
        return f"{header}."
    path, first, last, total = match[1], int(match[2]), int(match[3]), match[4]
    if last - first + 1 > SHOWN_LINES:
        return f"{path} has {total} lines."
    return f"{path}:\n{fence(body)}"


def suggestion(result: str) -> str | None:
    """The path of `did you mean …?`, if the result has one."""
    match = re.search(r"; did you mean (.*)\?$", result.split("\n")[0])
    return match[1] if match else None


def written(path: str, result: str) -> str:
    return f"{'Overwrote' if result.startswith('Overwrote') else 'Created'} {path}."


def output_of(result: str) -> tuple[str, list[str]]:
    """A `bash` result as its first line and the lines of output."""
    header, _, body = result.partition("\n")
    return header, body.removesuffix("\n").split("\n") if body.strip() else []


def ran(result: str) -> str:
    """The answer to "run this command"."""
    header, lines = output_of(result)
    code = header.removesuffix(", no output").removeprefix("exit code ")
    if header.startswith("exit code 0"):
        if not lines:
            return "The command printed nothing."
        if len(lines) > SHOWN_LINES:
            return f"The command succeeded. The last line is: {lines[-1]}"
        return "The command printed:\n" + fence("\n".join(lines))
    if not header.startswith("exit code "):
        return could_not("run it", header)
    if not lines:
        return f"The command failed with exit code {code}."
    return f"The command failed with exit code {code}: {lines[-1]}"


def tested(result: str) -> str:
    """Pass or fail with the line that says so, as the tests printed it."""
    header, lines = output_of(result)
    if header.startswith("exit code 127") and lines:
        return f"I could not run the tests: {lines[-1]}"
    word = "pass" if header.startswith("exit code 0") else "fail"
    line = verdict_line(lines) or header
    return f"The tests {word}: {line}"


def verdict_line(lines: list[str]) -> str:
    """The line of a test run that counts: the last one, noise of make and npm apart."""
    kept = [line for line in lines if not NOISE.match(line)]
    if not kept:
        return ""
    if re.match(r"(OK|FAILED|NO TESTS RAN)\b", kept[-1]) and len(kept) > 1:
        return f"{kept[-2]}: {kept[-1]}"  # unittest: "Ran 3 tests in 0.001s" and "OK"
    return kept[-1]


def status(result: str) -> str:
    """The changed files of a `git status` result."""
    header, _, body = result.partition("\n")
    if not body:
        branch = re.sub(r"^On branch (\S+?),.*$", r"\1", header)
        return f"Nothing to commit on branch {branch}."
    return f"Changed files:\n{body.rstrip(chr(10))}"


def entries(path: str | None, result: str) -> str:
    return f"Files in {path or 'this repository'}:\n{result.rstrip(chr(10))}"


def found(pattern: str, result: str) -> str:
    lines = result.rstrip("\n").split("\n")
    if lines[-1].startswith("No matches"):
        return f"No matches for `{pattern}`."
    return f"{lines[-1]}:\n" + "\n".join(lines[:-1])


def commits(result: str) -> str:
    kept = [line for line in result.rstrip("\n").split("\n") if not line.startswith("…")]
    return "Commits:\n" + "\n".join(kept)


def difference(result: str) -> str:
    """The changed lines of a `git diff`, by file; of a long one only which files."""
    if not result.startswith("diff --git"):
        return f"{result}."
    names = re.findall(r"^diff --git a/.* b/(.*)$", result, re.MULTILINE)
    body, is_hunk = [], False  # a deleted `-- note` looks like a file's header
    for line in result.split("\n"):
        is_hunk = line.startswith("@@") or (is_hunk and not line.startswith("diff --git"))
        body += [line] if is_hunk and line[:1] in ("+", "-") else []
    if len(body) > SHOWN_LINES:
        return f"Changed: {', '.join(names)}."
    return f"Changed: {', '.join(names)}\n```diff\n" + "\n".join(body) + "\n```"
