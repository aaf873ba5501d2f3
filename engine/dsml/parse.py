"""A model's turn, id by id, into text, reasoning and tool calls.

In: the sampled ids, in order. Out: events as soon as they are certain, at the end a `Parsed`.
Markup is recognised by token id, never by text: what merely spells DSML stays text. Linear in the
ids; nothing is executed here and nothing rejected is half reported.
"""

from collections.abc import Mapping
from typing import Any, Literal

from ds4_agent.engine.dsml.block_parse import BlockParser
from ds4_agent.engine.dsml.calls import ParsedCall
from ds4_agent.engine.dsml.events import (
    AnswerText,
    ArgumentText,
    CallFinished,
    CallStarted,
    Parsed,
    ParseEvent,
    ThinkingText,
)
from ds4_agent.engine.dsml.held import HeldText
from ds4_agent.engine.dsml.schema import ToolSignature
from ds4_agent.engine.dsml.segments import (
    ASSISTANT,
    BOS,
    DSML,
    END_THINK,
    EOS,
    LATEST_REMINDER,
    THINK,
    USER,
)
from ds4_agent.engine.dsml.tokenizer import Tokenizer

__all__ = [
    "AnswerText",
    "ArgumentText",
    "CallFinished",
    "CallStarted",
    "ParseEvent",
    "Parsed",
    "ParsedCall",
    "Parser",
    "ThinkingText",
]


class Parser:
    """The parser of one model turn, from the first id after the header.

    `thinking`: the header ended in `<think>`. `schemas`: the declared tools by name; with them,
    undeclared tools and parameters and missing required ones are defects, and a missing `string`
    attribute is decided by the schema. None: no tool is known, any name will do.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        thinking: bool,
        schemas: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._decoder = tokenizer.stream_decoder()
        self._tokenizer = tokenizer
        self._dsml = tokenizer.control(DSML)
        self._eos = tokenizer.control(EOS)
        self._think_marks = {tokenizer.control(THINK), tokenizer.control(END_THINK)}
        self._end_think = tokenizer.control(END_THINK)
        # A model that writes these goes on as somebody else. (Not every tokenizer has them all.)
        self._foreign = {
            tokenizer.control(text)
            for text in (BOS, USER, ASSISTANT, LATEST_REMINDER)
            if text in tokenizer.control_texts
        }
        signatures = (
            None
            if schemas is None
            else {name: ToolSignature.from_schema(schema) for name, schema in schemas.items()}
        )
        self._block = BlockParser(signatures)
        self._region: Literal["thinking", "answer", "block"] = "thinking" if thinking else "answer"
        self._block_in_thinking = False
        self._held = HeldText(holds_breaks=True)
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._repaired: str | None = None
        self._foreign_text: str | None = None
        self._ended_by_eos = False

    @property
    def block_closed(self) -> bool:
        """The end of a block has been read: stop decoding. Ids fed from now on are ignored."""
        return self._block.is_closed

    @property
    def stopped(self) -> bool:
        """The turn is over: its block has ended, or EOS or a foreign turn marker was fed."""
        return self.block_closed or self._ended_by_eos or self._foreign_text is not None

    def feed(self, token_id: int) -> list[ParseEvent]:
        """The next sampled id; returns what is certain now. Raises TokenRangeError."""
        events: list[ParseEvent] = []
        if self.stopped:
            return events
        if token_id not in self._tokenizer.control_ids:
            self._text(self._decoder.feed(token_id), events)
            return events
        self._text(self._decoder.flush(), events)
        if token_id == self._eos:
            self._ended_by_eos = True
            self._release(events)
        elif token_id in self._foreign:
            self._foreign_text = self._tokenizer.decode([token_id])
            self._release(events)
        elif token_id == self._dsml:
            self._markup(events)
        elif token_id in self._think_marks and self._region != "block":
            self._think_mark(token_id, events)
        else:  # e.g. `<dsml:` (an added token of V4) in an XML file that is being written
            self._text(self._tokenizer.decode([token_id]), events)
        return events

    def finish(self, reason: Literal["stop", "length"]) -> Parsed:
        """What the turn was. `length`: decoding ended before the model did; call once, at the end.

        A turn whose block is closed is complete whatever the reason.
        """
        events: list[ParseEvent] = []
        if not self.stopped:
            self._text(self._decoder.flush(), events)
            self._release(events)
        cut = reason == "length" and not self.stopped
        error, detail = self._defect(cut)
        outcome = self._block.outcome(cut=cut)
        if error is None:
            error, detail = outcome.error, outcome.detail
        return Parsed(
            reasoning="".join(self._reasoning),
            content="".join(self._content),
            calls=() if error else outcome.calls,
            error=error,
            detail=detail,
            repaired=self._repaired or outcome.repaired,
            in_thinking=self._block_in_thinking,
            partial=outcome.partial if error else None,
            remaining=tuple(events),
        )

    def _defect(self, cut: bool) -> tuple[str | None, str | None]:
        """What is wrong outside the block, as name and sentence."""
        if self._foreign_text is not None:
            return "control_token", f"the turn went on with {self._foreign_text}"
        if self._region == "thinking":
            if cut:
                return "truncated_reasoning", "the reasoning was cut off by the length limit"
            return "missing_think_end", f"the turn ended before {END_THINK}"
        return None, None

    def _text(self, text: str, events: list[ParseEvent]) -> None:
        if not text:
            return
        if self._region == "block":
            self._block.text(text, events)
        else:
            self._emit(self._held.push(text), events)

    def _emit(self, text: str, events: list[ParseEvent]) -> None:
        if text and self._region == "thinking":
            self._reasoning.append(text)
            events.append(ThinkingText(text))
        elif text:
            self._content.append(text)
            events.append(AnswerText(text))

    def _release(self, events: list[ParseEvent]) -> None:
        """No block follows: what was held back is text."""
        if self._region != "block":
            self._emit("".join(self._held.take()), events)

    def _think_mark(self, token_id: int, events: list[ParseEvent]) -> None:
        is_end = token_id == self._end_think
        if is_end and self._region == "thinking":
            self._release(events)
            self._region = "answer"
        else:
            self._repair("extra_think_end" if is_end else "extra_think_start")

    def _markup(self, events: list[ParseEvent]) -> None:
        """The DSML id. Outside a block it starts one, and the line breaks before it are no text."""
        if self._region == "block":
            self._block.markup(events)
            return
        breaks, bracket = self._held.take()
        texts = self._reasoning if self._region == "thinking" else self._content
        if (texts or breaks) and not breaks.endswith("\n\n"):
            self._repair("separator")
        self._block_in_thinking = self._region == "thinking"
        self._region = "block"
        self._block.start(bracket)

    def _repair(self, name: str) -> None:
        self._repaired = self._repaired or name
