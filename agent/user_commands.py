"""Commands of the user's own: `commands/NAME.md` is the prompt that `/NAME words` sends.

In: the user's `commands/` beside config.toml and, of a trusted repository, its `.ds4/commands/`.
Out: `UserCommand`s, and one line for each file that is none. Of a repository that is not trusted
nothing is read but the names. A file in a folder is `/folder:name`. A command is text: nothing in
it runs before the model calls it and the permissions allow it.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.agent.display import one_line
from ds4_agent.agent.trust import TrustError, is_trusted, repository_of

if TYPE_CHECKING:
    from ds4_agent.agent.places import Places

__all__ = [
    "PROJECT_COMMANDS", "UserCommand", "UserCommands", "as_prompt", "filled", "load_commands",
]  # fmt: skip

PROJECT_COMMANDS = Path(".ds4", "commands")
LONGEST = 64 * 1024  # bytes of one file
MOST = 500  # files of one directory
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(?::[a-z0-9][a-z0-9_-]*)*")
_ORDER = re.compile(rf"/({NAME.pattern})(?:\s+(.*))?", re.DOTALL)
_HEAD = re.compile(r"---[ \t]*\r?\n(.*?)^---[ \t]*\r?(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_KEY = re.compile(r"^([\w-]+):[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)
_PLACE = re.compile(r"\$(ARGUMENTS\b|[1-9](?!\d))")


@dataclass(frozen=True)
class UserCommand:
    """`/name`. `description` is one displayable line; `is_own` is False for a repository's."""

    name: str
    description: str
    body: str
    is_own: bool


@dataclass(frozen=True)
class UserCommands:
    """Those that can be used, by name, and what the user has to be told: one line each."""

    found: tuple[UserCommand, ...] = ()
    notices: tuple[str, ...] = ()

    def named(self, name: str) -> UserCommand | None:
        return next((command for command in self.found if command.name == name), None)


def load_commands(directory: Path, places: Places, taken: Iterable[str]) -> UserCommands:
    """The commands for a run in `directory`. A name in `taken` is the program's own and stays so;
    of two files with one name the user's own counts."""
    notices: list[str] = []
    commands: dict[str, UserCommand] = {}
    reserved = set(taken)
    for file, name, is_own in _files(directory, places, notices):
        if name in reserved:
            notices.append(f"{file} is not used: /{name} is a command of the program")
            continue
        if name in commands:
            continue
        try:
            commands[name] = _command(file, name, is_own)
        except (OSError, ValueError) as error:
            notices.append(f"{file} is not used: {getattr(error, 'strerror', None) or error}")
    return UserCommands(tuple(sorted(commands.values(), key=lambda c: c.name)), tuple(notices))


def filled(command: UserCommand, arguments: str) -> str:
    """The prompt: `$ARGUMENTS` and `$1` to `$9` replaced, or the arguments below it where it names
    none of them. What an argument says is not looked into again."""
    try:
        words = shlex.split(arguments)
    except ValueError:  # a quote that is not closed
        words = arguments.split()

    def value(match: re.Match[str]) -> str:
        if match[1] == "ARGUMENTS":
            return arguments
        number = int(match[1])
        return words[number - 1] if number <= len(words) else ""

    text, places = _PLACE.subn(value, command.body)
    if arguments and not places:
        text = f"{text.rstrip()}\n\n{arguments}"
    return text.strip()


def as_prompt(words: str, directory: Path, places: Places) -> str:
    """The prompt of a run without a screen: a command of the user's own filled in, all else as it
    is (`/etc/hosts is wrong` is no command)."""
    order = _ORDER.fullmatch(words.strip())
    own = load_commands(directory, places, ()).named(order[1]) if order else None
    return words if order is None or own is None else filled(own, (order[2] or "").strip())


def _files(directory: Path, places: Places, notices: list[str]) -> Iterator[tuple[Path, str, bool]]:
    """Each file with its command's name, the user's own first."""
    for file, name in _below(places.config / "commands", follows=True):
        yield file, name, True
    repository = repository_of(directory)
    brought = list(_below(repository / PROJECT_COMMANDS, follows=False))
    try:
        trusted = is_trusted(repository, places.trusted_file)
    except TrustError as error:
        notices.append(str(error))
        trusted = False
    if trusted:
        yield from ((file, name, False) for file, name in brought)
    elif brought:
        notices.append(
            f"{len(brought)} of this repository's own commands ({PROJECT_COMMANDS}) are not "
            "loaded, since it is not trusted; look at them, then say /trust"
        )


def _below(root: Path, *, follows: bool) -> Iterator[tuple[Path, str]]:
    """The Markdown files below `root` whose names make a command's, in order. Links of a repository
    are not followed: they could lead anywhere."""
    if not follows and any(path.is_symlink() for path in (root, root.parent)):
        return
    count = 0
    for where, folders, names in os.walk(root, followlinks=False):
        folders.sort()
        for name in sorted(names):
            file = Path(where, name)
            relative = file.relative_to(root)
            command = ":".join(relative.with_suffix("").parts).lower()
            if file.suffix != ".md" or not NAME.fullmatch(command):
                continue
            if not follows and file.is_symlink():
                continue
            count += 1
            if count > MOST:
                return
            yield file, command


def _command(file: Path, name: str, is_own: bool) -> UserCommand:
    """Raises OSError and ValueError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if is_own else os.O_NOFOLLOW)
    with open(os.open(file, flags), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise ValueError("it is no regular file")
        data = opened.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise ValueError(f"it is larger than {LONGEST // 1024} KiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    head = _HEAD.match(text)
    facts = dict(_KEY.findall(head[1])) if head else {}
    body = (text[head.end() :] if head else text).strip()
    if not body:
        raise ValueError("it is empty")
    said = facts.get("description", "").strip("\"'") or body.partition("\n")[0].lstrip("# ")
    hint = facts.get("argument-hint", "").strip("\"'")
    description = one_line(f"{hint} · {said}" if hint else said, 100)
    return UserCommand(name, description, body, is_own)
