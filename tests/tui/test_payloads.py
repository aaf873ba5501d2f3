"""Hostile text on every surface: nothing acts, nothing is markup, nothing crashes."""

import asyncio
import unicodedata
from collections.abc import Mapping

import pytest
from textual.app import App
from textual.content import Content
from textual.widgets import Static

from ds4_agent.agent.events import (
    ApprovalDecided,
    ApprovalRequest,
    CallArgument,
    CallFinished,
    CallReady,
    CallStarted,
    Decision,
    Notice,
    StepFinished,
    TextDelta,
    ThinkingDelta,
    ToolOutput,
    TurnEnded,
    Usage,
)
from ds4_agent.tui.approval import ApprovalPanel
from ds4_agent.tui.input import PromptInput
from ds4_agent.tui.look import VisibleFilter
from ds4_agent.tui.messages import Banner
from ds4_agent.tui.plain_view import PlainView
from ds4_agent.tui.screen import AgentApp
from ds4_agent.tui.session import About, builder
from ds4_agent.tui.slot import Slot
from ds4_agent.tui.status import Status, StatusLine
from ds4_agent.tui.transcript import Transcript

ACTING = (
    "\x1b]52;c;aGFjaw==\x07\x1b]0;title\x07\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\"
    "\x1b[2J\x1b[6n\x9b31m\x00\x08\x7f\u202egnp\u2066\u200b\u2028\ufeff\U000e0041\udc9b end"
)
MARKUP = (
    "[@click=app.leave(0)]click[/] [/] [a=1,b=2:] [bold red]x [link=http://evil]y[/link] "
    "[red]unclosed [$primary]v ]] [[ \\[ {x} %s `c` <b> &#27; [t](javascript:x) ![i](http://evil)"
)
PAYLOADS = {"both": MARKUP + ACTING, "wide": "漢字🙂" * 60}
EDIT = {"old": "a\n", "new": "b\n"}
DIFF = "--- a\n+++ b\n@@ -1 +1 @@\n-{0}\n+{0}\n"


def events(text: str) -> list[object]:
    """Every event, with this text wherever somebody else's text can be."""
    arguments: Mapping[str, object] = {"path": text, text: text, **EDIT, "command": text}
    made: list[object] = [ThinkingDelta(text), TextDelta(text), TextDelta(f"\n# {text}\n- {text}")]
    made += [TextDelta(f"\n```{text}\n{text}\n```\n| {text} |\n|---|\n| {text} |\n\n{text}\n\n")]
    for number, name in enumerate(("edit", "write", "bash", "read", "search", "git", text)):
        call_id = f"call_{number}{text}"
        request = ApprovalRequest(call_id, name, "execute", arguments, text)
        made += [
            CallStarted(call_id, name),
            CallArgument(call_id, "path", text),
            CallArgument(call_id, text, text),
            CallReady(call_id, name, arguments),
            ApprovalDecided(request, Decision("deny", text), "user"),
            ToolOutput(call_id, text + "\n" + text),
            CallFinished(call_id, name, f"{text}\n{text}", number % 2 == 0, DIFF.format(text)),
        ]
    made += [CallFinished("unknown", text, text, is_error=True), Notice(text)]
    made += [StepFinished(Usage(), 10, 20, 3.0), TurnEnded("context", text, Usage(), 1, 1.0, text)]
    return made


def bad(text: str) -> set[str]:
    """The characters of painted text that a terminal or an eye must never meet."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


def painted(app: App[None]) -> str:
    """All text of the screen as it would be written to the terminal, the last filter aside."""
    strips = app.screen._compositor.render_strips()
    return "".join(segment.text for strip in strips for segment in strip if not segment.control)


@pytest.fixture
def bare_app(options):
    """The app without its last filter, so that only the choke point stands between, and without an
    agent."""

    def make(text: str = "x") -> AgentApp:
        app = AgentApp(builder(options()), About("0", text, text, "ask"))
        app._filters = [each for each in app._filters if not isinstance(each, VisibleFilter)]
        app.conversation.start = lambda: None  # type: ignore[method-assign]
        return app

    return make


@pytest.mark.parametrize("text", PAYLOADS.values(), ids=PAYLOADS)
def test_every_event_and_surface(bare_app, text):
    app = bare_app(text)

    async def play() -> None:
        async with app.run_test(size=(100, 400)) as pilot:
            app.query_one(Banner).show(text, text, text, text)
            transcript = app.query_one(Transcript)
            await transcript.ask(text)
            await transcript.notice(text, "error")
            seen = ""
            for event in events(text):
                await transcript.show(event)
            await pilot.pause()
            seen += painted(app)
            transcript.toggle_all()
            await pilot.pause()
            seen += painted(app)
            app.query_one(StatusLine).status = Status(activity="x", branch=text)
            request = ApprovalRequest(
                "1", text, "execute", {"command": text, text: text}, text, real=text, rule=text
            )
            await app.query_one(Slot).mount(ApprovalPanel(request))
            await pilot.pause()
            seen += painted(app)
            assert not bad(seen)
            for widget in app.query(Static):
                assert_no_actions(widget)
            assert app.is_running

    asyncio.run(play())
    assert app.return_code in (0, None)


def assert_no_actions(widget: Static) -> None:
    """A click on what somebody else wrote does nothing (links of an answer lead nowhere)."""
    content = widget.visual
    if isinstance(content, Content):
        for span in content.spans:
            meta = getattr(span.style, "meta", None) or {}
            assert str(meta.get("@click", "link(")).startswith("link(")


def test_a_link_of_an_answer_opens_nothing(bare_app, monkeypatch):
    app = bare_app()
    opened = []
    monkeypatch.setattr(app, "open_url", opened.append)

    async def play() -> None:
        async with app.run_test() as pilot:
            await app.query_one(Transcript).show(TextDelta("[click me](http://evil)"))
            await pilot.pause()
            lines = [line.rstrip() for line in _lines(app)]
            row = next(number for number, line in enumerate(lines) if "click me" in line)
            await pilot.click(offset=(5, row))
            await pilot.pause()

    asyncio.run(play())
    assert opened == []


def _lines(app: App[None]) -> list[str]:
    strips = app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip) for strip in strips]


def test_a_paste_is_made_visible_before_it_is_sent(bare_app):
    from textual.events import Paste

    app = bare_app()

    async def play() -> None:
        async with app.run_test() as pilot:
            app.post_message(Paste(ACTING + "\r\nnext"))
            await pilot.pause()
            text = app.query_one(PromptInput).text
            assert not bad(text.replace("\n", ""))
            assert text.endswith("\nnext")
            assert not bad(painted(app))

    asyncio.run(play())


def test_the_last_filter_stops_what_passed_everything_else():
    class Careless(App[None]):
        def compose(self):
            yield Static(Content("a\x1b]0;x\u202e\u200b\udc9bb", strip_control_codes=False))

    app = Careless()
    app._filters.append(VisibleFilter())

    async def play() -> str:
        async with app.run_test():
            return painted(app)

    seen = asyncio.run(play())
    assert not bad(seen)
    assert "\ufffd]0;x" in seen


@pytest.mark.parametrize("text", PAYLOADS.values(), ids=PAYLOADS)
def test_the_plain_prompt(text):
    written = []
    view = PlainView(written.append, colour=False)
    for event in events(text):
        view.show(event)
    assert not bad("".join(written).replace("\n", "").replace("\t", ""))


@pytest.mark.parametrize("text", PAYLOADS.values(), ids=PAYLOADS)
def test_what_was_typed_before_and_names_of_files_in_the_lists(bare_app, text, tmp_path):
    """The history of a directory and the question about a diff."""
    file = tmp_path / "a.txt"
    file.write_text("old\n")
    arguments = {"path": text, "old": "old", "new": text}
    app = bare_app(text)

    async def play() -> None:
        async with app.run_test(size=(100, 60)) as pilot:
            app._orders.history.add(text)
            await pilot.press("ctrl+r")
            await pilot.pause()
            seen = painted(app)
            await pilot.press("escape")
            request = ApprovalRequest("1", "edit", "edit", arguments, text, real=str(file))
            panel = ApprovalPanel(request)
            await app.query_one(Slot).mount(panel)
            panel._toggle_diff()
            await pilot.pause()
            seen += painted(app)
            assert "a.txt" in seen
            assert not bad(seen), bad(seen)

    asyncio.run(play())
