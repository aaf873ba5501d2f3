"""The agent in a thread of its own, and what it says as messages in an inbox.

In: prompts, answers to questions, an interrupt. Out: through `post`, in order and from that one
thread: loading, the agent's own events, questions, and the end of each turn. The screen and the
plain prompt both talk to the agent only through here; neither blocks on it.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from ds4_agent.agent.build import Asks
from ds4_agent.agent.choose import Choice
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.events import (
    ApprovalRequest,
    CallArgument,
    Decision,
    Event,
    Notice,
    PrefillProgressed,
    TextDelta,
    ThinkingDelta,
    ToolOutput,
)
from ds4_agent.agent.material import Ran
from ds4_agent.agent.own_shell import OwnShell
from ds4_agent.agent.progress import Pace, load_text
from ds4_agent.engine.api import LoadProgress

if TYPE_CHECKING:
    from ds4_agent.agent.alternatives import Alternative, Wanted
    from ds4_agent.agent.loop import Agent
    from ds4_agent.sessions.summary import Summary

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
    "WentBack",
    "coalesced",
]


@dataclass(frozen=True)
class Loading:
    """How far the model is, in words."""

    text: str


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


@dataclass(frozen=True)
class WentBack:
    """The conversation is where `prompt` was not yet asked; `text` tells of the files, a line
    each. A `TurnOver` follows."""

    prompt: str
    text: str


Item = Event | Loading | Loaded | LoadFailed | Question | TurnFailed | TurnOver | Undone | WentBack
Task = Callable[["Agent"], "Agent"]  # something for the agent's thread; who goes on afterwards
_INTERRUPTED = Decision("deny", "interrupted by the user")


class Build(Protocol):
    """Builds agents, one after the other, on one model; see `session.Builder`."""

    def __call__(self, conversation: "Conversation", choice: Choice | None = None) -> "Agent":
        """An agent; of the session that goes on, where there is a choice."""
        ...

    @property
    def asks_for(self) -> Asks: ...

    def again(self, conversation: "Conversation", model: str | None = None) -> "Agent":
        """The agent of the same session anew, the one before it closed."""
        ...

    def sessions(self) -> "list[Summary]": ...

    def choice(self, session_id: str, *, forks: bool = False) -> Choice: ...

    def close(self) -> None:
        """Free the model."""
        ...


class Conversation:
    """One agent, built and run in one thread. Also the `Approver` that agent asks."""

    def __init__(self, build: Build, post: Callable[[Item], None]) -> None:
        self._build = build
        self._post = post
        self._prompts: SimpleQueue[str | Task | None] = SimpleQueue()
        self._agent: Agent | None = None
        self._lock = threading.Lock()  # over the question and the wish to end the turn
        self._asked: ApprovalRequest | None = None
        self._answers: SimpleQueue[Decision] = SimpleQueue()
        self._interrupted = False
        self._closing = False
        self._choice: Choice | None = None
        self._own: OwnShell | None = None
        self._pace = Pace()  # of the loading
        self._thread = threading.Thread(target=self._live, name="ds4-conversation", daemon=True)

    def start(self, choice: Choice | None = None) -> None:
        """Begin to build the agent; of a session that goes on, where one is chosen."""
        self._choice = choice
        self._thread.start()

    def send(self, prompt: str) -> None:
        """Run `prompt` once the model is loaded and the turn before it is over."""
        with self._lock:
            self._interrupted = self._closing
        self._prompts.put(prompt)

    def undo(self) -> None:
        """Take back the last turn's changes to files. `TurnOver` comes at its end, too."""
        self._do(self._take_back)

    def compact(self) -> None:
        """Go on from a summary. `TurnOver` comes at its end, too."""
        self._do(self._summarise)

    def rewind(self, turn: int, *, with_files: bool) -> None:
        """Back to where the `turn`-th prompt was not yet asked. `TurnOver` comes at its end."""
        self._do(lambda agent: self._go_back(agent, turn, with_files))

    def open(self, choice: Choice) -> None:
        """Go on with another session, which is told as `Loaded`; where that fails, with this one.
        `TurnOver` comes at its end."""
        self._do(lambda agent: self._open(agent, choice))

    def again(self, model: str | None = None) -> None:
        """Go on with this session under another model, or with what may be loaded now, which is
        told as `Loaded`. `TurnOver` comes at its end."""
        self._do(lambda agent: self._anew(agent, model))

    def run_own(self, command: str) -> None:
        """Run a command of the user's own, which is told like a call. `TurnOver` comes at its
        end."""
        self._do(lambda agent: self._run_own(agent, command))

    def own_results(self) -> tuple[Ran, ...]:
        """What such commands printed since this was last asked."""
        return self._own.take() if self._own is not None else ()

    def aside(self, question: str) -> None:
        """Answer a question from a fork. `TurnOver` comes at its end, too."""
        self._do(lambda agent: self._ask_aside(agent, question))

    def try_out(self, wanted: "Wanted", found: "Callable[[list[Alternative]], None]") -> None:
        """Try alternatives out, which are given to `found` before the `TurnOver` at its end."""
        self._do(lambda agent: self._try_out(agent, wanted, found))

    def keep(self, wanted: "Wanted", alternative: "Alternative") -> None:
        """Apply one of them; told as a notice. `TurnOver` comes at its end, too."""
        self._do(lambda agent: self._keep(agent, wanted, alternative))

    def _do(self, task: Task) -> None:
        with self._lock:
            self._interrupted = self._closing
        self._prompts.put(task)

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
        if self._own is not None:
            self._own.stop()

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

    def loading(self, progress: LoadProgress) -> None:
        """For the engine to call while it loads, from any thread."""
        self._pace.note(progress.bytes_done)
        left = self._pace.text(progress.bytes_total - progress.bytes_done)
        self._post(Loading(load_text(progress) + left))

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
            self._agent = agent = self._build(self, self._choice)
        except BaseException as error:  # shown by whoever reads the inbox
            self._post(LoadFailed(error))
            self._build.close()
            return
        try:
            self._post(Loaded(agent))
            while not self._closing and (prompt := self._prompts.get()) is not None:
                if isinstance(prompt, str):
                    self._follow(agent, agent.run(prompt))
                    self._post(TurnOver())
                else:
                    self._agent = agent = self._carry_out(agent, prompt)
        finally:
            agent.close()
            if self._own is not None:
                self._own.close()
            self._build.close()

    def _follow(self, agent: "Agent", events: Iterator[Event]) -> None:
        try:
            for event in events:
                self._post(event)
                if self._interrupted:  # also when it was wished before the run had begun
                    agent.interrupt()
        except BaseException as error:  # shown by whoever reads the inbox
            self._post(TurnFailed(error))

    def _carry_out(self, agent: "Agent", task: Task) -> "Agent":
        try:
            agent = task(agent)
        except Exception as error:  # shown by whoever reads the inbox
            self._post(TurnFailed(error))
        self._post(TurnOver())
        return agent

    def _summarise(self, agent: "Agent") -> "Agent":
        self._follow(agent, agent.compact())
        return agent

    def _take_back(self, agent: "Agent") -> "Agent":
        self._post(Undone(agent.undo().text()))
        return agent

    def _go_back(self, agent: "Agent", turn: int, with_files: bool) -> "Agent":
        rewound = agent.rewind(turn, with_files=with_files)
        self._post(WentBack(rewound.prompt, rewound.undone.text() if rewound.undone else ""))
        return agent

    def _ask_aside(self, agent: "Agent", question: str) -> "Agent":
        from ds4_agent.agent.asides import ask_aside

        self._follow(agent, ask_aside(agent, question))
        return agent

    def _try_out(
        self, agent: "Agent", wanted: "Wanted", found: "Callable[[list[Alternative]], None]"
    ) -> "Agent":
        from ds4_agent.agent.alternatives import try_out

        def events() -> Iterator[Event]:
            found((yield from try_out(agent, wanted)))

        self._follow(agent, events())
        return agent

    def _keep(self, agent: "Agent", wanted: "Wanted", alternative: "Alternative") -> "Agent":
        from ds4_agent.agent.alternatives import keep

        self._post(Notice(keep(agent, wanted, alternative)))
        return agent

    def _run_own(self, agent: "Agent", command: str) -> "Agent":
        if self._own is None:
            self._own = OwnShell(Path(agent.identity.directory))
        for event in self._own.run(command):
            self._post(event)
            if self._interrupted:
                self._own.stop()
        return agent

    def _anew(self, agent: "Agent", model: str | None) -> "Agent":
        try:
            other = self._build.again(self, model)
        except Exception as error:  # the session goes on as it was
            other = self._build.again(self)
            self._post(Loaded(other))
            self._post(TurnFailed(error))
            return other
        self._post(Loaded(other))
        return other

    def _open(self, agent: "Agent", choice: Choice) -> "Agent":
        if choice.directory.name == agent.identity.session_id and not choice.forks:
            raise UsageError("this session is the one you are in")
        other = self._build(self, choice)
        agent.close()
        self._post(Loaded(other))
        return other


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
