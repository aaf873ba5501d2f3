"""Names, paths, code and prose to copy: endless, drawn from one random source.

In: a `random.Random` and whether the words come from the held-out eighth. Out: text. A word is
held out by its hash, so a training text can never draw a word of the evaluation.
"""

from __future__ import annotations

import functools
import random
import re
import sysconfig
import zlib
from collections.abc import Callable
from pathlib import Path

HELD_SHARE = 8  # one word in so many is held out


def words_of(text: str) -> list[str]:
    """The words of a list written as text."""
    return text.split()


SYLLABLES = words_of(
    "ba be bi bo bu ca ce co cu da de di do du fa fe fi fo ga ge go gu ha he hi ho ja jo ka ke ki "
    "ko la le li lo lu ma me mi mo mu na ne ni no nu pa pe pi po qua ra re ri ro ru sa se si so su "
    "ta te ti to tu va ve vi vo wa we wi xa ya yo za ze zi zo an en in on un ar er or al el il as "
    "es is st tr pl gr ck nt ng th sh ch br cr dr fl kl pr rd lk mp rt x z k n m r s t p d l"
)
COMMON = words_of(
    "user client server config cache fetch page load save parse total price order item token retry "
    "session timeout limit count size name value key path file line text data list table row "
    "column index query result error message event queue worker task job state status mode level "
    "start stop open close read write send receive handle process build run check update delete "
    "create insert remove add get set find search sort filter merge split join format print log "
    "debug test report invoice customer product account email address phone date time day month "
    "year color width height margin border title label button form input output image video audio "
    "url host port proxy login logout password secret hash sign verify encode decode compress "
    "upload download sync backup restore import export convert compute calculate score rank weight "
    "model layer batch epoch step loss rate scale shift rotate draw render paint frame window view "
    "node edge graph tree leaf root parent child depth stack heap buffer stream socket thread lock "
    "mutex signal clock timer delay interval step range offset position cursor point vector matrix"
)
FOLDERS = words_of("src lib app tests test docs scripts utils core api pkg cmd web server tools")
STEMS = words_of("README main index setup config utils helpers models views client server app")
EXTENSIONS = words_of(
    "py " * 9 + "js js ts ts go rs c h cpp java md md txt txt json toml yaml yml sh cfg ini html "
    "css rb php kt sql tsx jsx lua swift cs xml env"
)
UNICODE_WORDS = words_of("café naïve Größe señor Ωmega 東京 данные Łódź øre ½ → ✓ … “ok” é—è")
UNICODE_STEMS = words_of("café größe señor данные łódź über naïve été")
COMMENT_SIGNS = {
    "py": "#",
    "sh": "#",
    "toml": "#",
    "yaml": "#",
    "rb": "#",
    "sql": "--",
    "lua": "--",
}


def is_held(word: str) -> bool:
    """Whether `word` is kept for evaluation, whatever its case."""
    return zlib.crc32(word.lower().encode()) % HELD_SHARE == 0


@functools.cache
def library_words() -> tuple[str, ...]:
    """Words of Python's own library: names as programmers write them."""
    library = Path(sysconfig.get_paths()["stdlib"])
    modules = words_of(
        "argparse logging/__init__ subprocess threading unittest/case http/client asyncio/tasks "
        "pathlib shutil tarfile json/decoder configparser socket inspect tempfile email/message "
        "random statistics dataclasses zipfile ssl urllib/request textwrap difflib csv calendar"
    )
    found: set[str] = set()
    for module in modules:
        source = library / f"{module}.py"
        if source.exists():
            text = source.read_text(encoding="utf-8", errors="ignore")
            found.update(word.lower() for word in re.findall(r"[A-Za-z]{3,11}", text))
    return tuple(sorted(found))


class Words:
    """A stream of words and of what is made of them. With `held`, every word is held out."""

    def __init__(self, rng: random.Random, *, held: bool = False) -> None:
        self.rng = rng
        self.held = held

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def word(self) -> str:
        """A lower-case word: common, from the library, or invented."""
        rng = self.rng
        while True:
            draw = rng.random()
            if draw < 0.4:
                word = rng.choice(COMMON)
            elif draw < 0.7:
                word = rng.choice(library_words())
            elif draw < 0.93:
                word = "".join(rng.choice(SYLLABLES) for _ in range(rng.choice((2, 2, 3, 4))))
            else:
                word = "".join(
                    rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(1, 5))
                )
            if is_held(word) == self.held:
                return word

    def identifier(self, style: str | None = None, words: list[str] | None = None) -> str:
        """A name in snake, camel, Pascal, UPPER or kebab style (kebab only when asked for)."""
        rng = self.rng
        parts = words or [self.word() for _ in range(rng.choice((1, 1, 1, 2, 2, 2, 3)))]
        style = style or rng.choice(("snake",) * 11 + ("camel",) * 4 + ("pascal",) * 3 + ("upper",))
        name = join_words(parts, style)
        if words is None and self.chance(0.08):
            name += str(rng.randint(0, 999))
        if words is None and style == "snake" and self.chance(0.06):
            name = "_" + name
        return name

    def number(self) -> str:
        rng = self.rng
        pick = rng.random()
        if pick < 0.35:
            return str(rng.randint(0, 9))
        if pick < 0.65:
            return str(rng.randint(10, 99))
        if pick < 0.85:
            return str(rng.randint(100, 99999))
        return f"{rng.randint(0, 99)}.{rng.randint(0, 999)}"

    def phrase(self, least: int = 1, most: int = 4) -> str:
        return " ".join(self.word() for _ in range(self.rng.randint(least, most)))

    def sentence(self) -> str:
        text = self.phrase(2, 6)
        text = text[0].upper() + text[1:] if self.chance(0.6) else text
        if self.chance(0.06):
            text += " " + self.rng.choice(UNICODE_WORDS)
        return text + self.rng.choice(("", "", ".", "!", "?"))

    def extension(self) -> str:
        return self.rng.choice(EXTENSIONS)

    def path(self, extension: str | None = None) -> str:
        """A relative path; now and then with dashes, dots or a blank in it, or no extension."""
        rng = self.rng
        folders = [
            rng.choice(FOLDERS) if self.chance(0.55) else self.word()
            for _ in range(rng.choice((0, 0, 0, 1, 1, 1, 1, 1, 2, 3)))
        ]
        stem = self.file_stem()
        extension = extension or self.extension()
        if extension == "py" and stem == "README":
            stem = self.word()
        if not folders and self.chance(0.03):
            return rng.choice(("Makefile", "Dockerfile", "LICENSE", ".env", ".gitignore"))
        return "/".join([*folders, f"{stem}.{extension}"])

    def file_stem(self) -> str:
        rng = self.rng
        pick = rng.random()
        if pick < 0.08 and not self.held:
            return rng.choice(STEMS)
        if pick < 0.5:
            return self.word()
        if pick < 0.78:
            return self.identifier("snake")
        if pick < 0.86:
            return self.identifier(rng.choice(("camel", "pascal")))
        if pick < 0.94:
            return f"{self.word()}-{self.word()}"
        if pick < 0.965:
            return f"{self.word()}.{self.word()}"
        if pick < 0.975:
            return f"{self.word()}-{rng.choice(UNICODE_STEMS)}"
        return f"{self.word()} {self.word()}"

    def url(self) -> str:
        tail = self.rng.choice(("", "/", f"/{self.word()}", f"/v{self.rng.randint(1, 4)}"))
        return f"https://{self.word()}.{self.rng.choice(('com', 'org', 'io', 'example'))}{tail}"

    def string(self) -> str:
        """A quoted literal of a program."""
        quote = self.rng.choice('""\'')
        pick = self.rng.random()
        if pick < 0.5:
            body = self.word()
        elif pick < 0.75:
            body = self.phrase(2, 4)
        elif pick < 0.85:
            body = self.url()
        elif pick < 0.92:
            body = f"{self.word()}/{self.word()}.{self.rng.choice(('txt', 'json', 'db', 'log'))}"
        else:
            body = self.rng.choice((f"%s {self.word()}", f"{{{self.word()}}}", f"\\n{self.word()}"))
        return quote + body + quote

    def value(self) -> str:
        """The right side of an assignment."""
        pick = self.rng.random()
        if pick < 0.35:
            return self.number()
        if pick < 0.6:
            return self.string()
        if pick < 0.7:
            return self.rng.choice(("True", "False", "None", "true", "false", "null", "[]", "{}"))
        if pick < 0.8:
            return self.identifier()
        if pick < 0.9:
            return self.call()
        return f"{self.identifier()} {self.rng.choice('+-*/%')} {self.number()}"

    def call(self) -> str:
        arguments = [
            self.identifier() if self.chance(0.5) else self.simple_value()
            for _ in range(self.rng.choice((0, 1, 1, 2)))
        ]
        receiver = f"{self.identifier()}." if self.chance(0.3) else ""
        return f"{receiver}{self.identifier()}({', '.join(arguments)})"

    def simple_value(self) -> str:
        return self.number() if self.chance(0.6) else self.string()

    def statement(self, language: str = "py") -> str:
        """One line of code or text of a language, without indentation."""
        makers = STATEMENTS.get(language, STATEMENTS["c"] if language in C_LIKE else None)
        return self.rng.choice(makers or STATEMENTS["text"])(self)

    def fragment(self, language: str = "py") -> str:
        """Something one would quote: a name, a statement, a value, a phrase."""
        pick = self.rng.random()
        if pick < 0.3:
            return self.identifier()
        if pick < 0.65:
            return self.statement(language)
        if pick < 0.8:
            return self.value()
        if pick < 0.95:
            return self.phrase(1, 4)
        return self.url() if self.chance(0.5) else self.sentence()

    def odd_fragment(self) -> str:
        """Text with signs that break naive quoting: tabs, backslashes, brackets, unicode."""
        rng = self.rng
        word, other = self.word(), self.word()
        return rng.choice(
            (
                f"{word}\t{other}",
                f"\\{word}{{{other}}}",
                f"<{word}>{other}</{word}>",
                f"[{word}]({self.url()})",
                f"{word}['{other}']",
                f'{word}="{other}"',
                f"{word} && {other} || !{word}",
                f"^{word}[a-z]+\\d*$",
                f"{word} {rng.choice(UNICODE_WORDS)} {other}",
                f"C:\\{word}\\{other}",
                f"  {word}:",
                f"*{word}* #{rng.randint(1, 999)}",
                f"${{{word}}}/{other}",
                f"{word};{other};",
                f"@{word}({other}=[{rng.randint(0, 9)}, {rng.randint(0, 9)}])",
            )
        )

    def pair(self, language: str = "py") -> tuple[str, str]:
        """An old and a new text, often alike: the realistic and the hardest copies."""
        while True:
            pick = self.rng.random()
            if pick < 0.72:
                old, new = self.rng.choice(NEAR_PAIRS)(self)
            elif pick < 0.94:
                old, new = self.fragment(language), self.fragment(language)
            else:
                old = self.odd_fragment()
                new = self.odd_fragment() if self.chance(0.5) else self.changed(old)
            if old != new and old.strip() and new.strip():
                return old, new

    def name_pair(self, style: str | None = None) -> tuple[str, str]:
        """An old and a new name of the same style, often sharing words."""
        rng = self.rng
        style = style or rng.choice(("snake",) * 6 + ("camel",) * 2 + ("pascal",) * 2 + ("upper",))
        while True:
            old = [self.word() for _ in range(rng.choice((1, 1, 2, 2, 2, 3)))]
            new = list(old)
            pick = rng.random()
            if pick < 0.35 or len(old) == 1:
                new = [self.word() for _ in range(rng.choice((1, 2, 2, 3)))]
                if pick < 0.2:
                    new = [*old, self.word()] if rng.random() < 0.5 else [self.word(), *old]
            elif pick < 0.8:
                new[rng.randrange(len(new))] = self.word()
            elif pick < 0.9:
                new.insert(rng.randint(0, len(new)), self.word())
            else:
                new.pop(rng.randrange(len(new)))
            if new != old:
                break
        digit = str(rng.randint(1, 9)) if self.chance(0.05) else ""
        if self.chance(0.06):
            return join_words(old, style), join_words(new, rng.choice(("snake", "camel", "pascal")))
        return join_words(old, style) + digit, join_words(new, style) + digit

    def changed(self, text: str) -> str:
        """`text` with one of its words replaced."""
        spans = list(re.finditer(r"[A-Za-z]+", text))
        if not spans:
            return text + self.word()
        span = self.rng.choice(spans)
        return text[: span.start()] + self.word() + text[span.end() :]


def join_words(parts: list[str], style: str) -> str:
    """Words as one name of a style."""
    if style == "camel":
        return parts[0] + "".join(part.capitalize() for part in parts[1:])
    if style == "pascal":
        return "".join(part.capitalize() for part in parts)
    if style == "upper":
        return "_".join(parts).upper()
    return ("-" if style == "kebab" else "_").join(parts)


def _assignment_pair(w: Words) -> tuple[str, str]:
    name = w.identifier(w.rng.choice(("snake", "snake", "snake", "upper", "camel")))
    sign = w.rng.choice((" = ", " = ", " = ", "=", ": ", " := "))
    end = ";" if w.chance(0.12) else ""
    start = w.rng.choice(("", "", "", "", "const ", "let ", "var ", "self.", "export "))
    value = w.rng.choice((w.number, w.number, w.string, w.value))
    old, new = f"{start}{name}{sign}{value()}{end}", f"{start}{name}{sign}{value()}{end}"
    return old, new


def _phrase_pair(w: Words) -> tuple[str, str]:
    old = w.phrase(1, 5)
    return old, w.changed(old)


def _value_pair(w: Words) -> tuple[str, str]:
    make = w.rng.choice((w.number, w.string, w.value, w.url))
    return make(), make()


def _statement_pair(w: Words) -> tuple[str, str]:
    old = w.statement(w.rng.choice(("py", "py", "js", "c", "sh", "toml", "md")))
    return old, w.changed(old)


def _call_pair(w: Words) -> tuple[str, str]:
    name, arguments = w.identifier(), w.identifier()
    if w.chance(0.5):
        return f"{name}({arguments})", f"{name}({arguments}, {w.simple_value()})"
    return f"{name}({arguments})", f"{w.identifier()}({arguments})"


def _line_pair(w: Words) -> tuple[str, str]:
    return w.rng.choice(
        (
            lambda: (f"return {w.value()}", f"return {w.value()}"),
            lambda: (f"import {w.word()}", f"import {w.word()}"),
            lambda: _with_two(w, "if {} {} {}:", ("==", "!=", "<", ">", "<=", ">=")),
            lambda: (f"print({w.string()})", f"print({w.string()})"),
            lambda: (w.identifier(), f"{w.identifier()}.{w.identifier()}"),
            lambda: ("True", "False") if w.chance(0.5) else ("false", "true"),
            lambda: _with_two(w, "{} {} {}", ("+", "-", "*", "/", "and", "or", "==", "is")),
        )
    )()


def _with_two(w: Words, shape: str, signs: tuple[str, ...]) -> tuple[str, str]:
    left, right = w.identifier(), w.value()
    first, second = w.rng.sample(signs, 2)
    return shape.format(left, first, right), shape.format(left, second, right)


NEAR_PAIRS: tuple[Callable[[Words], tuple[str, str]], ...] = (
    _assignment_pair,
    _assignment_pair,
    _assignment_pair,
    Words.name_pair,
    Words.name_pair,
    _phrase_pair,
    _value_pair,
    _statement_pair,
    _call_pair,
    _line_pair,
)

C_LIKE = frozenset(words_of("js ts go rs c h cpp java php kt tsx jsx swift cs"))
STATEMENTS: dict[str, tuple[Callable[[Words], str], ...]] = {
    "py": (
        lambda w: f"{w.identifier()} = {w.value()}",
        lambda w: f"{w.identifier()} = {w.value()}",
        lambda w: f"return {w.value()}",
        lambda w: w.call(),
        lambda w: f"import {w.word()}",
        lambda w: f"from {w.word()} import {w.identifier()}",
        lambda w: f"def {w.identifier('snake')}({w.identifier('snake')}):",
        lambda w: f"class {w.identifier('pascal')}:",
        lambda w: f"if {w.identifier()} {w.rng.choice(('==', '!=', '<', '>=', 'in'))} {w.value()}:",
        lambda w: f"for {w.word()} in {w.identifier()}:",
        lambda w: f"# {w.phrase(2, 5)}",
        lambda w: f"raise {w.identifier('pascal')}({w.string()})",
    ),
    "c": (
        lambda w: f"const {w.identifier('camel')} = {w.value()};",
        lambda w: f"{w.identifier('camel')} = {w.value()};",
        lambda w: f"{w.call()};",
        lambda w: f"return {w.value()};",
        lambda w: f"if ({w.identifier()} {w.rng.choice(('==', '<', '!='))} {w.simple_value()}) {{",
        lambda w: f"// {w.phrase(2, 5)}",
        lambda w: f"int {w.identifier('snake')} = {w.number()};",
        lambda w: f"function {w.identifier('camel')}({w.identifier('camel')}) {{",
    ),
    "md": (
        lambda w: f"# {w.phrase(1, 3)}",
        lambda w: f"- {w.phrase(1, 4)}",
        lambda w: w.sentence(),
        lambda w: f"See `{w.identifier()}` in {w.word()}.",
    ),
    "json": (lambda w: f'"{w.word()}": {w.simple_value()},',),
    "toml": (
        lambda w: f"{w.identifier('snake')} = {w.simple_value()}",
        lambda w: f"[{w.word()}]",
        lambda w: f"{w.identifier('kebab')} = {w.string()}",
    ),
    "yaml": (
        lambda w: f"{w.identifier('snake')}: {w.value()}",
        lambda w: f"- {w.word()}: {w.word()}",
    ),
    "sh": (
        lambda w: f"{w.identifier('upper')}={w.simple_value()}",
        lambda w: f"echo {w.string()}",
        lambda w: f"export {w.identifier('upper')}={w.word()}",
        lambda w: f"cd {w.word()}/{w.word()}",
    ),
    "html": (
        lambda w: f"<p>{w.phrase(1, 4)}</p>",
        lambda w: f'<a href="{w.url()}">{w.word()}</a>',
    ),
    "css": (lambda w: f"{w.identifier('kebab')}: {w.number()}px;", lambda w: f".{w.word()} {{"),
    "text": (
        lambda w: w.sentence(),
        lambda w: f"{w.word()}: {w.phrase(1, 3)}",
        lambda w: w.phrase(1, 6),
    ),
}
STATEMENTS |= {"yml": STATEMENTS["yaml"], "cfg": STATEMENTS["toml"], "ini": STATEMENTS["toml"]}
STATEMENTS |= {"xml": STATEMENTS["html"], "env": STATEMENTS["sh"][:1], "rb": STATEMENTS["py"][:4]}
STATEMENTS |= {"lua": STATEMENTS["py"][:4], "jsonl": STATEMENTS["json"], "toml": STATEMENTS["toml"]}


def language_of(path: str) -> str:
    """The language to fill a file with, by its extension."""
    return path.rsplit(".", 1)[-1] if "." in path.rsplit("/", 1)[-1] else "text"


def source(words: Words, path: str, lines: int) -> list[str]:
    """Lines of a made-up file, indented here and there."""
    language = language_of(path)
    made: list[str] = []
    depth = 0
    for _ in range(lines):
        line = words.statement(language)
        made.append("    " * depth + line)
        if line.endswith((":", "{")):
            depth = min(depth + 1, 2)
        elif depth and words.chance(0.4):
            depth -= 1
    return made
