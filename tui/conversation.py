"""The agent in a thread of its own, and what it says as messages in an inbox.

In: prompts, answers to questions, an interrupt. Out: through `post`, in order and from that one
thread: loading, the agent's own events, questions, and the end of each turn. The screen and the
plain prompt both talk to the agent only through here; neither blocks on it.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal

from ds4_agent.agent.events import (
    ApprovalRequest,
    CallArgument,
    Decision,
    Event,
    PrefillProgressed,
    TextDelta,
    ThinkingDelta,
    ToolOutput,
)

if TYPE_CHECKING:
    from ds4_agent.agent.loop import Agent

__all__ = [
    "Build",
    "Conversation",
    "Item",
    "LoadFailed",
    "Loaded",
    "Loading",
    "Question",
    "TurnFailed",
    "TurnOver",
    "Undone",
    "coalesced",
]


@dataclass(frozen=True)
class Loading:
    """`done` of `total` weights are loaded."""

    done: int
    total: int


@dataclass(frozen=True)
class Loaded:
    agent: "Agent"


@dataclass(frozen=True)
class LoadFailed:
    error: BaseException


@dataclass(frozen=True)
class Question:
    """The agent's thread stands still until `Conversation.answer` is called."""

    request: ApprovalRequest


@dataclass(frozen=True)
class TurnFailed:
    """The run raised; a `TurnOver` follows."""

    error: BaseException


@dataclass(frozen=True)
class TurnOver:
    """The next prompt may run."""


@dataclass(frozen=True)
class Undone:
    """The last turn's changes are taken back: a line a file. A `TurnOver` follows."""

    text: str


# Asks the agent's thread for something else, in its place among the prompts.
_Work = Literal["undo", "compact"]
Item = Event | Loading | Loaded | LoadFailed | Question | TurnFailed | TurnOver | Undone
_INTERRUPTED = Decision("deny", "interrupted by the user")

Build = Callable[["Conversation"], "Agent"]


class Conversation:
    """One agent, built and run in one thread. Also the `Approver` that agent asks."""

    def __init__(self, build: Build, post: Callable[[Item], None]) -> None:
        self._build = build
        self._post = post
        self._prompts: SimpleQueue[tuple[Literal["prompt"] | _Work, str] | None] = SimpleQueue()
        self._agent: Agent | None = None
        self._lock = threading.Lock()  # over the question and the wish to end the turn
        self._asked: ApprovalRequest | None = None
        self._answers: SimpleQueue[Decision] = SimpleQueue()
        self._interrupted = False
        self._closing = False
        self._thread = threading.Thread(target=self._live, name="ds4-conversation", daemon=True)

    def start(self) -> None:
        """Begin to build the agent."""
        self._thread.start()

    def send(self, prompt: str) -> None:
        """Run `prompt` once the model is loaded and the turn before it is over."""
        with self._lock:
            self._interrupted = self._closing
        self._prompts.put(("prompt", prompt))

    def do(self, work: _Work) -> None:
        """`undo`: take back the last turn's changes to files; `compact`: go on from a summary.
        `TurnOver` comes at its end, too."""
        with self._lock:
            self._interrupted = self._closing
        self._prompts.put((work, ""))

    def steer(self, text: str) -> None:
        """Give the model `text` with the results of its next calls (`Steered` says that it was)."""
        if self._agent is not None:
            self._agent.steer(text)

    def withdraw(self) -> tuple[str, ...]:
        """What `steer` was told and the model has not been given; it is not given any more."""
        return () if self._agent is None else self._agent.withdraw()

    def interrupt(self) -> None:
        """End the current turn soon; its `TurnOver` still comes."""
        with self._lock:
            self._interrupted = True
            if self._asked is not None:
                self._answers.put(_INTERRUPTED)
        if self._agent is not None:
            self._agent.interrupt()

    def answer(self, request: ApprovalRequest, decision: Decision) -> None:
        """Answer a question. An answer to one that is over does nothing."""
        with self._lock:
            if self._asked is request:
                self._answers.put(decision)

    def close(self, timeout: float = 2.0) -> None:
        """End the turn and the agent, waiting at most `timeout` seconds."""
        self._closing = True
        self._prompts.put(None)
        self.interrupt()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def loading(self, done: int, total: int) -> None:
        """For the engine to call while it loads, from any thread."""
        self._post(Loading(done, total))

    def decide(self, request: ApprovalRequest) -> Decision:
        """Ask whoever reads the inbox. Called in the agent's thread."""
        with self._lock:
            if self._interrupted:
                return _INTERRUPTED
            self._asked = request
            # A queue a question: a late second answer must not decide the next one.
            self._answers = SimpleQueue()
        self._post(Question(request))
        decision = self._answers.get()
        with self._lock:
            self._asked = None
        return decision

    def _live(self) -> None:
        try:
            agent = self._build(self)
        except BaseException as error:  # shown by whoever reads the inbox
            self._post(LoadFailed(error))
            return
        self._agent = agent
        try:
            self._post(Loaded(agent))
            while not self._closing and (asked := self._prompts.get()) is not None:
                work, prompt = asked
                if work == "undo":
                    self._take_back(agent)
                elif work == "compact":
                    self._follow(agent, agent.compact)
                else:
                    self._follow(agent, partial(agent.run, prompt))
        finally:
            agent.close()

    def _follow(self, agent: "Agent", begin: Callable[[], Iterator[Event]]) -> None:
        try:
            for event in begin():
                self._post(event)
                if self._interrupted:  # also when it was wished before the run had begun
                    agent.interrupt()
        except BaseException as error:  # shown by whoever reads the inbox
            self._post(TurnFailed(error))
        self._post(TurnOver())

    def _take_back(self, agent: "Agent") -> None:
        try:
            self._post(Undone(agent.undo().text()))
        except Exception as error:  # shown by whoever reads the inbox
            self._post(TurnFailed(error))
        self._post(TurnOver())


def coalesced(items: list[Item]) -> list[Item]:
    """The same story in fewer items: neighbouring pieces of one text become one piece, and of
    neighbouring progress only the last counts."""
    merged: list[Item] = []
    for item in items:
        both = _joined(merged[-1], item) if merged else None
        if both is None:
            merged.append(item)
        else:
            merged[-1] = both
    return merged


def _joined(first: Item, second: Item) -> Item | None:
    match first, second:
        case (TextDelta(a), TextDelta(b)):
            return TextDelta(a + b)
        case (ThinkingDelta(a), ThinkingDelta(b)):
            return ThinkingDelta(a + b)
        case (ToolOutput(one, a), ToolOutput(other, b)) if one == other:
            return ToolOutput(one, a + b)
        case (CallArgument(one, name, a), CallArgument(other, again, b)):
            return CallArgument(one, name, a + b) if (one, name) == (other, again) else None
        case (PrefillProgressed(), PrefillProgressed()) | (Loading(), Loading()):
            return second
    return None
