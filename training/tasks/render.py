"""Episodes and prefixes as token ids, rendered with the product's own building blocks.

In: an Episode, a Tokenizer, the tools' Grammar. Out: ids and, for each, a loss class: 0 context,
1 chosen by the model, 2 forced by the grammar at run time.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from ds4_agent.agent.prompt.facts import Facts
from ds4_agent.agent.prompt.profile import render_prompt
from ds4_agent.engine.dsml.encode import (
    assistant_header,
    call_segments,
    end_of_turn,
    reminder_segments,
    system_segments,
    tool_result_segments,
    user_segments,
)
from ds4_agent.engine.dsml.grammar import Forced, Grammar
from ds4_agent.engine.dsml.segments import Segment, data
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.tools.types import Tool
from training.tasks import skeletons as s
from training.tasks.phrasing import choose
from training.tasks.play import Episode, Turn
from training.tasks.vocabulary import Words, source

CONTEXT, CHOSEN, FORCED = 0, 1, 2


@dataclass
class Sequence16:
    """Ids of one sequence with their loss classes. Grows while it is rendered."""

    ids: list[int] = field(default_factory=list)
    loss: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], loss: Sequence[int] | int) -> None:
        self.ids.extend(ids)
        self.loss.extend([loss] * len(ids) if isinstance(loss, int) else loss)


class Renderer:
    """Renders with one tokenizer and one tool set."""

    def __init__(self, tokenizer: Tokenizer, tools: Sequence[Tool]) -> None:
        self.tokenizer = tokenizer
        self.tools = tuple(tools)
        self.grammar = Grammar(tokenizer, {tool.name: tool.schema() for tool in tools})

    def episode(self, episode: Episode) -> Sequence16:
        """From the first user turn to the last end of turn."""
        out = Sequence16()
        for turn in episode.turns:
            if turn.kind in ("user", "result"):
                segments = (
                    user_segments(turn.text)
                    if turn.kind == "user"
                    else tool_result_segments([turn.text])
                )
                out.add(self.tokenizer.encode([*segments, *assistant_header(False)]), CONTEXT)
            else:
                ids = self.tokenizer.encode([*self.spoken(turn), *end_of_turn()])
                out.add(ids, self.choices(ids))
        return out

    def choices(self, ids: Sequence[int]) -> list[int]:
        """The loss class of each id of one model turn, by walking the grammar over it.

        Raises ValueError if the grammar would force something else: such a turn cannot be written
        at run time and must not be trained.
        """
        state = self.grammar.start(thinking=False)
        loss: list[int] = []
        while len(loss) < len(ids):
            constraint = state.constraint()
            run = constraint.ids if isinstance(constraint, Forced) else (ids[len(loss)],)
            if tuple(ids[len(loss) : len(loss) + len(run)]) != tuple(run):
                raise ValueError(f"the grammar forces other ids after {len(loss)}")
            for token_id in run:
                state.accept(token_id)
            loss += [FORCED if isinstance(constraint, Forced) else CHOSEN] * len(run)
        return loss

    def prefix(self, facts: Facts) -> list[int]:
        """The product's prompt, exactly."""
        return self.tokenizer.encode(render_prompt("nano", self.tools, facts))

    def varied_prefix(self, words: Words, facts: Facts) -> list[int]:
        """The prompt with other lines around it: more tools, fewer, other facts, a foreign text."""
        prompt = render_prompt("nano", self.tools, facts)
        head, *lines = prompt[1].text.split("\n")
        if words.chance(0.3):
            extra = [plugin_signature(words) for _ in range(words.rng.randint(1, 4))]
            lines = [*lines, *extra] if words.chance(0.6) else [*extra, *lines]
        if words.chance(0.12):
            lines.pop(words.rng.randrange(len(lines)))
        if words.chance(0.06):
            words.rng.shuffle(lines)
        if words.chance(0.06):
            head = head.replace("You are ds4-agent, a coding agent. ", "")
        text = "\n".join([head, *lines])
        if words.chance(0.55):
            most = 30 if words.chance(0.15) else 6
            text += "\n\n" + foreign_text(words, words.rng.randint(1, most))
        reminder = prompt[-1].text
        if words.chance(0.4):
            more = [fact_line(words) for _ in range(words.rng.randint(1, 3))]
            at = words.rng.randint(0, len(more))
            reminder = "\n".join([*more[:at], reminder, *more[at:]])
        segments = [*system_segments(text, [], effort=None), *reminder_segments(reminder)]
        return self.tokenizer.encode(segments)

    def spoken(self, turn: Turn) -> list[Segment]:
        """The segments of a call or an answer, without the end of turn."""
        if turn.kind == "answer":
            return [data(turn.text)]
        assert turn.call is not None
        return call_segments([turn.call])


def facts_id(tests: str | None) -> int:
    """A number for a test command, the same in every shard; -1 where any will do."""
    return -1 if tests is None else zlib.crc32(tests.encode()) & 0x7FFFFFFF


def facts_of(tests: str) -> Facts:
    return Facts(tests=None if tests == "unknown" else tests)


def plugin_signature(words: Words) -> str:
    """A tool line of some plugin."""
    names = [words.word() for _ in range(words.rng.randint(0, 3))]
    parameters = ", ".join(name + ("?" if words.chance(0.4) else "") for name in names)
    return f"{words.identifier('snake')}({parameters})"


def fact_line(words: Words) -> str:
    rng = words.rng
    return rng.choice(
        (
            f"Branch: {words.word()}",
            "Git branch: main",
            f"Directory: /home/{words.word()}/{words.word()}",
            f"Date: 20{rng.randint(24, 29)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}",
            f"Language: {words.word()}",
        )
    )


def foreign_text(words: Words, lines: int) -> str:
    """Text like that of an AGENTS.md or of a file, none of which asks for anything."""
    made = [f"# {words.phrase(1, 3)}"] if words.chance(0.5) else []
    made += source(words, words.rng.choice(("a.md", "a.txt", "a.py", "a.toml", "a.md")), lines)
    if words.chance(0.3):
        made.append(choose(words.rng, words.rng.choice(s.CONTEXTS)))
    return "\n".join(made)
