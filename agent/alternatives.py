"""Alternatives of one prompt (`/try`): forks of one state, each in a git worktree of its own.

In: the conversation between two turns, a prompt, and how many. Out: their events, as if each were a
`task` call, then what each came to: its answer, its changes, and what the check said. The one that
is kept is applied to the workspace; the conversation itself learns of that one alone.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ds4_agent.agent import events as ev
from ds4_agent.agent.answers import TOGETHER
from ds4_agent.agent.calls import TASK
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.steps import Tail
from ds4_agent.agent.subagents import fork_agent, last_event, tools_of
from ds4_agent.agent.threads import streamed
from ds4_agent.engine.errors import ContextFullError

if TYPE_CHECKING:
    from ds4_agent.agent.loop import Agent
    from ds4_agent.agent.subagents import Live, Shared
    from ds4_agent.agent.transcript import Transcript
    from ds4_agent.engine.api import PrefillProgress, Sampling
    from ds4_agent.tools.worktree import Patch

__all__ = ["MOST", "Alternative", "Wanted", "keep", "parse_try", "try_out"]

MOST = 8
WARM = 0.7  # the least temperature of all but the first: the likeliest words again tell nothing new
_TRY = re.compile(
    r"""(?P<count>\d{1,4})\s+
    (?:--verify\s+(?:'(?P<a>[^']+)'|"(?P<b>[^"]+)"|(?P<c>\S+))\s+)?
    (?P<prompt>.+)""",
    re.DOTALL | re.VERBOSE,
)
_KEPT = (
    "The user had this request tried out in {count} ways by forks of you: {prompt}\n"
    "The user kept one of them. It is applied; these files changed: {files}. Its answer was:\n"
    "{answer}"
)


@dataclass(frozen=True)
class Wanted:
    """What is to be tried. `verify` is the command that checks each; "" for none."""

    count: int
    prompt: str
    verify: str = ""


@dataclass(frozen=True)
class Alternative:
    """What one came to. `patch` None: it failed, `answer` says why. `check` is the first line of
    what the verify command said, "" where there was none."""

    answer: str
    patch: Patch | None = None
    check: str = ""

    @property
    def lines(self) -> tuple[int, int]:
        """Lines added and removed."""
        text = self.patch.text.splitlines() if self.patch else []
        added = sum(line.startswith("+") and not line.startswith("+++") for line in text)
        removed = sum(line.startswith("-") and not line.startswith("---") for line in text)
        return added, removed


def parse_try(argument: str, tests: str = "") -> Wanted:
    """`3 PROMPT` or `3 --verify 'make check' PROMPT`; `tests` is the command otherwise. Raises
    UsageError."""
    match = _TRY.fullmatch(argument.strip())
    if match is None:
        raise UsageError("write /try 3 PROMPT, or /try 3 --verify 'make test' PROMPT")
    if not 2 <= int(match["count"]) <= MOST:
        raise UsageError(f"/try takes 2 to {MOST} alternatives, not {match['count']}")
    own = match["a"] or match["b"] or match["c"]
    return Wanted(int(match["count"]), match["prompt"], own or tests)


def try_out(agent: Agent, wanted: Wanted) -> Generator[ev.Event, None, list[Alternative]]:
    """Run all of them, between two turns. An interrupt ends them early; raises EngineError."""
    from ds4_agent.tools.types import ToolError

    shared, live = agent.runner.shared, agent.forked()
    base = live.fork()
    yield from _prefilled(base, live.tail, shared.cancel)
    live = replace(live, fork=base.fork, tail=Tail(results=live.tail.results))
    ids = [agent.new_call_id() for _ in range(wanted.count)]
    found: dict[str, Alternative] = {}

    def body(number: int, call_id: str, emit: Callable[[ev.Event], None]) -> None:
        try:
            found[call_id] = _one(shared, live, wanted, number, call_id, emit)
        except (ToolError, ContextFullError) as error:
            found[call_id] = Alternative(f"Error: {error}")
        except BaseException:
            shared.cancel.set()
            raise
        emit(_finished(call_id, number, found[call_id], wanted))

    def work(emit: Callable[[ev.Event], None]) -> None:
        with (
            shared.batching(TOGETHER),
            ThreadPoolExecutor(TOGETHER, thread_name_prefix="ds4-task") as pool,
        ):
            begun = [pool.submit(body, n, call_id, emit) for n, call_id in enumerate(ids)]
        for future in begun:
            future.result()

    for number, call_id in enumerate(ids, 1):
        yield ev.CallStarted(call_id, TASK)
        arguments = {"prompt": wanted.prompt, "isolate": "worktree", "alternative": number}
        yield ev.CallReady(call_id, TASK, arguments)
    yield from streamed(work, shared.cancel, "ds4-tasks")
    return [found[call_id] for call_id in ids]


def keep(agent: Agent, wanted: Wanted, alternative: Alternative) -> str:
    """Apply one to the workspace; what the user is told. The model is told with the next prompt.
    Raises UsageError with nothing changed."""
    from ds4_agent.tools.types import ToolError
    from ds4_agent.tools.worktree import apply_patch

    patch = alternative.patch
    if patch is None:
        raise UsageError("this alternative failed; nothing was applied")

    def apply() -> tuple[str, str]:
        try:
            files = ", ".join(apply_patch(patch, agent.runner.shared.workspace)) or "no file"
        except ToolError as error:
            raise UsageError(str(error)) from error
        told = _KEPT.format(
            count=wanted.count, prompt=wanted.prompt, files=files, answer=alternative.answer
        )
        return f"Applied; changed: {files}", told

    return agent.take_over(apply)


def _prefilled(
    base: Transcript, tail: Tail, cancel: threading.Event
) -> Generator[ev.Event, None, None]:
    """Compute once what all of them begin with."""
    if not tail.closing:
        return

    def work(emit: Callable[[PrefillProgress], None]) -> None:
        base.append(base.encode(tail.closing), on_progress=emit, cancel=cancel)

    for p in streamed(work, cancel, "ds4-prefill"):
        yield ev.PrefillProgressed(p.done, p.total, p.reused, p.tokens_per_second, p.restored)


def _one(
    shared: Shared,
    live: Live,
    wanted: Wanted,
    number: int,
    call_id: str,
    emit: Callable[[ev.Event], None],
) -> Alternative:
    from ds4_agent.tools.worktree import worktree

    def tell(event: ev.Event) -> None:
        emit(ev.TaskEvent(call_id, event))

    model = replace(live.model, sampling=_varied(live.model.sampling, number))
    workspace = type(shared.workspace)
    with worktree(shared.workspace.root, shared.cancel) as copy:
        agent = fork_agent(
            shared,
            replace(live, model=model),
            call_id,
            tools_of(live.tools),
            workspace(copy.root),
            live.tail,
            asks_as=f"alternative {number + 1}",
        )
        prompt = "\n\n".join(filter(None, (live.opening, wanted.prompt)))
        ended = last_event(agent.run(prompt), tell)
        if ended.reason == "interrupted":
            return Alternative("Error: interrupted")
        patch = copy.patch()  # before the check, which may leave things behind
        check = _checked(agent, wanted.verify, call_id, tell) if wanted.verify else ""
    return Alternative(ended.text.strip() or ended.detail or "no answer", patch, check)


def _varied(sampling: Sampling, number: int) -> Sampling:
    """The first as always, each of the others with other dice."""
    if number == 0:
        return sampling
    seed = None if sampling.seed is None else sampling.seed + number
    return replace(sampling, temperature=max(sampling.temperature, WARM), seed=seed)


def _checked(agent: Agent, verify: str, call_id: str, tell: Callable[[ev.Event], None]) -> str:
    """The first line of what the command said, run as a call of the alternative's own."""
    call = ev.CallReady(f"{call_id}.verify", "bash", {"command": verify})
    tell(call)

    def answered() -> Generator[ev.Event, None, ev.CallFinished]:
        return (yield from agent.runner.answer(call)).finished

    steps = answered()
    while True:
        try:
            tell(next(steps))
        except StopIteration as end:
            finished: ev.CallFinished = end.value
            tell(finished)
            return finished.content.partition("\n")[0]


def _finished(
    call_id: str, number: int, alternative: Alternative, wanted: Wanted
) -> ev.CallFinished:
    check = f"{wanted.verify}: {alternative.check} · " if alternative.check else ""
    said = f"alternative {number + 1}: {check}{alternative.answer}"
    diff = alternative.patch.text if alternative.patch else ""
    return ev.CallFinished(call_id, TASK, said, is_error=alternative.patch is None, diff=diff)
