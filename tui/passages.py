"""The transcript as passages: the smallest stretches of a session that can be shown on their own.

In: events. Out: the same events in passages, each whole and soon laid out:
a prompt, or a step of the model with the results of its calls. A passage is kept so that it can be
shown again, and searched while it is not. No widget.
"""

from collections.abc import Iterable, Iterator

from ds4_agent.agent.display import visible
from ds4_agent.agent.events import (
    CallArgument,
    CallFinished,
    CallReady,
    CallStarted,
    Compacted,
    Event,
    Notice,
    PrefillProgressed,
    RunStarted,
    Steered,
    StepStarted,
    TextDelta,
    ThinkingDelta,
    ToolOutput,
)

__all__ = ["Passage", "passage_text", "passages_of", "prompt_of", "recorded"]

Passage = list[Event]
_NOT_KEPT = (StepStarted, PrefillProgressed)  # nothing of them is in the transcript


def prompt_of(event: Event) -> str | None:
    """What the user said, where the event is that."""
    match event:
        case RunStarted(prompt=text) | Steered(text):
            return text
    return None


def recorded(passage: Passage, event: Event) -> bool:
    """Add an event to a passage, in as few events as tell the same. False where it begins the next
    one: a prompt, or what the model says once its calls are answered."""
    if isinstance(event, _NOT_KEPT):
        return True
    speaks = isinstance(event, ThinkingDelta | TextDelta | CallStarted)
    if passage and (prompt_of(event) is not None or (speaks and _is_answered(passage))):
        return False
    last = passage[-1] if passage else None
    match last, event:
        case (TextDelta(a), TextDelta(b)):
            passage[-1] = TextDelta(a + b)
        case (ThinkingDelta(a), ThinkingDelta(b)):
            passage[-1] = ThinkingDelta(a + b)
        case (_, CallReady(call_id)):
            passage[:] = [e for e in passage if not _is_argument(e, call_id)]
            passage.append(event)
        case (_, CallFinished(call_id)):
            passage[:] = [e for e in passage if not _is_output(e, call_id)]
            passage.append(event)
        case (CallArgument(a, name, text), CallArgument(b, other, more)) if (a, name) == (b, other):
            passage[-1] = CallArgument(a, name, text + more)
        case (ToolOutput(a, text), ToolOutput(b, more)) if a == b:
            passage[-1] = ToolOutput(a, (text + more)[-20_000:])
        case _:
            passage.append(event)
    return True


def passages_of(events: Iterable[Event]) -> Iterator[Passage]:
    """A whole story in passages."""
    passage: Passage = []
    for event in events:
        if not recorded(passage, event):
            yield passage
            passage = []
            recorded(passage, event)
    if passage:
        yield passage


def passage_text(passage: Passage) -> str:
    """What a search finds in it; displayable."""
    return visible("\n".join(text for event in passage for text in _texts(event)))


def _texts(event: Event) -> Iterator[str]:
    match event:
        case ThinkingDelta(text) | TextDelta(text) | Notice(text):
            yield text
        case RunStarted(prompt=text) | Steered(text) | Compacted(text):
            yield text
        case CallReady(_, name, arguments):
            yield name
            yield from (value for value in arguments.values() if isinstance(value, str))
        case CallFinished(_, _, content):
            yield content


def _is_answered(passage: Passage) -> bool:
    """Whether it holds calls, and each has its result; or a prompt and nothing of the model."""
    open_calls, calls = set(), 0
    for event in passage:
        if isinstance(event, CallStarted):
            open_calls.add(event.id)
        elif isinstance(event, CallFinished):
            open_calls.discard(event.id)
            calls += 1
    return calls > 0 and not open_calls


def _is_argument(event: Event, call_id: str) -> bool:
    return isinstance(event, CallArgument) and event.id == call_id


def _is_output(event: Event, call_id: str) -> bool:
    return isinstance(event, ToolOutput) and event.id == call_id
