"""What the user typed, and what follows from it: a prompt to send, a command carried out, a list.

In: the text as it was sent, the agent, whether it works. Out: `Following`s, in order, for whichever
screen asked. All that both screens know of commands, files and the user's own shell is here; what
it looks like is theirs.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ds4_agent.agent.display import one_line
from ds4_agent.agent.errors import OutputError, UsageError
from ds4_agent.agent.material import with_files, with_names, with_results
from ds4_agent.agent.model_names import model_directory, names_at_hand
from ds4_agent.engine.errors import EngineError
from ds4_agent.tui.choosing import BETWEEN_TURNS, Choosing, Rows, Work
from ds4_agent.tui.commands import (
    COMMANDS,
    Order,
    cost_text,
    help_text,
    order_of,
    slow_text,
    tools_text,
    uncompact_text,
)
from ds4_agent.tui.complete import Files
from ds4_agent.tui.forks import KEPT, Forks
from ds4_agent.tui.history import History, history_file
from ds4_agent.tui.repository import brought, trust_rows
from ds4_agent.tui.tally import Tally

if TYPE_CHECKING:
    from ds4_agent.agent.loop import Agent
    from ds4_agent.agent.user_commands import UserCommands
    from ds4_agent.tui.conversation import Build, Conversation
    from ds4_agent.tui.session import About

__all__ = ["Draft", "Following", "Leave", "Orders", "Say", "Send", "Theme"]

Level = Literal["info", "warning"]


@dataclass(frozen=True)
class Say:
    """A remark of the program. `is_typed`: it repeats what was typed, where that is gone."""

    text: str
    level: Level = "info"
    is_typed: bool = False


@dataclass(frozen=True)
class Send:
    """A prompt for the model, as it reads it."""

    prompt: str


@dataclass(frozen=True)
class Draft:
    """A text for the input, to be gone on with."""

    text: str


@dataclass(frozen=True)
class Theme:
    """Other colours: "dark", "light", or "" for those that are not shown now."""

    name: str


@dataclass(frozen=True)
class Leave:
    """The session ends."""


Following = Rows | Work | Say | Send | Draft | Theme | Leave
NANO = "nano"
FRESH_FOR = 2.0  # seconds
_HISTORY, _MODEL, _TRUST = "history", "model", "trust"


class Orders:
    """The orders of one run."""

    def __init__(
        self,
        build: "Build",
        conversation: "Conversation",
        about: "About",
        keys: Sequence[tuple[str, str]],
    ) -> None:
        """`keys` are told by /help."""
        self.tally = Tally()
        self._has_told = False
        self._found: tuple[float, UserCommands] | None = None  # when, what
        self._about = about
        self._keys = keys
        self._talk = conversation
        self._choosing = Choosing(build, conversation)
        self._forks = Forks(conversation)
        self._offered: Sequence[str] = ()
        root, places = about.root, about.places
        keeps = root is not None and places is not None and about.keeps
        self.history = History(history_file(places.state, root) if keeps else None)  # type: ignore[union-attr, arg-type]
        self.files = Files(root) if root is not None else None

    def at_start(self) -> list[Following]:
        """What comes before anything else."""
        notices = [Say(text, "warning") for text in self._own().notices]
        return [*notices, self._choosing.at_start()]

    def names(self) -> list[tuple[str, str]]:
        """Every command with what it does, the user's own behind the program's."""
        own = [(each.name, each.description) for each in self._own().found]
        return [*COMMANDS.items(), *own]

    def submitted(self, text: str, agent: "Agent | None", *, is_busy: bool) -> list[Following]:
        """What follows from a text that was sent."""
        self.history.add(text)
        order = order_of(text)
        if order is not None:
            return self._run(order, text, agent, is_busy)
        if text.startswith("!") and text[1:].strip():
            if is_busy:
                return [*_waits("!"), Draft(text)]
            return [*self._not_told(agent), Work("running", partial(self._talk.run_own, text[1:]))]
        return self._prompt(text.strip(), text, agent)

    def history_rows(self) -> list[Following]:
        """The prompts of the directory, to be searched."""
        from ds4_agent.tui.history import matching

        self._offered = matching(self.history.entries)
        if not self._offered:
            return [Say("Nothing was asked in this directory yet.")]
        rows = tuple(one_line(text, 400) for text in self._offered)
        return [Rows(_HISTORY, "Earlier prompts", rows)]

    def rewind_rows(self, agent: "Agent | None") -> list[Following]:
        """The prompts that can be gone back to."""
        return [] if agent is None else self._between("rewind", "", agent, is_busy=False)

    def left_over(self) -> list[Following]:
        """What follows from a turn or other work that is over."""
        rows = self._forks.left_over()
        return [] if rows is None else [rows]

    def picked(self, about: str, index: int | None) -> list[Following]:
        """What follows from the row that was picked in a list."""
        if about == _HISTORY:
            return [] if index is None else [Draft(self._offered[index])]
        if about == _MODEL:
            return [] if index is None else self._use_model(self._offered[index])
        if about == _TRUST:
            return self._trust() if index == 1 else []
        if about == KEPT:
            kept = self._forks.picked(index)
            return [Say("None of them is kept.")] if kept is None else [kept]
        following = self._choosing.picked(about, index)
        return [] if following is None else [following]

    def _prompt(self, text: str, draft: str, agent: "Agent | None") -> list[Following]:
        """`draft` comes back to the input where a file cannot be read."""
        root = self._about.root
        is_small = self._model_name(agent) == NANO
        material = with_names if is_small else with_files
        try:
            prompt = material(text, root) if root is not None else text
        except UsageError as error:
            return [Say(str(error), "warning"), Draft(draft)]
        ran = self._talk.own_results()
        return [Send(prompt if is_small else with_results(prompt, ran))]

    def _model_name(self, agent: "Agent | None") -> str:
        return agent.identity.model if agent is not None else self._about.model or NANO

    def _not_told(self, agent: "Agent | None") -> list[Following]:
        """Said once: nano knows prompts of one sentence, and takes anything more for another."""
        if self._model_name(agent) != NANO or self._has_told:
            return []
        self._has_told = True
        return [Say("The nano model does not read what your own commands print.")]

    def _run(
        self, order: Order, text: str, agent: "Agent | None", is_busy: bool
    ) -> list[Following]:
        name, arguments = order.name, order.arguments
        if name == "quit":
            return [Leave()]
        if name in BETWEEN_TURNS:
            return self._between(name, arguments, agent, is_busy=is_busy)
        tell: dict[str, Callable[[], str]] = {
            "help": lambda: help_text(self._keys, self.names()),
            "tools": lambda: tools_text(agent.identity.tool_signatures if agent else ()),
            "cost": lambda: cost_text(self.tally.usage, self.tally.seconds, self.tally.turns),
            "why-slow": lambda: slow_text(self.tally.last, *(agent.slowness() if agent else ())),
        }
        if name in tell:
            return [Say(tell[name]())]
        if name == "theme":
            return _theme(arguments)
        if name == "export":
            return [self._export(arguments, agent)]
        own = self._own().named(name)
        if own is not None:
            from ds4_agent.agent.user_commands import filled

            return self._prompt(filled(own, arguments), text, agent)
        return [Say(f"There is no command /{name}; see /help", "warning"), Draft(text)]

    def _between(
        self, name: str, arguments: str, agent: "Agent | None", *, is_busy: bool
    ) -> list[Following]:
        if is_busy or agent is None:
            return _waits(f"/{name}")
        if name == "uncompact":
            return [Say(uncompact_text(agent.uncompact()))]
        if name == "model":
            return self._model(arguments, agent)
        if name == "trust":
            return self._ask_trust()
        if name in ("btw", "try"):
            forks = self._forks
            asked = forks.tried(arguments, agent) if name == "try" else forks.aside(arguments)
            if isinstance(asked, str):
                return [Say(asked, "warning")]
            return [Say(f"/{name} {arguments}", is_typed=True), asked]
        following = self._choosing.command(name, agent)
        return [Say(following, "warning") if isinstance(following, str) else following]

    def _model(self, name: str, agent: "Agent") -> list[Following]:
        now = agent.identity.model
        if name:
            return self._use_model(name)
        used, places = self._about.model, self._about.places
        pulled = names_at_hand(places, but=now) if places is not None else []
        known = dict.fromkeys([now, NANO, *([used] if used else []), *pulled])
        self._offered = list(known)
        if len(known) == 1:
            return [Say(f"The model is {now}. /model loads a pulled OWNER/NAME or a DIR.")]
        rows = tuple(one_line(f"{each} (now)" if each == now else each) for each in known)
        return [Rows(_MODEL, "Go on with which model?", rows)]

    def _use_model(self, name: str) -> list[Following]:
        if not self._about.keeps:
            return [Say("With --no-session the conversation cannot go on under another model.")]
        places = self._about.places
        if places is not None and name != self._about.model and not name.startswith("scripted:"):
            try:
                model_directory(name, places)
            except EngineError as error:
                return [Say(str(error), "warning")]
        return [Work("loading model", partial(self._talk.again, name))]

    def _ask_trust(self) -> list[Following]:
        root, places = self._about.root, self._about.places
        if root is None or places is None:
            return []
        found = brought(root, places)
        if found.is_trusted:
            return [Say(f"{found.repository} is trusted already.")]
        title = f"May what {one_line(found.repository.name, 40)} brings run with your rights?"
        return [Say(found.text()), Rows(_TRUST, title, trust_rows(found))]

    def _trust(self) -> list[Following]:
        from ds4_agent.agent.trust import TrustError, repository_of, trust

        root, places = self._about.root, self._about.places
        if root is None or places is None:
            return []
        has_tools = brought(root, places).has_tools
        try:
            trust(repository_of(root), places.trusted_file)
            self._found = None
        except TrustError as error:
            return [Say(str(error), "warning")]
        said = Say(f"{repository_of(root)} is trusted from now on.")
        if not has_tools:
            return [said]
        if not self._about.keeps:
            return [said, Say("Its tools are loaded when the next session begins.")]
        return [said, Work("loading tools", self._talk.again)]

    def _export(self, name: str, agent: "Agent | None") -> Say:
        from ds4_agent.agent.exporting import export_session

        root, places = self._about.root, self._about.places
        if agent is None or root is None or places is None:
            return Say("There is nothing to export yet.", "warning")
        session = places.sessions / agent.identity.session_id
        file = root / Path(name or f"{session.name}.md").expanduser()
        agent.save()
        try:
            export_session(session, file)
        except (UsageError, OutputError) as error:
            return Say(str(error), "warning")
        return Say(f"Wrote {file}")

    def _own(self) -> "UserCommands":
        """The user's own commands, looked up again after a moment: not at every key."""
        from ds4_agent.agent.user_commands import UserCommands, load_commands

        root, places = self._about.root, self._about.places
        if root is None or places is None:
            return UserCommands()
        now = time.monotonic()
        if self._found is None or now - self._found[0] > FRESH_FOR:
            self._found = now, load_commands(root, places, COMMANDS)
        return self._found[1]


def _theme(name: str) -> list[Following]:
    if name not in ("", "dark", "light"):
        return [Say("The themes are dark and light", "warning")]
    return [Theme(name)]


def _waits(what: str) -> list[Following]:
    return [Say(f"{what} works between turns: wait, or press Esc first", "warning")]
