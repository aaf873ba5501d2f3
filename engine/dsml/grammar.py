"""Which id may come next while a model writes its turn, so that a malformed call cannot be sampled.

In: the ids, one by one. Out: a constraint. Tags are forced or a choice of declared names; values
are free up to the `</` that a DSML id may follow; JSON values are held to JSON of their type.
Outside a call everything but misplaced control ids is free. Nothing here knows probabilities.
"""

from collections.abc import Mapping
from copy import copy
from typing import Any, Literal

from ds4_agent.engine.dsml.call_tries import Body, CallTries, Node, Place
from ds4_agent.engine.dsml.constraints import Constraint, Forced, Free, OneOf
from ds4_agent.engine.dsml.errors import GrammarError
from ds4_agent.engine.dsml.json_bytes import CLOSED, JsonState, advance, start
from ds4_agent.engine.dsml.json_mask import JsonMasks
from ds4_agent.engine.dsml.segments import DSML, END_THINK, EOS
from ds4_agent.engine.dsml.tokenizer import Tokenizer

__all__ = ["Constraint", "Forced", "Free", "Grammar", "GrammarState", "OneOf"]


class Grammar:
    """The grammar of one tool set: compiled once, shared by all its states."""

    def __init__(self, tokenizer: Tokenizer, schemas: Mapping[str, Mapping[str, Any]]) -> None:
        """`schemas`: the declared tools by name. Raises GrammarError for an unusable name."""
        self.tokenizer = tokenizer
        self.tries = CallTries(tokenizer, schemas)
        self.dsml = tokenizer.control(DSML)
        self.eos = tokenizer.control(EOS)
        self.end_think = tokenizer.control(END_THINK)
        controls = tokenizer.control_ids
        self.in_thinking = Free(controls - {self.end_think})
        self.in_answer = Free(controls - {self.eos})
        self.after_bracket = (
            Free(controls - {self.eos, self.dsml}) if self.tries.has_tools else self.in_answer
        )
        self.in_string = Free(controls)
        self.after_closer = Free(controls - {self.dsml})
        self.only_dsml = Forced((self.dsml,))
        self.only_eos = Forced((self.eos,))
        self._json = JsonMasks(tokenizer.vocabulary)
        self._tails: dict[tuple[bytes, frozenset[str] | None], Constraint] = {}

    def start(self, thinking: bool) -> "GrammarState":
        """The state of one model turn, right after its header."""
        return GrammarState(self, thinking)

    def node_constraint(self, node: Node) -> Constraint:
        """What may follow in a trie: the ids up to the next choice, or the choice."""
        if node.constraint is None:
            forced = self._forced_run(node)
            choice = self._choice(node)
            node.constraint = Forced(forced) if forced else choice
        return node.constraint

    def json_constraint(self, state: JsonState) -> Constraint:
        return self.only_dsml if state == CLOSED else self._json.constraint(state)

    def tail_constraint(self, tail: bytes, types: frozenset[str] | None) -> Constraint:
        """The end of a parameter's head, `tail`, with or without the beginning of its value."""
        key = tail, types
        if key not in self._tails:
            fitting = {i for _, i in self.tokenizer.vocabulary.beginnings_of(tail)}
            for piece, i in self.tokenizer.vocabulary.starting_with(tail):
                value = piece[len(tail) :]
                if types is None or advance(start(types), value) is not None:
                    fitting.add(i)
            self._tails[key] = _one_of(fitting)
        return self._tails[key]

    def _forced_run(self, node: Node) -> tuple[int, ...]:
        """The only ids that can follow, as far as there is no choice."""
        ids: list[int] = []
        while True:
            choice = self._choice(node)
            if not isinstance(choice, Forced):
                return tuple(ids)
            ids.extend(choice.ids)
            following = node.children.get(choice.ids[0])
            if following is None:  # a tail that no value can change: the body begins after it
                return tuple(ids)
            if following.place is not None:
                following = self.tries.root(following.place)
            if not following.children:
                return tuple(ids)
            node = following

    def _choice(self, node: Node) -> Constraint:
        ids = set(node.children)
        if node.body is not None:
            opening = self.tail_constraint(node.body.tail, node.body.types)
            ids |= set(opening.ids) if not isinstance(opening, Free) else set()
        return _one_of(ids)


class GrammarState:
    """Where one model turn stands. Told of every id, sampled or forced, in order."""

    def __init__(self, grammar: Grammar, thinking: bool) -> None:
        self._grammar = grammar
        self._at: Literal["thinking", "answer", "tags", "tail", "string", "json", "end"]
        self._at = "thinking" if thinking else "answer"
        self._last = b""  # the last two bytes of the text or value
        self._node = Node()
        self._tail = b""
        self._types: frozenset[str] | None = None
        self._json: JsonState = CLOSED
        self._following = Place("block")

    def constraint(self) -> Constraint:
        """What may come next."""
        grammar = self._grammar
        if self._at == "tags":
            return grammar.node_constraint(self._node)
        if self._at == "string":
            return grammar.after_closer if self._last == b"</" else grammar.in_string
        if self._at == "answer":
            return grammar.after_bracket if self._last[-1:] == b"<" else grammar.in_answer
        if self._at == "thinking":
            return grammar.in_thinking
        if self._at == "json":
            return grammar.json_constraint(self._json)
        if self._at == "tail":
            return grammar.tail_constraint(self._tail, self._types)
        return grammar.only_eos

    def copy(self) -> "GrammarState":
        """One that goes its own way from here; all it holds are values."""
        return copy(self)

    def accept(self, token_id: int) -> None:
        """`token_id` came. Raises GrammarError where it may not; the state is unchanged then."""
        if not self._accepts(token_id):
            piece = self._grammar.tokenizer.piece(token_id)
            raise GrammarError(f"id {token_id} ({piece!r}) cannot stand in {self._at} here")

    def _accepts(self, token_id: int) -> bool:
        if self._at == "tags":
            return self._tag_id(token_id)
        constraint = self.constraint()
        if isinstance(constraint, Free):
            if token_id in constraint.banned:
                return False
        elif token_id not in constraint.ids:
            return False
        if token_id in self._grammar.tokenizer.control_ids:
            self._control(token_id)
        else:
            self._data(self._grammar.tokenizer.piece(token_id))
        return True

    def _tag_id(self, token_id: int) -> bool:
        child = self._node.children.get(token_id)
        if child is None:
            body = self._node.body
            if body is None:
                return False
            opening = self._grammar.tail_constraint(body.tail, body.types)
            if isinstance(opening, Free) or token_id not in opening.ids:
                return False
            self._open_body(body)
            self._data(self._grammar.tokenizer.piece(token_id))
            return True
        self._enter(child)
        return True

    def _enter(self, node: Node) -> None:
        """The state after a trie's step."""
        if node.place is not None:
            node = self._grammar.tries.root(node.place)
        self._node = node
        if node.body is not None and not node.body.tail and not node.children:
            self._open_body(node.body)
        elif node.children or node.body is not None:
            self._at = "tags"
        else:
            self._at = "end"

    def _open_body(self, body: Body) -> None:
        self._following, self._types, self._tail = body.following, body.types, body.tail
        self._last = b""
        self._at = "tail" if body.tail else self._begin_value()

    def _begin_value(self) -> Literal["string", "json"]:
        if self._types is None:
            return "string"
        self._json = start(self._types)
        return "json"

    def _control(self, token_id: int) -> None:
        """A control id that the constraint let through."""
        if token_id == self._grammar.end_think:
            self._at, self._last = "answer", b""
        elif token_id == self._grammar.dsml:
            place = Place("block") if self._at == "answer" else self._following
            self._at = "tags"
            self._node = self._grammar.tries.root(place)
        else:
            self._at = "end"

    def _data(self, piece: bytes) -> None:
        """Text that the constraint let through."""
        if self._at == "tail":
            shared = min(len(piece), len(self._tail))
            self._tail, piece = self._tail[shared:], piece[shared:]
            if self._tail:
                return
            self._at = self._begin_value()
        if self._at == "json":
            self._json = advance(self._json, piece) or self._json
        else:
            self._last = (self._last + piece)[-2:]


def _one_of(ids: set[int]) -> Constraint:
    return Forced(tuple(ids)) if len(ids) == 1 else OneOf(frozenset(ids))
