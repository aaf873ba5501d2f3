"""Tasks that find their place by a name: documentation of a function, a rename in every file.

In: words and a phrasing. Out: a Task. Chains: a look or a search, then one edit or several.
"""

from __future__ import annotations

from training.tasks import answers, places
from training.tasks.edits import file_naming, near_path, path_text
from training.tasks.lines import change, named
from training.tasks.phrasing import Phrasing, quoted
from training.tasks.skeletons import FRAMES
from training.tasks.task import Ask, Call, Policy, Task
from training.tasks.vocabulary import Words, language_of, source

DOCSTRING = FRAMES["docstring"]
DOCSTRING_PLAIN = FRAMES["docstring_plain"]
DOCSTRING_ANYWHERE = FRAMES["docstring_anywhere"]
COMMENT = FRAMES["comment"]
EVERYWHERE = FRAMES["rename_everywhere"]


def docstring(words: Words, phrasing: Phrasing) -> Task:
    """A docstring for a function of a file: given, or made of the words of its name."""
    path, name = words.path("py"), words.identifier("snake")
    given = description(words) if words.chance(0.6) else None
    texts = {"a": named(words, name), "f": path_text(words, path)}
    texts |= {"t": quoted(words.rng, given)[0]} if given else {}
    text = phrasing.request(DOCSTRING if given else DOCSTRING_PLAIN, texts)
    ask = Ask(text, lambda: docstring_policy(path, name, given))
    return Task("docstring", {path: defining(words, path, name)}, (ask,))


def docstring_anywhere(words: Words, phrasing: Phrasing) -> Task:
    """The same without a file: a search finds the function."""
    path, name = words.path("py"), words.identifier("snake")
    given = description(words)
    texts = {"a": named(words, name), "t": quoted(words.rng, given)[0]}
    text = phrasing.request(DOCSTRING_ANYWHERE, texts)
    files = {path: defining(words, path, name)}
    other = words.path("py")
    files.setdefault(other, "\n".join(source(words, other, 2)) + "\n")
    ask = Ask(text, lambda: docstring_anywhere_policy(name, given))
    return Task("docstring anywhere", files, (ask,))


def comment(words: Words, phrasing: Phrasing) -> Task:
    """A comment above a function."""
    path = words.path(words.rng.choice(("py", "py", "py", "js", "ts", "go", "rs")))
    name = words.identifier("snake" if language_of(path) in ("py", "rs") else "camel")
    given = description(words)
    texts = {"a": named(words, name), "t": quoted(words.rng, given)[0]}
    text = phrasing.request(COMMENT, {**texts, "f": path_text(words, path)})
    ask = Ask(text, lambda: comment_policy(path, name, given))
    return Task("comment", {path: defining(words, path, name)}, (ask,))


def function_missing(words: Words, phrasing: Phrasing) -> Task:
    """The function, or the file, is not there."""
    task = words.rng.choice((docstring, comment))(words, phrasing)
    ((path, content),) = task.files.items()
    if words.chance(0.5):
        files = {near_path(words, path) if words.chance(0.6) else words.path(): content}
    else:
        files = {path: defining(words, path, words.identifier("snake"))}
    return Task("function fails", files, task.asks)


def rename_everywhere(words: Words, phrasing: Phrasing) -> Task:
    """A name in all files that a search finds; a longer name with it in it stays as it is."""
    while True:
        old, new = words.name_pair()
        if len(old) > 2 and old.isidentifier() and new.isidentifier():
            break
    if words.chance(0.7):
        a, b = named(words, old), named(words, new)
    else:
        a, b = quoted(words.rng, old, new)
    text = phrasing.request(EVERYWHERE, {"a": a, "b": b})
    count = words.rng.choice((0, 1, 2, 2, 2, 3, 3))
    files: dict[str, str] = {}
    for _ in range(count):
        path = words.path("py")
        content = file_naming(words, path, old)
        if content.count("\n") > 12:
            raise ValueError("too long for a chain")
        files[path] = content
    if words.chance(0.4) or not files:
        path = words.path("py")
        longer = f"{old}_{words.word()} = {words.number()}\n" if words.chance(0.4) else ""
        files[path] = "\n".join(source(words, path, 2)) + "\n" + longer
    return Task("rename everywhere", files, (Ask(text, lambda: everywhere_policy(old, new)),))


# Policies


def docstring_policy(path: str, name: str, given: str | None) -> Policy:
    result = yield Call("read", {"path": path})
    line = defined(result, name)
    if line is None:
        return no_function(path, name, result)
    return (yield from document(path, name, line, given))


def docstring_anywhere_policy(name: str, given: str | None) -> Policy:
    result = yield Call("search", {"pattern": f"def {name}("})
    if result.startswith("Error: "):
        return answers.could_not(f"find `{name}`", result)
    found = places.rows(result)
    if not found:
        return f"I could not find the function `{name}` in this repository."
    return (yield from document(found[0].path, name, found[0].text, given))


def document(path: str, name: str, line: str, given: str | None) -> Policy:
    """The docstring behind a definition's line."""
    text = given or places.sentence_of(name)
    new = f'{line}\n{places.indent(line)}    """{text}"""'
    return (yield from change(path, line, new, f"Added a docstring to `{name}` in {path}."))


def comment_policy(path: str, name: str, text: str) -> Policy:
    result = yield Call("read", {"path": path})
    line = defined(result, name)
    if line is None:
        return no_function(path, name, result)
    sign = "#" if language_of(path) == "py" else "//"
    new = f"{places.indent(line)}{sign} {text}\n{line}"
    return (yield from change(path, line, new, f"Added a comment to `{name}` in {path}."))


def everywhere_policy(old: str, new: str) -> Policy:
    result = yield Call("search", {"pattern": old})
    if result.startswith("Error: "):
        return answers.could_not(f"search for `{old}`", result)
    paths = places.paths_with(result, old)
    if not paths and places.rows(result):
        return f"`{old}` stands only inside longer names."
    if not paths:
        return f"No matches for `{old}`."
    done = []
    for path in paths:
        arguments = {"path": path, "old": old, "new": new, "replace_all": True, "whole_word": True}
        result = yield Call("edit", arguments)
        if result.startswith("Error: "):
            return answers.could_not(f"rename `{old}` in {path}", result)
        done.append(f"{path} {answers.places(result)}")
    return f"Renamed `{old}` to `{new}` in {', '.join(done)}."


def defined(result: str, name: str) -> str | None:
    """The line of a `read` result that defines the function."""
    lines = [] if result.startswith("Error: ") else places.page(result)
    found = places.function_line(lines, name)
    return None if found is None else lines[found]


def no_function(path: str, name: str, result: str) -> str:
    if result.startswith("Error: "):
        return answers.could_not(f"edit {path}", result)
    return f"There is no function `{name}` in {path}."


# Files


def description(words: Words) -> str:
    """What a docstring or a comment says: plain words."""
    text = words.phrase(2, 7)
    text = text[0].upper() + text[1:] if words.chance(0.7) else text
    return text + ("." if words.chance(0.6) else "")


def defining(words: Words, path: str, name: str) -> str:
    """A made-up file that defines the function `name`, at its top level or in a class."""
    language = language_of(path)
    blocks = [function(words, language, name)]
    for _ in range(words.rng.choice((0, 0, 1, 1, 2))):
        other = words.identifier("snake")
        blocks.insert(words.rng.randint(0, len(blocks)), function(words, language, other))
    lines = [line for block in blocks for line in [*block, ""]][:-1]
    if language == "py" and words.chance(0.3):
        lines = [f"class {words.identifier('pascal')}:", *(f"    {x}" if x else x for x in lines)]
    top = source(words, path, words.rng.choice((0, 0, 1, 2)))
    content = "\n".join([*(line for line in top if not line.endswith((":", "{"))), *lines]) + "\n"
    start = next(line for line in lines if places.definition(name).match(line))
    if content.count(start) != 1:
        raise ValueError("two definitions")
    return content


def function(words: Words, language: str, name: str) -> list[str]:
    """The lines of a small function."""
    arguments = ", ".join(words.identifier("snake") for _ in range(words.rng.choice((0, 1, 1, 2))))
    body = [
        f"    {words.statement(language)}".rstrip(":{") for _ in range(words.rng.choice((1, 1, 2)))
    ]
    if language == "py":
        start = "async def" if words.chance(0.06) else "def"
        arrow = (
            f" -> {words.rng.choice(('int', 'str', 'None', 'bool'))}" if words.chance(0.2) else ""
        )
        return [f"{start} {name}({arguments}){arrow}:", *body]
    word = {"go": "func", "rs": words.rng.choice(("fn", "pub fn"))}.get(language, "function")
    return [f"{word} {name}({arguments}) {{", *body, "}"]
