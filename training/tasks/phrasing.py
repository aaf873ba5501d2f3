"""Words for a request: a skeleton, synonyms and trimmings, all drawn independently.

In: a family's skeletons and the texts to copy. Out: one request. In a skeleton `[a|b]` is a
choice, `{name}` a text to copy and `<name>` a synonym; a leading `!` says that the
sentence is a command, so that "could you …" may stand before it. Skeletons and synonyms named
held are used for evaluation only, and every held-out request has at least one of them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from training.tasks import skeletons as parts
from training.tasks.skeletons import Phrases
from training.tasks.vocabulary import SYLLABLES

MARK = "\ue000"  # stands before the number of a text to copy until the request is finished
ONE_TYPO = 0.07
BROKEN_LINE = 0.02
ASIDE = 0.1
INVENTED_VERB = 0.04
# Verbs that may be any word: the rest of the frame says what is meant, and a model should not
# give up at a verb it has never seen.
VERBS = ("replace", "change", "show", "create", "run", "open", "find")


class Phrasing:
    """Draws requests. `held`: each contains a frame or a synonym never used in training."""

    def __init__(self, rng: random.Random, *, held: bool = False) -> None:
        self.rng = rng
        self.held = held

    def request(self, skeletons: Phrases, texts: Mapping[str, str], *, plain: bool = False) -> str:
        """One request with `texts` in it unchanged. `plain`: no trimmings around the sentence."""
        frame, held_synonym = self._frame(skeletons)
        names = list(texts)
        for number, name in enumerate(names):
            frame = frame.replace(f"{{{name}}}", f"{MARK}{chr(0xE100 + number)}")
        is_command = frame.startswith("!")
        sentence = self._expand(frame.removeprefix("!"), held_synonym)
        if not plain:
            sentence = self._trimmed(sentence, is_command)
            if not self.held and self.rng.random() < ASIDE:
                sentence = self._with_aside(sentence)
            if self.rng.random() < ONE_TYPO:
                sentence = self._with_typo(sentence)
            if self.rng.random() < BROKEN_LINE:
                blanks = [m.start() for m in re.finditer(r" ", sentence)]
                at = self.rng.choice(blanks) if blanks else len(sentence)
                sentence = sentence[:at] + "\n" + sentence[at + 1 :]
        for number, name in enumerate(names):
            sentence = sentence.replace(f"{MARK}{chr(0xE100 + number)}", texts[name])
        return sentence

    def _frame(self, skeletons: Phrases) -> tuple[str, bool]:
        """A frame, and whether one of its synonyms must be a held-out one."""
        if not self.held:
            return self.rng.choice(skeletons.train), False
        with_synonym = [frame for frame in skeletons.train if _held_synonyms(frame)]
        if skeletons.held and (not with_synonym or self.rng.random() < 0.6):
            return self.rng.choice(skeletons.held), False
        return self.rng.choice(with_synonym), True

    def _expand(self, frame: str, held_synonym: bool) -> str:
        frame = choose(self.rng, frame)
        chosen = (
            self.rng.choice(_held_synonyms(frame)) if held_synonym and _held_synonyms(frame) else ""
        )

        def synonym(match: re.Match[str]) -> str:
            words = parts.SYNONYMS[match[1]]
            if match[1] in VERBS and not self.held and self.rng.random() < INVENTED_VERB:
                return invented(self.rng)
            return choose(
                self.rng, self.rng.choice(words.held if match[1] == chosen else words.train)
            )

        frame = re.sub(r"<(\w+)>", synonym, frame)
        return re.sub(r" +([,.?!:;])", r"\1", re.sub(r"  +", " ", frame)).strip()

    def _trimmed(self, sentence: str, is_command: bool) -> str:
        rng = self.rng
        is_question = sentence.endswith("?")
        body = sentence.rstrip("?")
        ending = "?" if is_question else ""
        if is_command and rng.random() < 0.45:
            opener = choose(rng, rng.choice(parts.OPENERS))
            is_question = opener.startswith(("can ", "could ", "would ", "will ", "may "))
            body = f"{opener} {body}"
            ending = rng.choice(("?", "?", "")) if is_question else ""
        elif rng.random() < 0.12:
            body = f"{choose(rng, rng.choice(parts.CALLS))} {body}"
        if not is_question and rng.random() < 0.12 and "\n" not in body:
            body += choose(rng, rng.choice(parts.CLOSERS))
        if not ending and "\n" not in body:
            ending = rng.choice(("", "", "", ".", ".", ".", "!"))
        if rng.random() < 0.45:
            body = capitalised(body)
        if rng.random() < 0.14 and "\n" not in body:
            before = choose(rng, rng.choice(parts.CONTEXTS)).strip() + rng.choice(
                (". ", ". ", ". ", ".\n", "! ")
            )
            body = capitalised(before) + capitalised(body)
        if rng.random() < 0.1 and "\n" not in body:
            after = capitalised(choose(rng, rng.choice(parts.AFTERWORDS)))
            return (
                body
                + (ending or ".")
                + rng.choice((" ", " ", "\n"))
                + after
                + rng.choice((".", "", "!"))
            )
        return body + ending

    def _with_aside(self, sentence: str) -> str:
        """A word or two that mean nothing here, somewhere between words that are not copied."""
        blanks = [match.start() for match in re.finditer(r"(?<=[a-z,]) (?=[a-z])", sentence)]
        if not blanks:
            return sentence
        at, aside = self.rng.choice(blanks), choose(self.rng, self.rng.choice(parts.ASIDES))
        if self.rng.random() < 0.2:
            aside = invented(self.rng)
        comma = "," if self.rng.random() < 0.15 else ""
        return f"{sentence[:at]}{comma} {aside}{comma}{sentence[at:]}"

    def _with_typo(self, sentence: str) -> str:
        """One slip in one longer word that is not to be copied, or a small word left out."""
        small = list(re.finditer(r"\b(the|a|file|is|to|of|my) ", sentence))
        if small and self.rng.random() < 0.25:
            word = self.rng.choice(small)
            return sentence[: word.start()] + sentence[word.end() :]
        words = list(re.finditer(r"[a-z]{4,}", sentence))
        if not words:
            return sentence
        word = self.rng.choice(words)
        at = self.rng.randrange(word.start() + 1, word.end() - 1)
        slip = self.rng.choice(("swap", "drop", "double"))
        if slip == "swap":
            return sentence[:at] + sentence[at + 1] + sentence[at] + sentence[at + 2 :]
        if slip == "drop":
            return sentence[:at] + sentence[at + 1 :]
        return sentence[:at] + sentence[at] + sentence[at:]


def _held_synonyms(frame: str) -> list[str]:
    return [name for name in re.findall(r"<(\w+)>", frame) if parts.SYNONYMS[name].held]


def choose(rng: random.Random, text: str) -> str:
    """`text` with each innermost `[a|b]` replaced by one of its alternatives."""
    while True:
        match = re.search(r"\[([^\[\]]*)\]", text)
        if match is None:
            return text
        text = text[: match.start()] + rng.choice(match[1].split("|")) + text[match.end() :]


def invented(rng: random.Random) -> str:
    """A verb nobody knows."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3)))


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def quoted(rng: random.Random, *texts: str, bare: bool = False) -> list[str]:
    """`texts` in quotes that occur in none of them; with `bare`, sometimes without any.

    Raises ValueError when every kind of quote occurs in the texts.
    """
    if bare and rng.random() < 0.3 and all(is_unmistakable(text) for text in texts):
        return list(texts)
    styles = ['""', '""', '""', "''", "''", "``", "``", "“”"]
    styles = [style for style in styles if not any(s in text for text in texts for s in style)]
    if not styles:
        raise ValueError("no kind of quote is free")
    style = rng.choice(styles)
    return [style[0] + text + style[1] for text in texts]


def is_unmistakable(text: str) -> bool:
    """Whether `text` can stand in a sentence without quotes and still be seen as one thing."""
    if not text or text != text.strip() or text[-1] in ".,;:!?" or text[0] in "\"'`“":
        return False
    if any(sign in text for sign in "\n\t`“”") or ", " in text or ": " in text:
        return False
    return not ({word.strip("()[]{}.,:;").lower() for word in text.split()} & parts.OWN_WORDS)
