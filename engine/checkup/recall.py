"""Whether a model recalls what stands far back. A sentence with a code is hidden early in a long
text and asked for at the end. In: a model and its tokenizer. Out: a `Finding`. V4 is asked in chat;
nano, which answers only what it was trained for, continues the sentence within its window. Runs on
the engine thread.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

from ds4_agent.engine.checkup.findings import Finding
from ds4_agent.engine.checkup.likely import likely
from ds4_agent.engine.dsml.encode import encode_messages
from ds4_agent.engine.dsml.segments import BOS
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.engine.model.model import Model

__all__ = ["CHECK", "LEAST_SAME", "NANO_GAIN", "TOKENS", "check_recall"]

CHECK = "recall"
# Of context: four times what the indexer of V4 takes up in a layer, 512 groups of four.
TOKENS = 8192
LEAST_SAME = 0.75  # of the code's ids: the first may be another, as of a sentence around it
NANO_GAIN = 1.0  # nats an id: how much likelier the code is where it stands in front
DEPTH = 0.1  # where the sentence stands, of the text

FACT = "The code that opens the northern archive is"
CODE = "copper-lantern-7319-velvet-harbour-42"
QUESTION = "Which code opens the northern archive? Answer with the code only."


def check_recall(
    model: Model,
    tokenizer: Tokenizer,
    *,
    is_nano: bool,
    tokens: int = TOKENS,
    stop: Callable[[], None] = lambda: None,
) -> Finding:
    """`tokens`: of context, at most. `stop` is called now and then and may raise. Raises
    EngineError."""
    if is_nano:
        return _continued(model, tokenizer, stop)
    code = tokenizer.encode_data(CODE)

    def prompt(lines: Sequence[str]) -> list[int]:
        message = {"role": "user", "content": "\n".join([*lines, "", QUESTION])}
        return tokenizer.encode(encode_messages([message], thinking=False))

    lines = _hidden(_fitting(tokenizer, tokens - len(prompt([])) - len(code) - 64))
    beginning = prompt(lines)
    result = likely(model, beginning, code, stop)
    share = result.same / result.ids
    back = len(beginning) - len(prompt(lines[: lines.index(f"{FACT} {CODE}.")]))
    return Finding(
        CHECK,
        "passed" if share >= LEAST_SAME else "failed",
        f"of a code {back:,} tokens back in {len(beginning):,}, {result.same} of {result.ids} "
        f"tokens are the model's most likely ({share:.0%}, at least {LEAST_SAME:.0%} should be)",
        {
            "tokens": len(beginning), "back": back, "asked": result.ids, "same": result.same,
            "log_p": round(result.log_p, 4), "least": LEAST_SAME,
        },
    )  # fmt: skip


def _continued(model: Model, tokenizer: Tokenizer, stop: Callable[[], None]) -> Finding:
    """Nano: the sentence again, as far back as its window reaches."""
    start = [tokenizer.control(BOS)]
    fact, code = tokenizer.encode_data(FACT), tokenizer.encode_data(f" {CODE}")
    room = model.config.sliding_window // 2 - len(fact) - len(code)
    between = tokenizer.encode_data("\n".join(_fitting(tokenizer, room)))
    beginning = [*start, *fact, *code, *between, *fact]
    known = likely(model, beginning, code, stop)
    unknown = likely(model, [*start, *between, *fact], code, stop)
    gain, back = known.log_p - unknown.log_p, len(beginning) - len(fact)
    return Finding(
        CHECK,
        "passed" if gain >= NANO_GAIN else "failed",
        f"a code {back:,} tokens back is {gain:.1f} nats a token likelier than without it "
        f"(at least {NANO_GAIN:g} is asked for)",
        {
            "tokens": len(beginning), "back": back, "asked": known.ids, "same": known.same,
            "gain": round(gain, 4), "least": NANO_GAIN,
        },
    )  # fmt: skip


def _hidden(lines: list[str]) -> list[str]:
    place = int(DEPTH * len(lines))
    return [*lines[:place], f"{FACT} {CODE}.", *lines[place:]]


def _fitting(tokenizer: Tokenizer, room: int) -> list[str]:
    """As many lines of the log as have `room` tokens."""
    lines: list[str] = []
    for line in _log():
        room -= len(tokenizer.encode_data(f"{line}\n"))
        if room < 0:
            return lines
        lines.append(line)
    return lines


def _log() -> Iterator[str]:
    """Lines without end, no two alike, that hold nothing of what is asked."""
    places = ("pump", "valve", "boiler", "cable", "bridge", "tower", "gate", "crane", "tank")
    states = ("in order", "cleaned", "painted again", "due next month", "dry", "closed")
    for number in itertools.count(1):
        place, state = places[number * 7 % len(places)], states[number * 5 % len(states)]
        hall = number * 13 % 89
        yield f"Entry {number}: the {place} of hall {hall} was looked at; it is {state}."
