"""Tasks without a call: greetings, thanks, and what nano cannot do.

In: words and a phrasing. Out: a Task.
"""

from __future__ import annotations

from training.tasks import answers
from training.tasks.phrasing import Phrasing
from training.tasks.skeletons import FRAMES
from training.tasks.task import Ask, Task, say
from training.tasks.vocabulary import Words

GREET = FRAMES["greet"]
THANKS = FRAMES["thanks"]
DECLINE = FRAMES["decline"]


def greet(words: Words, phrasing: Phrasing) -> Task:
    skeletons, answer = words.rng.choice(((GREET, answers.HELLO), (THANKS, answers.WELCOME)))
    text = phrasing.request(skeletons, {}, plain=True)
    text = text[0].upper() + text[1:] if words.chance(0.5) else text
    return Task("greeting", {}, (Ask(text + words.rng.choice(("", "", "!")), say(answer)),))


def decline(words: Words, phrasing: Phrasing) -> Task:
    topics = {"t": words.phrase(1, 3), "u": words.phrase(1, 2)}
    text = phrasing.request(DECLINE, topics)
    return Task("declining", {}, (Ask(text, say(answers.CANNOT)),))
