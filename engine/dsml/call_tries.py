"""The tags of calls as tries over token ids, for one tool set and tokenizer.

In: a place in a block. Out: the trie of every canonical id sequence that may stand from there to
the next DSML id, or to the body of a parameter. Whole tags are encoded, never their parts: a BPE
merges across what looks like a boundary (`="` with a name, `">` with a line break).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ds4_agent.engine.dsml.block import (
    BLOCK_CLOSE,
    BLOCK_OPEN,
    INVOKE_CLOSE,
    PARAMETER_CLOSE,
    invoke_head,
    parameter_head,
)
from ds4_agent.engine.dsml.constraints import Constraint
from ds4_agent.engine.dsml.errors import GrammarError
from ds4_agent.engine.dsml.schema import Parameter, ToolSignature
from ds4_agent.engine.dsml.segments import DSML, EOS, spell
from ds4_agent.engine.dsml.tokenizer import Tokenizer

__all__ = ["BODY_PROBES", "Body", "CallTries", "Node", "Place"]

# What a body may begin with, as far as it can change how the head before it is tokenised: BPE
# merges stay within a word, a number or a run of punctuation and line breaks.
BODY_PROBES = (
    *(
        "",
        "a",
        "Z",
        "é",
        "中",
        "ア",
        "5",
        "½",
        " ",
        "  ",
        " a",
        "\t",
        "\n",
        "\n\n",
        "\r\n",
        "\u3000",
    ),
    *("</", "</a", "<", ">", ">>", "=", "/", "//", "'", '"', '""', "$", "[", "{", "(", ")", ";"),
    *(".", ",", "-", "--", "#", "@", "*", "\\", "|", "!", "?", ":", "`", "_", "&", "%", "+", "~"),
    *("}", "]", "^", "。", "，", "｜", "—", "…", "“", "\u3000", "\u200b", "\u0301", "🙂"),
)


@dataclass(frozen=True)
class Place:
    """Right after a DSML id: what the tag is that it stands in. `used`: parameters given so far."""

    kind: Literal["block", "invoke", "parameter", "parameter end", "invoke end", "block end"]
    tool: str = ""
    used: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Body:
    """A value that is written freely: `tail` is the end of its head, which may share an id with
    the value's beginning; `types` the JSON types it may have, None for a string."""

    tail: bytes
    types: frozenset[str] | None
    following: Place


@dataclass
class Node:
    """A step in a trie. A leaf is a `place` (the trie goes on there), a `body`, or the end."""

    children: dict[int, "Node"] = field(default_factory=dict)
    body: Body | None = None
    place: Place | None = None
    constraint: Constraint | None = None  # kept by the grammar


@dataclass(frozen=True)
class _Run:
    """One way to go on: ids, then a place or a body (neither: the end of the turn)."""

    ids: list[int]
    place: Place | None = None
    body: Body | None = None


class CallTries:
    """The tries of a tool set, each built when it is first needed."""

    def __init__(self, tokenizer: Tokenizer, schemas: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises GrammarError for a name that DSML cannot carry."""
        self._tokenizer = tokenizer
        self._dsml = tokenizer.control(DSML)
        self._eos = tokenizer.control(EOS)
        self._tools = {
            schema["name"]: ToolSignature.from_schema(schema) for schema in schemas.values()
        }
        for tool in self._tools.values():
            _check_names(tool)
        self._roots: dict[Place, Node] = {}
        self._heads: dict[str, tuple[list[int], bytes]] = {}

    @property
    def has_tools(self) -> bool:
        return bool(self._tools)

    def root(self, place: Place) -> Node:
        """The trie of a place."""
        node = self._roots.get(place)
        if node is None:
            node = Node()
            for run in self._runs(place):
                _insert(node, run)
            self._roots[place] = node
        return node

    def _runs(self, place: Place) -> Iterator[_Run]:
        if place.kind == "block":
            yield self._run(_inside(BLOCK_OPEN) + "\n<", Place("invoke"))
        elif place.kind == "invoke":
            for tool in self._tools.values():
                yield from self._invoke(tool)
        elif place.kind == "parameter":
            tool = self._tools[place.tool]
            for parameter in tool.parameters:
                if parameter.name not in place.used:
                    used = place.used | {parameter.name}
                    yield from self._parameter(parameter, Place("parameter end", tool.name, used))
        elif place.kind == "parameter end":
            tool = self._tools[place.tool]
            if len(place.used) < len(tool.parameters):
                following = Place("parameter", tool.name, place.used)
                yield self._run(_inside(PARAMETER_CLOSE) + "\n<", following)
            if not tool.missing(place.used):
                yield self._run(_inside(PARAMETER_CLOSE) + "\n</", Place("invoke end"))
        elif place.kind == "invoke end":
            yield self._run(_inside(INVOKE_CLOSE) + "\n<", Place("invoke"))
            yield self._run(_inside(INVOKE_CLOSE) + "\n</", Place("block end"))
        else:
            yield _Run([*self._tokenizer.encode_data(_inside(BLOCK_CLOSE)), self._eos])

    def _run(self, text: str, place: Place) -> _Run:
        """`text` up to the next DSML id, and that id."""
        return _Run([*self._tokenizer.encode_data(text), self._dsml], place=place)

    def _invoke(self, tool: ToolSignature) -> Iterator[_Run]:
        head = _inside(spell(invoke_head(tool.name)))
        if tool.parameters:
            yield self._run(head + "\n<", Place("parameter", tool.name))
        if not tool.missing(()):
            # The empty line of a call without arguments, as `call_segments` writes it.
            yield self._run(head + "\n\n</", Place("invoke end"))

    def _parameter(self, parameter: Parameter, following: Place) -> Iterator[_Run]:
        if parameter.values is not None:
            for is_string, text in parameter.spelled_values():
                head = _inside(spell(parameter_head(parameter.name, is_string)))
                yield self._run(head + text + "</", following)
            return
        for is_string in parameter.string_flags:
            head = _inside(spell(parameter_head(parameter.name, is_string)))
            ids, tail = self._stable_ids(head)
            types = None if is_string else parameter.types - {"string"}
            yield _Run(ids, body=Body(tail, types, following))

    def _stable_ids(self, head: str) -> tuple[list[int], bytes]:
        """The ids of `head` that no value after it can change, and the bytes of the rest."""
        if head in self._heads:
            return self._heads[head]
        ids = self._tokenizer.encode_data(head)
        count = len(ids)
        for probe in BODY_PROBES:
            other = self._tokenizer.encode_data(head + probe)
            while ids[:count] != other[:count]:
                count -= 1
        tail = b"".join(map(self._tokenizer.piece, ids[count:]))
        self._heads[head] = ids[:count], tail
        return self._heads[head]


def _inside(tag: str) -> str:
    """A tag's text after its DSML id."""
    return tag.partition(DSML)[2]


def _insert(node: Node, run: _Run) -> None:
    for token_id in run.ids:
        node = node.children.setdefault(token_id, Node())
    node.place = node.place or run.place
    node.body = node.body or run.body


def _check_names(tool: ToolSignature) -> None:
    if not tool.name or any(c.isspace() or not c.isprintable() or c == '"' for c in tool.name):
        raise GrammarError(f"the tool name {tool.name!r} cannot be written in a call; rename it")
    for parameter in tool.parameters:
        if not parameter.name or '"' in parameter.name:
            raise GrammarError(
                f"the parameter name {parameter.name!r} of {tool.name} cannot be written in a "
                "call; rename it"
            )
