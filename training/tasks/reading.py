"""Tasks that look or create: read, first lines, create, list, search, and what can go wrong.

In: words and a phrasing. Out: a Task.
"""

from __future__ import annotations

from training.tasks import answers
from training.tasks.edits import SHOW_IT, near_path, path_text, read_policy
from training.tasks.phrasing import Phrasing, is_unmistakable, quoted
from training.tasks.skeletons import FRAMES
from training.tasks.task import Ask, Call, Policy, Task
from training.tasks.vocabulary import FOLDERS, Words, language_of, source

READ = FRAMES["read"]
CREATE = FRAMES["create"]
CREATE_FENCED = FRAMES["create_fenced"]
CREATE_EMPTY = FRAMES["create_empty"]
LIST = FRAMES["list"]
LIST_ROOT = FRAMES["list_root"]
SEARCH = FRAMES["search"]
FIRST_LINES = FRAMES["first_lines"]


def read(words: Words, phrasing: Phrasing) -> Task:
    """A file that is there: mostly short, some longer than an answer repeats, some empty."""
    path = words.path()
    text = phrasing.request(READ, {"f": path_text(words, path)})
    pick = words.rng.random()
    lines = words.rng.choice((1, 1, 2, 2, 3, 4, 5)) if pick < 0.85 else words.rng.randint(13, 22)
    if 0.78 < pick < 0.85:
        lines = words.rng.randint(6, answers.SHOWN_LINES)
    content = plain_source(words, path, lines) + ("\n" if words.chance(0.93) else "")
    if pick > 0.97:
        content = ""
    return Task("read", {path: content}, (Ask(text, lambda: read_policy(path)),))


def read_missing(words: Words, phrasing: Phrasing) -> Task:
    """A file that is not there, perhaps by a slip of the pen."""
    path = words.path()
    text = phrasing.request(READ, {"f": path_text(words, path)})
    there = near_path(words, path) if words.chance(0.6) else words.path()
    content = plain_source(words, there, words.rng.randint(1, 4)) + "\n"
    return Task("read fails", {there: content}, (Ask(text, lambda: read_policy(path)),))


def first_lines(words: Words, phrasing: Phrasing) -> Task:
    """The first few lines of a file."""
    path = words.path()
    count = words.rng.choice((1, 2, 2, 3, 3, 4, 5, 5, 8, 10, 10, 12))
    text = phrasing.request(FIRST_LINES, {"f": path_text(words, path), "n": str(count)})
    total = words.rng.choice((count - 1, count, count + 3, count + 9))
    content = plain_source(words, path, max(total, 1)) + "\n"

    def policy() -> Policy:
        result = yield Call("read", {"path": path, "max_lines": count})
        return answers.shown(result)

    return Task("first lines", {path: content}, (Ask(text, policy),))


def create(words: Words, phrasing: Phrasing) -> Task:
    """A new file with the content given in quotes, in a fence, or none."""
    path = words.path()
    if words.chance(0.06):
        text, content = phrasing.request(CREATE_EMPTY, {"f": path_text(words, path)}), ""
    elif words.chance(0.25):
        text, content = fenced_request(words, phrasing, path)
    else:
        content = one_line(words, path)
        (c,) = quoted(words.rng, content, bare=True)
        text = phrasing.request(CREATE, {"f": path_text(words, path), "c": c})
    files = {words.path(): words.sentence() + "\n"}
    if words.chance(0.07):
        files = {path: words.sentence() + "\n"}
    return Task("create", files, (Ask(text, lambda: create_policy(path, content)),))


def create_and_show(words: Words, phrasing: Phrasing) -> Task:
    """A new file, then a look at it."""
    path = words.path()
    content = one_line(words, path)
    (c,) = quoted(words.rng, content)
    first = phrasing.request(CREATE, {"f": path_text(words, path), "c": c})
    asks = (
        Ask(first, lambda: create_policy(path, content)),
        Ask(phrasing.request(SHOW_IT, {}), lambda: read_policy(path)),
    )
    return Task("create, show", {}, asks)


def list_files(words: Words, phrasing: Phrasing) -> Task:
    """The entries of the repository or of one of its directories."""
    folder = words.rng.choice(FOLDERS) if words.chance(0.4) else words.word()
    if words.chance(0.3):
        folder += "/" + words.word()
    at_root = words.chance(0.3)
    names = [words.path().replace(" ", "-") for _ in range(words.rng.randint(1, 3))]
    files = {name if at_root else f"{folder}/{name}": words.sentence() + "\n" for name in names}
    if at_root:
        ask = Ask(phrasing.request(LIST_ROOT, {}), lambda: list_policy(None))
    else:
        text = phrasing.request(LIST, {"f": path_text(words, folder)})
        ask = Ask(text, lambda: list_policy(folder))
    return Task("list", files, (ask,))


def search(words: Words, phrasing: Phrasing) -> Task:
    """A name that occurs a few times, or nowhere."""
    name = words.identifier()
    is_bare = is_unmistakable(name) and words.chance(0.6)
    a = name if is_bare else quoted(words.rng, name)[0]
    text = phrasing.request(SEARCH, {"a": a})
    files = {}
    for _ in range(words.rng.randint(1, 2)):
        path = words.path()
        lines = source(words, path, words.rng.randint(1, 3))
        if words.chance(0.85):
            lines.insert(words.rng.randint(0, len(lines)), f"{words.identifier()}({name})")
        files[path] = "\n".join(lines) + "\n"
    return Task("search", files, (Ask(text, lambda: search_policy(name)),))


def create_policy(path: str, content: str) -> Policy:
    result = yield Call("write", {"path": path, "content": content})
    if result.startswith("Error: "):
        return answers.could_not(f"create {path}", result)
    return answers.written(path, result)


def list_policy(path: str | None) -> Policy:
    result = yield Call("list", {} if path is None else {"path": path})
    if result.startswith("Error: "):
        return answers.could_not(f"list {path}", result)
    return answers.entries(path, result)


def search_policy(pattern: str) -> Policy:
    result = yield Call("search", {"pattern": pattern})
    if result.startswith("Error: "):
        return answers.could_not(f"search for `{pattern}`", result)
    return answers.found(pattern, result)


def one_line(words: Words, path: str) -> str:
    """Content that fits into a sentence."""
    pick = words.rng.random()
    if pick < 0.45:
        return words.statement(language_of(path))
    if pick < 0.75:
        return words.phrase(1, 6)
    if pick < 0.9:
        return words.sentence()
    return words.fragment()


def fenced_request(words: Words, phrasing: Phrasing, path: str) -> tuple[str, str]:
    """A request with the content in a Markdown fence, and the content with its last newline."""
    body = plain_source(words, path, words.rng.randint(1, 5))
    label = language_of(path) if words.chance(0.4) else ""
    block = f"```{label}\n{body}\n```"
    text = phrasing.request(CREATE_FENCED, {"f": path_text(words, path), "c": block}, plain=True)
    return text, body + "\n"


def plain_source(words: Words, path: str, lines: int) -> str:
    """Lines of a made-up file without a fence in them, which would end the fence around them."""
    return "\n".join(line for line in source(words, path, lines) if "```" not in line) or "ok"
