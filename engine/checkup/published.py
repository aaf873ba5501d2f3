"""The model beside DeepSeek's own: does it find most likely what the API answered? In: a model, its
tokenizer and its release. Out: a `Finding`. The answers stand in published.json, with their source.
Runs on the engine thread.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ds4_agent.engine.checkup.findings import Finding
from ds4_agent.engine.checkup.likely import likely
from ds4_agent.engine.dsml.encode import encode_messages
from ds4_agent.engine.dsml.segments import EOS
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.engine.model.model import Model

__all__ = ["CHECK", "LEAST_SAME", "Answer", "check_published", "published_answers"]

CHECK = "published answers"
# Of the ids. A model of two bits goes another way now and then, a wrong one is right by chance.
LEAST_SAME = 0.75
FILE = Path(__file__).resolve().parent / "published.json"


@dataclass(frozen=True)
class Answer:
    """What the API answered to one user message: no system prompt, thinking off, greedy."""

    release: str  # of the model that answered, as `engine.version` names it
    prompt: str
    prompt_tokens: int | None  # as the API counted them; None: unknown
    answer: str
    ended: bool  # the end of the turn came next; else the answer was cut there


@lru_cache(maxsize=1)
def published_answers() -> tuple[Answer, ...]:
    """All of them, of all releases."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return tuple(Answer(**entry) for entry in content["answers"])


def answer_ids(answer: Answer, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """(the prompt, the answer) as token ids."""
    message = {"role": "user", "content": answer.prompt}
    said = tokenizer.encode_data(answer.answer)
    end = [tokenizer.control(EOS)] if answer.ended else []
    return tokenizer.encode(encode_messages([message], thinking=False)), [*said, *end]


def check_published(
    model: Model,
    tokenizer: Tokenizer,
    release: str,
    on_answer: Callable[[int, int], None] = lambda done, total: None,
) -> Finding:
    """Where a checkpoint's files do not tell its release, it has to be like one of those there are.
    `on_answer(done, total)` follows and may raise. Raises EngineError."""
    if release == "nano":
        return Finding(CHECK, "not made", "not asked: nano is another model")
    answers = published_answers()
    releases = sorted({answer.release for answer in answers})
    asked = [release] if release in releases else releases
    total = sum(answer.release in asked for answer in answers)
    done, found = 0, []
    for name in asked:
        of_release = [answer for answer in answers if answer.release == name]
        fault = _count_fault(of_release, tokenizer)
        if fault:
            return Finding(CHECK, "failed", fault)
        ids = same = 0
        for answer in of_release:
            prompt, said = answer_ids(answer, tokenizer)
            result = likely(model, prompt, said)
            ids, same, done = ids + result.ids, same + result.same, done + 1
            on_answer(done, total)
        found.append((same / ids, same, ids, len(of_release), name))
    share, same, ids, count, name = max(found)
    said_of = f"{same} of {ids} tokens of {count} answers of {name} are the model's most likely"
    return Finding(
        CHECK,
        "passed" if share >= LEAST_SAME else "failed",
        f"{said_of} ({share:.0%}, at least {LEAST_SAME:.0%} should be)",
        {"release": name, "answers": count, "tokens": ids, "same": same, "least": LEAST_SAME},
    )


def _count_fault(answers: Sequence[Answer], tokenizer: Tokenizer) -> str:
    """Prompts whose tokens the API counted must have as many here."""
    for answer in answers:
        count = len(answer_ids(answer, tokenizer)[0])
        if answer.prompt_tokens not in (None, count):
            return (
                f"a prompt has {count} tokens here and had {answer.prompt_tokens} at DeepSeek's "
                "API: tokenizer.json is not that of V4"
            )
    return ""
