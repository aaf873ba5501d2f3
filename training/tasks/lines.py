"""Tasks that add, delete or set one line of a file: append, delete, import, constant, a block.

In: words and a phrasing. Out: a Task. The policies look first where the request does not say what
stands in the file, and change the least text that occurs once.
"""

from __future__ import annotations

from collections.abc import Callable

from training.tasks import answers, places
from training.tasks.edits import AGAIN, near_path, path_text
from training.tasks.phrasing import Phrasing, is_unmistakable, quoted
from training.tasks.skeletons import FRAMES
from training.tasks.task import Ask, Call, Policy, Task
from training.tasks.vocabulary import Words, language_of, source

APPEND = FRAMES["append"]
DELETE = FRAMES["delete_line"]
DELETE_NUMBER = FRAMES["delete_number"]
IMPORT = FRAMES["import"]
CONSTANT = FRAMES["constant"]
CONSTANT_ANYWHERE = FRAMES["constant_anywhere"]
BLOCK = FRAMES["replace_block"]
CONFIGS = ("py", "py", "py", "js", "ts", "toml", "yaml", "ini", "env", "sh", "json")


def append(words: Words, phrasing: Phrasing) -> Task:
    """A line at the end of a file, which may be empty or lack its last newline."""
    path = words.path()
    line = new_line(words, path)
    text = phrasing.request(APPEND, {"t": bare_or_quoted(words, line), "f": path_text(words, path)})
    ask = Ask(text, lambda: append_policy(path, line))
    content = "" if words.chance(0.05) else some_file(words, path)
    return Task("append", {path: content}, (ask,))


def append_again(words: Words, phrasing: Phrasing) -> Task:
    """A line at the end of a file, then "the same in" another."""
    path = words.path()
    other = words.path(language_of(path) if "." in path else None)
    line = new_line(words, path)
    first = phrasing.request(
        APPEND, {"t": bare_or_quoted(words, line), "f": path_text(words, path)}
    )
    return Task(
        "append again",
        different({path: some_file(words, path), other: some_file(words, other)}),
        (
            Ask(first, lambda: append_policy(path, line)),
            Ask(again(words, phrasing, other), lambda: append_policy(other, line)),
        ),
    )


def delete(words: Words, phrasing: Phrasing) -> Task:
    """A line given by its text without the blanks around it; it stands in the file once."""
    path = words.path()
    lines = file_lines(words, path, least=2)
    number = words.rng.randrange(len(lines))
    line = lines[number].strip()
    if sum(each.strip() == line for each in lines) > 1:
        raise ValueError("the line is not the only one")
    text = phrasing.request(DELETE, {"t": quoted(words.rng, line)[0], "f": path_text(words, path)})
    ask = Ask(text, lambda: delete_policy(path, line))
    return works(Task("delete line", {path: written(words, lines)}, (ask,)))


def delete_number(words: Words, phrasing: Phrasing) -> Task:
    """A line given by its number; now and then there are not so many."""
    path = words.path()
    lines = file_lines(words, path, least=2, most=9)
    is_past = words.chance(0.08)
    number = len(lines) + words.rng.randint(1, 9) if is_past else words.rng.randint(1, len(lines))
    text = phrasing.request(DELETE_NUMBER, {"n": str(number), "f": path_text(words, path)})
    ask = Ask(text, lambda: delete_number_policy(path, number))
    task = Task("delete line number", {path: written(words, lines)}, (ask,))
    return task if is_past else works(task)


def add_import(words: Words, phrasing: Phrasing) -> Task:
    """An import, put before the first one there is; now and then it is there already."""
    path, line = import_of(words)
    text = phrasing.request(IMPORT, {"t": bare_or_quoted(words, line), "f": path_text(words, path)})
    lines = importing(words, path)
    if words.chance(0.2):
        lines.insert(words.rng.randint(0, min(2, len(lines))), line)
    ask = Ask(text, lambda: import_policy(path, line))
    return Task("add import", {path: written(words, lines)}, (ask,))


def import_again(words: Words, phrasing: Phrasing) -> Task:
    """An import, then "the same in" another file."""
    path, line = import_of(words)
    other = words.path(language_of(path))
    first = phrasing.request(
        IMPORT, {"t": bare_or_quoted(words, line), "f": path_text(words, path)}
    )
    files = {each: written(words, importing(words, each)) for each in (path, other)}
    asks = (
        Ask(first, lambda: import_policy(path, line)),
        Ask(again(words, phrasing, other), lambda: import_policy(other, line)),
    )
    return Task("import again", different(files), asks)


def constant(words: Words, phrasing: Phrasing) -> Task:
    """A new value for a name of a file; the request does not say the old one."""
    path = words.path(words.rng.choice(CONFIGS))
    name, _old, value, lines = setting(words, path)
    names = {"a": named(words, name), "b": bare_or_quoted(words, value)}
    text = phrasing.request(CONSTANT, {**names, "f": path_text(words, path)})
    ask = Ask(text, lambda: constant_policy(path, name, value))
    return works(Task("constant", {path: written(words, lines)}, (ask,)))


def constant_anywhere(words: Words, phrasing: Phrasing) -> Task:
    """The same without a file: a search finds where the name gets its value."""
    path, other = words.path(words.rng.choice(CONFIGS)), words.path("py")
    name, _old, value, lines = setting(words, path)
    names = {"a": named(words, name), "b": bare_or_quoted(words, value)}
    text = phrasing.request(CONSTANT_ANYWHERE, names)
    ask = Ask(text, lambda: constant_policy(None, name, value))
    uses = [*source(words, other, words.rng.randint(0, 3)), f"print({name})"]
    files = different({path: written(words, lines), other: "\n".join(uses) + "\n"})
    return works(Task("constant anywhere", files, (ask,)))


def replace_block(words: Words, phrasing: Phrasing) -> Task:
    """Several lines by others, both given in fences."""
    path = words.path(words.rng.choice(("py", "py", "py", "js", "md", "txt", "toml", "sh", "go")))
    old = source(words, path, words.rng.randint(1, 3))
    new = [words.changed(line) if words.chance(0.6) else line for line in old]
    if words.chance(0.5):
        new = source(words, path, words.rng.randint(1, 4))
    a, b = "\n".join(old), "\n".join(new)
    if "```" in a + b or a == b or not a.strip():
        raise ValueError("not two different blocks")
    lines = source(words, path, words.rng.randint(0, 4))
    at = words.rng.randint(0, len(lines))
    content = "\n".join([*lines[:at], *old, *lines[at:]]) + "\n"
    if content.count(a) != 1:
        raise ValueError("the block does not stand there once")
    fenced = {"a": f"```\n{a}\n```", "b": f"```\n{b}\n```", "f": path_text(words, path)}
    text = phrasing.request(BLOCK, fenced, plain=True)
    return Task("replace block", {path: content}, (Ask(text, lambda: block_policy(path, a, b)),))


def change_missing(words: Words, phrasing: Phrasing) -> Task:
    """One of these where the file, the line or the name is not there."""
    make = words.rng.choice((append, delete, add_import, constant))
    task = make(words, phrasing)
    ((path, content),) = task.files.items()
    is_gone = make in (append, add_import) or words.chance(0.4)
    if is_gone:
        there = near_path(words, path) if words.chance(0.5) else words.path()
        files = {there: content}
    else:
        files = {path: some_file(words, path)}
    if path in files and files[path] == content:
        raise ValueError("nothing is missing")
    return Task("change fails", files, task.asks)


# Policies


def append_policy(path: str, line: str) -> Policy:
    result = yield Call("read", {"path": path})
    if result.startswith("Error: "):
        return answers.could_not(f"edit {path}", result)
    lines = places.page(result)
    if lines:
        old = places.tail(lines)
        done = f"Added `{line}` to the end of {path}."
        return (yield from change(path, old, f"{old}\n{line}", done))
    result = yield Call("write", {"path": path, "content": line + "\n"})
    if result.startswith("Error: "):
        return answers.could_not(f"edit {path}", result)
    return f"Added `{line}` to the end of {path}."


def delete_policy(path: str, line: str) -> Policy:
    result = yield Call("read", {"path": path})
    if result.startswith("Error: "):
        return answers.could_not(f"edit {path}", result)
    lines = places.page(result)
    found = [i for i, each in enumerate(lines) if each.strip() == line]
    if not found:
        return f"There is no line `{line}` in {path}."
    done = f"Deleted the line `{line}` from {path}."
    if found[0] == len(lines) - 1:  # a newline may or may not follow: take the one before
        return (yield from change(path, "\n" + lines[-1], "", done))
    return (yield from change(path, lines[found[0]] + "\n", "", done))


def delete_number_policy(path: str, number: int) -> Policy:
    result = yield Call("read", {"path": path, "start_line": number, "max_lines": 1})
    if result.startswith("Error: "):
        return answers.could_not(f"delete line {number} of {path}", result)
    lines = places.page(result)
    if not lines:
        return f"There is no line {number} in {path}."
    is_last = "; continue with" not in result.split("\n")[0]
    old = "\n" + lines[0] if is_last else lines[0] + "\n"
    return (
        yield from change(path, old, "", f"Deleted line {number} of {path}: `{lines[0].strip()}`")
    )


def import_policy(path: str, line: str) -> Policy:
    result = yield Call("read", {"path": path})
    if result.startswith("Error: "):
        return answers.could_not(f"edit {path}", result)
    lines = places.page(result)
    if line in lines:
        return f"`{line}` is already in {path}."
    if not lines:
        return f"{path} is empty."
    first = next((i for i, each in enumerate(lines) if each.startswith(("import ", "from "))), 0)
    old = places.head(lines, first)
    # Nothing may stand before these two.
    is_after = lines[first].startswith(("#!", "from __future__ "))
    new = f"{old}\n{line}" if is_after else f"{line}\n{old}"
    return (yield from change(path, old, new, f"Added `{line}` to {path}."))


def constant_policy(path: str | None, name: str, value: str) -> Policy:
    where = path or "this repository"
    result = yield Call("search", {"pattern": name} | ({"path": path} if path else {}))
    if result.startswith("Error: "):
        return answers.could_not(f"change `{name}` in {where}", result)
    for row in places.rows(result):
        new = places.assigned(row.text.strip(), name, value)
        if new is not None:
            done = f"Set `{name}` to `{value}` in {row.path}."
            return (yield from change(row.path, row.text.strip(), new, done))
    return f"I could not find where `{name}` is set in {where}."


def block_policy(path: str, old: str, new: str) -> Policy:
    return (yield from change(path, old, new, f"Replaced the block in {path}."))


def change(path: str, old: str, new: str, done: str) -> Policy:
    """One edit, and `done` as the answer if it went well."""
    result = yield Call("edit", {"path": path, "old": old, "new": new})
    return answers.could_not(f"edit {path}", result) if result.startswith("Error: ") else done


# Files and requests


def works(task: Task) -> Task:
    """The task; raises ValueError where its first edit would meet a text that is not unique."""
    ((path, content), *_) = task.files.items()
    policy = task.asks[0].policy()
    call = next(policy)
    shown = task_view(path, content, call)
    try:
        edit = policy.send(shown)
    except StopIteration:
        raise ValueError("nothing to change") from None
    if edit.name != "edit" or content.count(edit.arguments["old"]) != 1:
        raise ValueError("the text to change is not unique")
    if edit.arguments["old"] == edit.arguments["new"]:
        raise ValueError("nothing changes")
    return task


def task_view(path: str, content: str, call: Call) -> str:
    """What a look at the file would say: enough of it for a policy to decide."""
    lines = content.removesuffix("\n").split("\n")
    if call.name == "search":
        name = call.arguments["pattern"]
        return "\n".join(f"{path}:{i}: {x}" for i, x in enumerate(lines, 1) if name in x)
    start = call.arguments.get("start_line", 1)
    kept = lines[start - 1 : start - 1 + call.arguments.get("max_lines", 500)]
    last = start + len(kept) - 1
    more = f"; continue with start_line={last + 1}" if last < len(lines) else ""
    return "\n".join([f"{path}, lines {start}-{last} of {len(lines)}{more}", *kept])


def again(words: Words, phrasing: Phrasing, other: str) -> str:
    return phrasing.request(AGAIN, {"f": path_text(words, other)})


def different(files: dict[str, str]) -> dict[str, str]:
    """`files`; raises ValueError where two names became one."""
    if len(files) < 2:
        raise ValueError("one path twice")
    return files


def some_file(words: Words, path: str) -> str:
    return written(words, file_lines(words, path, least=1))


def file_lines(words: Words, path: str, *, least: int, most: int = 7) -> list[str]:
    """Lines of a made-up file, the last of them not empty; now and then more of them."""
    count = words.rng.randint(8, 16) if words.chance(0.12) else words.rng.randint(least, most)
    return source(words, path, max(count, least))


def written(words: Words, lines: list[str]) -> str:
    return "\n".join(lines) + ("\n" if words.chance(0.93) else "")


def new_line(words: Words, path: str) -> str:
    """A line to add: mostly one of the file's language, now and then an odd one."""
    line = words.odd_fragment() if words.chance(0.08) else words.statement(language_of(path))
    if line != line.strip() or not line:
        raise ValueError("blanks around the line")
    return line


def bare_or_quoted(words: Words, text: str) -> str:
    return quoted(words.rng, text, bare=True)[0]


def named(words: Words, name: str) -> str:
    """A name as a request writes it: bare where it cannot be taken for a word of the sentence."""
    is_bare = is_unmistakable(name) and words.chance(0.7)
    return name if is_bare else quoted(words.rng, name)[0]


def import_of(words: Words) -> tuple[str, str]:
    """A path and an import of its language."""
    language = words.rng.choice(("py", "py", "py", "py", "js", "ts", "java", "kt"))
    path, one, other = words.path(language), words.word(), words.identifier()
    shapes: dict[str, tuple[str, ...]] = {
        "py": (
            f"import {one}",
            f"import {one}.{words.word()}",
            f"import {one} as {words.word()}",
            f"from {one} import {other}",
            f"from {one} import {other}, {words.identifier()}",
            f"from .{one} import {other}",
            f"from {one}.{words.word()} import {other}",
        ),
        "js": (
            f"import {other} from '{one}';",
            f'import {{ {other} }} from "./{one}";',
            f"import * as {one} from '{words.word()}';",
        ),
        "java": (f"import {one}.{words.word()}.{words.identifier('pascal')};",),
    }
    same = {"ts": "js", "kt": "java"}.get(language, language)
    return path, words.rng.choice(shapes[same])


def importing(words: Words, path: str) -> list[str]:
    """A source file with up to three imports at its top, behind a comment at times."""
    language = language_of(path)
    sign = "#" if language == "py" else "//"
    lines = [f"{sign} {words.phrase(1, 4)}"] if words.chance(0.2) else []
    if language == "py" and words.chance(0.12):
        lines = ["from __future__ import annotations"]
    elif language == "py" and words.chance(0.06):
        lines = ["#!/usr/bin/env python3"]
    for _ in range(words.rng.choice((0, 1, 1, 2, 2, 3))):
        line = import_of(words)[1]
        if (language == "py") == (not line.endswith(";")):
            lines.append(line)
    body = source(words, path, words.rng.randint(1, 5))
    body = [line for line in body if not line.strip().startswith(("import ", "from "))]
    return [*lines, *body] or [f"{sign} {words.word()}"]


def setting(words: Words, path: str) -> tuple[str, str, str, list[str]]:
    """A name, its old and its new value, and lines in which it is set once and may be used."""
    language = language_of(path)
    styles = {"yaml": "snake", "toml": "snake", "ini": "snake", "env": "upper", "sh": "upper"}
    style = styles.get(language) or words.rng.choice(("upper", "upper", "upper", "snake", "camel"))
    name = words.identifier(style)
    make: Callable[[], str] = words.rng.choice((words.number, words.number, words.string))
    if words.chance(0.15):
        values = (
            ("true", "false") if language in ("toml", "yaml", "json", "js") else ("True", "False")
        )
        old, value = words.rng.sample(values, 2)
    else:
        old, value = make(), make()
    shapes = {
        "js": (f"const {name} = {{}};", f"export const {name} = {{}};", f"let {name} = {{}};"),
        "py": ("{0} = {{}}", "{0} = {{}}", "{0}: int = {{}}" if old.isdigit() else "{0} = {{}}"),
        "yaml": ("{0}: {{}}",),
        "sh": ("{0}={{}}", "export {0}={{}}"),
        "json": ('"{0}": {{}},',),
    }
    kind = {"ts": "js", "toml": "py", "ini": "py"}.get(language, language)
    shape = words.rng.choice(shapes.get(kind, shapes["sh"]))  # .env, .gitignore, Makefile
    line = shape.replace("{0}", name).replace("{{}}", "{}").replace("{}", old)
    if language in ("toml", "ini"):
        line = f"{name} = {old}"
    lines = source(words, path, words.rng.randint(0, 5))
    if words.chance(0.4) and language in ("py", "js", "ts"):
        lines.insert(words.rng.randint(0, len(lines)), f"print({name})")
    lines.insert(words.rng.randint(0, len(lines)), line)
    return name, old, value, lines
