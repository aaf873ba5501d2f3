"""One block of tool calls, from the first DSML id on. In: text, and the places where a DSML id
stands in it. Out: events, and at the end the calls or the one defect that rejects them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ds4_agent.engine.dsml.calls import ParsedCall
from ds4_agent.engine.dsml.events import ArgumentText, CallFinished, CallStarted, ParseEvent
from ds4_agent.engine.dsml.held import HeldText
from ds4_agent.engine.dsml.schema import ToolSignature
from ds4_agent.engine.dsml.tags import BadTag, Tag, read_closing_tag, read_opening_tag
from ds4_agent.engine.dsml.values import json_value

__all__ = ["BlockParser", "Outcome"]

_DETAILS = {
    "bad_wrapper": 'the block does not begin with the tag "tool_calls"',
    "bad_closing_tag": "a closing tag is misspelled",
    "bad_invoke_tag": 'an invoke tag is not of the form invoke name="NAME"',
    "bad_param_tag": 'a parameter tag is not of the form parameter name="NAME" string="true|false"',
    "bad_tool_name": "a tool name is empty or holds white space",
    "empty_block": "the block holds no call",
    "missing_invoke_end": "the last call is not closed",
    "missing_param_end": "the value of a parameter is not closed",
    "nested_markup_in_value": "the value of a parameter holds another tag before it is closed",
    "parameter_outside_invoke": "a parameter stands outside a call",
    "stray_closer": "a closing tag stands where nothing is open",
    "truncated": "the call was cut off by the length limit",
    "unclosed_tag": "a tag is not closed",
    "unexpected_tag": "a tag stands where it does not belong",
    "unexpected_text_in_block": "text stands between the calls",
    "unexpected_text_in_invoke": "text stands between the parameters",
}


@dataclass(frozen=True)
class Outcome:
    """What a block was; `error` None and no calls where there was no block at all."""

    calls: tuple[ParsedCall, ...] = ()
    error: str | None = None
    detail: str | None = None
    repaired: str | None = None
    partial: ParsedCall | None = None


class BlockParser:
    """The state machine of a block: between tags, inside a tag, inside a value."""

    def __init__(self, signatures: Mapping[str, ToolSignature] | None) -> None:
        self._signatures = signatures
        self._place: Literal["none", "gap", "tag", "value", "failed"] = "none"
        self.is_closed = False
        self._calls: list[ParsedCall] = []
        self._error: tuple[str, str] | None = None
        self._repaired: str | None = None
        self._gap: list[str] = []
        self._tag: list[str] = []
        self._tag_closes = False
        self._tag_is_quoted = False
        self._has_wrapper = False
        self._tool: str | None = None
        self._arguments: dict[str, Any] = {}
        self._parameter = ""
        self._is_string = True
        self._value: list[str] = []
        self._held = HeldText(holds_breaks=False)

    def start(self, bracket: str) -> None:
        """The first DSML id, after the bracket of its tag."""
        if bracket not in ("<", "</"):
            self._fail("bad_wrapper")
        self._open_tag(closes=bracket == "</")

    def markup(self, events: list[ParseEvent]) -> None:
        """A further DSML id."""
        if self._place == "gap":
            self._end_gap()
        elif self._place == "value":
            _, bracket = self._take_value_end(events)
            if bracket != "</":
                self._fail("nested_markup_in_value")
            self._open_tag(closes=bracket == "</")
        elif self._place == "tag":
            self._fail("unclosed_tag")
            self._open_tag(closes="".join(self._tag)[-2:] == "</")
        elif self._place == "failed":
            _, bracket = self._held.take()
            self._open_tag(closes=bracket == "</")

    def text(self, text: str, events: list[ParseEvent]) -> None:
        """Text between the DSML ids; may hold the end of a tag and what follows it."""
        while text and not self.is_closed:
            if self._place == "tag":
                text = self._tag_text(text, events)
            elif self._place == "value":
                self._value_text(self._held.push(text), events)
                return
            elif self._place == "gap":
                self._gap.append(text)
                return
            else:
                self._held.push(text)
                return

    def outcome(self, *, cut: bool) -> Outcome:
        """The block as it stands. `cut`: decoding ended before the model did."""
        if self._error is None and self._place != "none" and not self.is_closed:
            self._fail_unfinished(cut)
        error, detail = self._error or (None, None)
        open_call = None if self._tool is None else ParsedCall(self._tool, dict(self._arguments))
        return Outcome(
            () if error else tuple(self._calls),
            error,
            detail,
            self._repaired,
            open_call if error else None,
        )

    def _fail_unfinished(self, cut: bool) -> None:
        """The ids ended inside the block."""
        if cut:
            self._fail("truncated")
        elif self._place == "value":
            self._fail("missing_param_end")
        elif self._place == "tag":
            self._fail("unclosed_tag")
        elif self._tool is not None:
            self._fail("missing_invoke_end")
        elif not self._calls:
            self._fail("empty_block")
        elif "".join(self._gap).strip():
            self._fail("unexpected_text_in_block")
        elif self._has_wrapper:
            self._repair("missing_block_end")

    # Tags

    def _open_tag(self, *, closes: bool) -> None:
        self._place = "tag"
        self._tag = []
        self._tag_closes = closes
        self._tag_is_quoted = False

    def _tag_text(self, text: str, events: list[ParseEvent]) -> str:
        """Text up to the `>` of the tag; returns the rest. A `>` inside quotes ends no tag."""
        at = 0
        while at < len(text):
            if text[at] == '"' and not self._tag_closes:
                self._tag_is_quoted = not self._tag_is_quoted
            elif text[at] == ">" and not self._tag_is_quoted:
                self._tag.append(text[:at])
                self._end_tag("".join(self._tag), events)
                return text[at + 1 :]
            at += 1
        self._tag.append(text)
        return ""

    def _end_tag(self, text: str, events: list[ParseEvent]) -> None:
        tag = read_closing_tag(text) if self._tag_closes else read_opening_tag(text)
        if self._error is not None:
            self._place = "failed"
            ends_block = isinstance(tag, Tag) and tag.kind == "block" and self._tag_closes
            self.is_closed = ends_block
            return
        self._place = "gap"
        self._gap = []
        if isinstance(tag, BadTag):
            self._fail(tag.defect)
            return
        if tag.repaired:
            self._repair(tag.repaired)
        if self._tag_closes:
            self._closing_tag(tag, events)
        elif tag.kind == "block":
            self._block_opens()
        elif tag.kind == "invoke":
            self._invoke_opens(tag, events)
        else:
            self._parameter_opens(tag)

    def _closing_tag(self, tag: Tag, events: list[ParseEvent]) -> None:
        if self._parameter:
            if tag.kind == "parameter":
                self._parameter_closes()
            else:
                self._fail("nested_markup_in_value")
                self.is_closed = tag.kind == "block"
        elif tag.kind == "invoke" and self._tool is not None:
            self._invoke_closes(events)
        elif tag.kind == "block" and (self._has_wrapper or self._calls or self._tool is not None):
            if self._tool is not None:
                self._repair("missing_invoke_end")
                self._invoke_closes(events)
            if not self._calls and self._error is None:
                self._fail("empty_block")
            self.is_closed = True
        else:
            self._fail("stray_closer")
            self.is_closed = tag.kind == "block"

    def _block_opens(self) -> None:
        if self._has_wrapper or self._calls or self._tool is not None:
            self._fail("unexpected_tag")
        self._has_wrapper = True

    def _invoke_opens(self, tag: Tag, events: list[ParseEvent]) -> None:
        if self._tool is not None:
            self._repair("missing_invoke_end")
            self._invoke_closes(events)
        if not self._has_wrapper:
            self._repair("missing_block_start")
        if self._signatures is not None and tag.name not in self._signatures:
            self._fail("unknown_tool", f"there is no tool {tag.name}")
        if self._error is not None:
            return
        self._tool = tag.name
        self._arguments = {}
        events.append(CallStarted(len(self._calls), tag.name))
        if tag.is_self_closing:
            self._invoke_closes(events)

    def _invoke_closes(self, events: list[ParseEvent]) -> None:
        name = self._tool or ""
        missing = self._signatures[name].missing(self._arguments) if self._signatures else []
        if missing:
            self._fail("missing_required_param", f"{name} needs {', '.join(missing)}")
            return
        call = ParsedCall(name, self._arguments)
        events.append(CallFinished(len(self._calls), call))
        self._calls.append(call)
        self._tool = None

    # Parameters

    def _parameter_opens(self, tag: Tag) -> None:
        if self._tool is None:
            self._fail("parameter_outside_invoke" if self._has_wrapper else "bad_wrapper")
            return
        if tag.name in self._arguments:
            self._fail("duplicate_param", f"{self._tool} is given {tag.name} twice")
            return
        flags: tuple[bool, ...] = (True, False)
        if self._signatures is not None:
            signature = self._signatures[self._tool]
            declared = signature.by_name.get(tag.name)
            if declared is not None:
                flags = declared.string_flags
            elif not signature.is_open:
                self._fail("unknown_param", f"{self._tool} has no parameter {tag.name}")
                return
        is_string = tag.is_string
        if is_string is None:
            defect = "missing_string_attr" if tag.string_attribute is None else "bad_string_attr"
            if len(flags) != 1:
                self._fail(defect, f'parameter {tag.name} needs string="true" or string="false"')
                return
            self._repair(defect)
            is_string = flags[0]
        self._parameter = tag.name
        self._is_string = is_string
        self._value = []
        self._place = "value"

    def _value_text(self, text: str, events: list[ParseEvent]) -> None:
        if text:
            self._value.append(text)
            events.append(ArgumentText(len(self._calls), self._parameter, text))

    def _take_value_end(self, events: list[ParseEvent]) -> tuple[str, str]:
        """The bracket before a DSML id inside a value; a bar after it belongs to the value."""
        held = self._held.take()
        if held[1] not in ("<", "</"):
            self._value_text(held[1], events)
        return held

    def _parameter_closes(self) -> None:
        text = "".join(self._value)
        name, self._parameter = self._parameter, ""
        try:
            self._arguments[name] = text if self._is_string else json_value(text)
        except ValueError as error:
            self._fail("bad_json_value", f"the value of {name} is no JSON: {error}")

    # Between tags

    def _end_gap(self) -> None:
        """A DSML id after the gap: it must be white space and the bracket of the next tag."""
        gap = "".join(self._gap)
        bracket = next((b for b in ("</", "<") if gap.endswith(b)), "")
        space = gap.removesuffix(bracket)
        if not bracket or space.strip():
            inside = self._tool is not None
            self._fail(
                ("unexpected_text_in_invoke" if inside else "unexpected_text_in_block")
                if space.strip()
                else "unexpected_tag"
            )
        # DeepSeek's own encoder leaves an empty line in a call without parameters.
        is_empty_call = self._tool is not None and not self._arguments and space == "\n\n"
        if space != "\n" and not is_empty_call:
            self._repair("tag_whitespace")
        self._open_tag(closes=bracket == "</")

    def _repair(self, name: str) -> None:
        if self._error is None:
            self._repaired = self._repaired or name

    def _fail(self, defect: str, detail: str | None = None) -> None:
        """The first defect counts. What follows is only watched for the end of the block."""
        line = " ".join((detail or _DETAILS[defect]).split())  # a name may hold line breaks
        self._error = self._error or (defect, line)
        self._place = "failed"
