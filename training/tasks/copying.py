"""Pure copying, the first thing a model learns: a request that holds texts, an answer that is one.

In: words. Out: episodes without tools. Copying from far and choosing among several is all a call's
arguments need, and learned alone it is learned in a fraction of the time.
"""

from __future__ import annotations

from training.tasks.phrasing import quoted
from training.tasks.play import Episode, Turn
from training.tasks.vocabulary import Words, source

ORDINALS = ("first", "second", "third", "fourth")


def copy(words: Words) -> Episode:
    """Copy one text, the n-th of several, two in a given order, or a line of a file."""
    pick = words.rng.random()
    if pick < 0.35:
        text = item(words)
        request, answer = f"copy {quoted(words.rng, text)[0]}", text
    elif pick < 0.65:
        request, answer = nth(words)
    elif pick < 0.85:
        old, new = words.pair()
        a, b = quoted_apart(words, old, new)
        request, answer = words.rng.choice(
            (
                (f"copy {a} then {b}", f"{old}\n{new}"),
                (f"copy {a} after {b}", f"{new}\n{old}"),
                (f"copy {a} and {b}, in {words.path()}", f"{old}\n{new}"),
            )
        )
    else:
        lines = source(words, words.path(), words.rng.randint(2, 5))
        number = words.rng.randrange(min(len(lines), len(ORDINALS)))
        request = f"copy the {ORDINALS[number]} line\n" + "\n".join(lines)
        answer = lines[number]
    return Episode("copy", (Turn("user", request), Turn("answer", answer)))


def nth(words: Words) -> tuple[str, str]:
    """A request for one of two to four texts, and that text."""
    items = [item(words) for _ in range(words.rng.randint(2, 4))]
    number = words.rng.randrange(len(items))
    listed = " ".join(quoted(words.rng, text)[0] for text in items)
    return f"copy the {ORDINALS[number]} of {listed}", items[number]


def item(words: Words) -> str:
    pick = words.rng.random()
    if pick < 0.35:
        return words.identifier()
    if pick < 0.6:
        return words.path()
    return words.fragment()


def quoted_apart(words: Words, old: str, new: str) -> tuple[str, str]:
    return quoted(words.rng, old)[0], quoted(words.rng, new)[0]
