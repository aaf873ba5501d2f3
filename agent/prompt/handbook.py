"""The handbook: chapters in Markdown, assembled into what the model reads before each session.

In: the files `handbook/NN-name.md`, in the order of their names, and the built-in tools. Out: the
chapters as segments, the same in every directory, on every day and machine.

A chapter writes a call as Python in a fence marked `call`; it is rendered by the encoder of the
prompt format, so that an example is what a model has to write. Its tags hold the real DSML token,
as those of the TOOLS block do: a model that reads the plain spelling tends to write it. That is the
only control token here. A fence marked `result` becomes the result as the model reads it; a test
runs the calls and compares. Results, values and all other words are data, whatever they spell.
`{{signature NAME}}` and `{{figure NAME}}` are taken from the tools themselves. `60-` to `69-` are
the worked sessions (the package `worked` makes them).
"""

from __future__ import annotations

import ast
import functools
import re
from importlib.resources import files

from ds4_agent.engine.dsml.block import call_segments
from ds4_agent.engine.dsml.calls import ParsedCall
from ds4_agent.engine.dsml.encode import tool_result_segments
from ds4_agent.engine.dsml.segments import Segment, data

__all__ = ["chapter_sources", "chapters", "parse_calls", "rendered"]

_FENCE = re.compile(r"^```(call|result)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PLACE = re.compile(r"\{\{(signature|figure) (\w+)\}\}")


@functools.cache
def chapters() -> tuple[tuple[str, tuple[Segment, ...]], ...]:
    """(name, segments) of each chapter in order, without the blank line between two."""
    return tuple((name, tuple(rendered(text))) for name, text in chapter_sources())


def chapter_sources() -> list[tuple[str, str]]:
    """(name, source) of each chapter in order; `20-edit.md` has the name `edit`."""
    folder = files("ds4_agent.agent.prompt").joinpath("handbook")
    found = sorted((file.name, file) for file in folder.iterdir() if file.name.endswith(".md"))
    return [
        (name.removesuffix(".md").partition("-")[2], file.read_text(encoding="utf-8"))
        for name, file in found
    ]


def parse_calls(source: str) -> list[ParsedCall]:
    """The calls of a fence: `read(path="a.py")`, one statement each, values literal.

    Raises ValueError for anything else.
    """
    calls = []
    for statement in ast.parse(source).body:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError(f"no call with named arguments: {ast.unparse(statement)}")
        arguments = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        calls.append(ParsedCall(call.func.id, arguments))
    return calls


def rendered(source: str) -> list[Segment]:
    """A chapter's source as the model reads it. Raises ValueError for a fence that is no call."""
    source = source.strip("\n")
    segments: list[Segment] = []
    end = 0
    for fence in _FENCE.finditer(source):
        segments += [data(_filled(source[end : fence.start()])), *_fenced(fence[1], fence[2])]
        end = fence.end()
    return [segment for segment in (*segments, data(_filled(source[end:]))) if segment.text]


def _fenced(kind: str, text: str) -> list[Segment]:
    """Without what the encoder puts before a block and before the results of a turn: who speaks is
    told in words here, so that no mark of a turn can be imitated as text."""
    if kind == "result":
        return tool_result_segments([text.removesuffix("\n")])[1:]
    return call_segments(parse_calls(text))[1:]


def _filled(words: str) -> str:
    return _PLACE.sub(lambda match: _tools_say(match[1], match[2]), words)


def _tools_say(kind: str, name: str) -> str:
    if kind == "signature":
        return _signatures()[name]
    return f"{_figures()[name]:,}"


@functools.cache
def _signatures() -> dict[str, str]:
    from ds4_agent.tools.registry import builtin_tools, task_tool

    return {tool.name: tool.signature() for tool in (*builtin_tools(), task_tool())}


@functools.cache
def _figures() -> dict[str, int]:
    """The limits the handbook names."""
    from ds4_agent.tools import edit, files, git_tool, listing, output, registry, search, shell

    kibi = 1024
    return {
        "read_lines": files.DEFAULT_LINES,
        "read_kib": files.SHOWN_LIMIT // kibi,
        "unread_lines": files.SMALL,
        "edit_around": edit.AROUND,
        "list_entries": listing.ENTRY_LIMIT,
        "search_results": search.DEFAULT_RESULTS,
        "search_width": search.LINE_WIDTH,
        "search_context": search.MOST_CONTEXT,
        "bash_seconds": shell.DEFAULT_TIMEOUT_S,
        "longest_seconds": shell.LONGEST_TIMEOUT_S,
        "output_head_kib": output.HEAD // kibi,
        "output_tail_kib": output.TAIL // kibi,
        "result_kib": registry.RESULT_LIMIT // kibi,
        "log_commits": git_tool.DEFAULT_COMMITS,
    }
