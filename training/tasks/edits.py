"""Tasks that change text in a file: replace, replace everywhere, rename, and what can go wrong.

In: words and a phrasing. Out: a Task. Requests are unambiguous: what is to be copied can be told
from the request alone, and what the edit meets in the file is what the family's name says.
"""

from __future__ import annotations

import re

from training.tasks import answers
from training.tasks.phrasing import Phrasing, is_unmistakable, quoted
from training.tasks.skeletons import FRAMES, Phrases
from training.tasks.task import Ask, Call, Policy, Task
from training.tasks.vocabulary import Words, language_of, source

REPLACE = FRAMES["replace"]
REPLACE_ALL = FRAMES["replace_all"]
RENAME = FRAMES["rename"]
AGAIN = FRAMES["again"]
SHOW_IT = FRAMES["show_it"]
ATTEMPTS = 40


def replace(words: Words, phrasing: Phrasing) -> Task:
    """One text that occurs once."""
    path = words.path()
    old, new = words.pair(language_of(path))
    text = request(words, phrasing, REPLACE, path, old, new)
    ask = Ask(text, lambda: replace_policy(path, old, new))
    return Task("replace", {path: file_with(words, path, old, 1)}, (ask,))


def replace_everywhere(words: Words, phrasing: Phrasing) -> Task:
    """The request says that every occurrence is meant."""
    path = words.path()
    old, new = words.pair(language_of(path))
    text = request(words, phrasing, REPLACE_ALL, path, old, new)
    ask = Ask(text, lambda: replace_all_policy(path, old, new))
    times = words.rng.choice((1, 2, 2, 3, 4))
    return Task("replace all", {path: file_with(words, path, old, times)}, (ask,))


def replace_ambiguous(words: Words, phrasing: Phrasing) -> Task:
    """The text occurs several times, which only the tool's refusal tells."""
    path = words.path()
    old, new = words.pair(language_of(path))
    text = request(words, phrasing, REPLACE, path, old, new)
    ask = Ask(text, lambda: replace_policy(path, old, new))
    times = words.rng.choice((2, 2, 3, 4))
    return Task("replace ambiguous", {path: file_with(words, path, old, times)}, (ask,))


def replace_missing(words: Words, phrasing: Phrasing) -> Task:
    """The text is not in the file, or the file is not there, perhaps by a slip of the pen."""
    path = words.path()
    old, new = words.pair(language_of(path))
    text = request(words, phrasing, REPLACE, path, old, new)
    ask = Ask(text, lambda: replace_policy(path, old, new))
    pick = words.rng.random()
    if pick < 0.5:
        files = {path: file_without(words, path, old)}
    elif pick < 0.75:
        files = {near_path(words, path): file_with(words, path, old, 1)}
    else:
        files = {words.path(): words.sentence() + "\n"}
    return Task("replace fails", files, (ask,))


def rename(words: Words, phrasing: Phrasing) -> Task:
    """A name in one file, wherever it stands as a whole word."""
    path, old, new, text = rename_request(words, phrasing)
    ask = Ask(text, lambda: rename_policy(path, old, new))
    return Task("rename", {path: file_naming(words, path, old)}, (ask,))


def rename_missing(words: Words, phrasing: Phrasing) -> Task:
    """The name, or the file, is not there."""
    path, old, new, text = rename_request(words, phrasing)
    ask = Ask(text, lambda: rename_policy(path, old, new))
    is_elsewhere = words.chance(0.4)
    there = near_path(words, path) if is_elsewhere else path
    content = file_naming(words, path, old) if is_elsewhere else file_without(words, path, old)
    return Task("rename fails", {there: content}, (ask,))


def replace_again(words: Words, phrasing: Phrasing) -> Task:
    """A replacement, then "the same in" another file."""
    path, other = words.path(), words.path()
    old, new = words.pair(language_of(path))
    first = request(words, phrasing, REPLACE, path, old, new)
    second = phrasing.request(AGAIN, {"f": path_text(words, other)})
    files = {p: file_with(words, p, old, 1) for p in (path, other)}
    asks = (
        Ask(first, lambda: replace_policy(path, old, new)),
        Ask(second, lambda: replace_policy(other, old, new)),
    )
    return Task("replace again", files, asks)


def rename_again(words: Words, phrasing: Phrasing) -> Task:
    """A rename, then "the same in" another file."""
    path, old, new, first = rename_request(words, phrasing)
    other = words.path("py")
    second = phrasing.request(AGAIN, {"f": path_text(words, other)})
    files = {p: file_naming(words, p, old) for p in (path, other)}
    asks = (
        Ask(first, lambda: rename_policy(path, old, new)),
        Ask(second, lambda: rename_policy(other, old, new)),
    )
    return Task("rename again", files, asks)


def replace_and_show(words: Words, phrasing: Phrasing) -> Task:
    """A replacement, then a look at the file, which the second request does not name."""
    path = words.path()
    old, new = words.pair(language_of(path))
    first = request(words, phrasing, REPLACE, path, old, new)
    second = phrasing.request(SHOW_IT, {})
    asks = (
        Ask(first, lambda: replace_policy(path, old, new)),
        Ask(second, lambda: read_policy(path)),
    )
    return Task("replace, show", {path: file_with(words, path, old, 1, most=4)}, asks)


def replace_policy(path: str, old: str, new: str) -> Policy:
    result = yield Call("edit", {"path": path, "old": old, "new": new})
    if "set replace_all" in result.split("\n")[0]:
        return (yield from replace_all_policy(path, old, new))
    if result.startswith("Error: "):
        return answers.could_not(f"edit {path}", result)
    return answers.replaced(old, new, path, result, everywhere=False)


def replace_all_policy(path: str, old: str, new: str) -> Policy:
    result = yield Call("edit", {"path": path, "old": old, "new": new, "replace_all": True})
    if result.startswith("Error: "):
        return answers.could_not(f"edit {path}", result)
    return answers.replaced(old, new, path, result, everywhere=True)


def rename_policy(path: str, old: str, new: str) -> Policy:
    arguments = {"path": path, "old": old, "new": new, "replace_all": True, "whole_word": True}
    result = yield Call("edit", arguments)
    if result.startswith("Error: "):
        return answers.could_not(f"rename `{old}` in {path}", result)
    return answers.renamed(old, new, path, result)


def read_policy(path: str) -> Policy:
    result = yield Call("read", {"path": path})
    suggested = answers.suggestion(result)
    if suggested:  # looking at the likely file harms nothing; editing it might
        result = yield Call("read", {"path": suggested})
    if result.startswith("Error: "):
        return answers.could_not(f"read {path}", result)
    return answers.shown(result)


def request(
    words: Words, phrasing: Phrasing, skeletons: Phrases, path: str, old: str, new: str
) -> str:
    """A request with old and new text quoted as they need it."""
    try:
        a, b = quoted(words.rng, old, new, bare=True)
    except ValueError:
        (a,), (b,) = quoted(words.rng, old), quoted(words.rng, new)
    return phrasing.request(skeletons, {"a": a, "b": b, "f": path_text(words, path)})


def path_text(words: Words, path: str) -> str:
    """How a request writes a path: as it is, sometimes quoted, always when it holds a blank."""
    if " " in path or words.chance(0.12):
        return quoted(words.rng, path)[0]
    return path


def rename_request(words: Words, phrasing: Phrasing) -> tuple[str, str, str, str]:
    """Path, old name, new name and the request."""
    path = words.path(
        words.rng.choice(("py", "py", "py", "py", "js", "ts", "go", "rs", "c", "java"))
    )
    while True:
        old, new = words.name_pair()
        if not old.isdigit() and re.fullmatch(r"\w+", old) and re.fullmatch(r"\w+", new):
            break
    a, b = old, new
    if words.chance(0.25) or not (is_unmistakable(old) and is_unmistakable(new)):
        a, b = quoted(words.rng, old, new)
    text = phrasing.request(RENAME, {"a": a, "b": b, "f": path_text(words, path)})
    return path, old, new, text


def file_with(words: Words, path: str, text: str, times: int, *, most: int = 6) -> str:
    """A made-up file in which `text` occurs exactly `times` times.

    Raises ValueError where that cannot be had (the text is too common); draw another task then.
    """
    for _ in range(ATTEMPTS):
        # A long file costs a row nothing: an edit's result shows a few lines of it.
        is_long = most > 5 and words.chance(0.25)
        lines = source(words, path, words.rng.randint(0, 40 if is_long else most))
        for _ in range(times):
            lines.insert(words.rng.randint(0, len(lines)), line_around(words, path, text))
        content = "\n".join(lines) + ("\n" if words.chance(0.93) else "")
        if content.count(text) == times:
            return content
    raise ValueError("the text cannot be placed so often")


def file_without(words: Words, path: str, text: str) -> str:
    """A made-up file in which `text` does not occur. Raises ValueError as `file_with`."""
    for _ in range(ATTEMPTS):
        content = "\n".join(source(words, path, words.rng.randint(1, 6))) + "\n"
        if text not in content:
            return content
    raise ValueError("the text is everywhere")


def line_around(words: Words, path: str, text: str) -> str:
    """A line of a file that holds `text`: on its own, indented, or inside something."""
    pick = words.rng.random()
    if text != text.strip() or pick < 0.45:
        return text
    if pick < 0.6:
        return "    " + text
    if re.fullmatch(r"[\w.]+", text):
        name = words.identifier("snake")
        shapes = (f"{name} = {text}", f"{name}({text})", f"# {text}", f"if {text}:", f"{text}()")
        return words.rng.choice(shapes)
    if language_of(path) in ("md", "txt"):
        return f"{words.phrase(1, 2)} {text} {words.phrase(1, 2)}"
    return words.rng.choice((f"{text}  # {words.phrase(1, 2)}", f"    {text}", text))


def file_naming(words: Words, path: str, name: str) -> str:
    """A made-up source file that defines and uses `name`, and may hold longer names around it."""
    is_long = words.chance(0.25)
    times = words.rng.randint(2, 24) if is_long else words.rng.choice((0, 1, 1, 2))
    uses = [line_using(words, name) for _ in range(times)]
    lines = source(words, path, words.rng.randint(8, 40) if is_long else words.rng.randint(0, 4))
    shapes = (f"def {name}({words.word()}):", f"{name} = {words.value()}", f"class {name}:")
    for line in (*uses, words.rng.choice(shapes)):
        lines.insert(words.rng.randint(0, len(lines)), line)
    if words.chance(0.25):
        lines.append(f"{name}_{words.word()} = {words.number()}")
    return "\n".join(lines) + "\n"


def line_using(words: Words, name: str) -> str:
    shapes = (
        f"{words.identifier('snake')} = {name}({words.identifier()})",
        f"return {name}",
        f"print({name})",
        f"    {name}({words.simple_value()})",
        f"self.{name} = {words.value()}",
        f"if {name} == {words.simple_value()}:",
    )
    return words.rng.choice(shapes)


def near_path(words: Words, path: str) -> str:
    """A path one slip away from `path`."""
    folder, _, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    stem = stem or extension
    at = words.rng.randrange(len(stem))
    slipped = stem[:at] + stem[at + 1 :] if len(stem) > 3 else stem + "s"
    name = slipped + dot + extension if dot else slipped
    return f"{folder}/{name}" if folder else name
