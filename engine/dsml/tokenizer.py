"""Text to token ids and back, for any byte-level BPE `tokenizer.json` that has V4's control tokens.

In: segments or data text; ids. Out: ids; text, bytes. Data never yields a control id, whatever it
spells, and no id is hard-coded: every model's file says which id a control token has.
"""

import codecs
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import tokenizers

from ds4_agent.engine.dsml.segments import Segment
from ds4_agent.engine.dsml.values import without_surrogates
from ds4_agent.engine.dsml.vocabulary import Vocabulary
from ds4_agent.engine.errors import ModelFormatError, TokenRangeError

__all__ = ["StreamDecoder", "Tokenizer"]


class Tokenizer:
    """A loaded `tokenizer.json`. Immutable and safe to share between threads."""

    def __init__(self, definition: dict[str, Any], name: str) -> None:
        """`definition` is the parsed file, `name` what error lines call it. See `from_file`."""
        try:
            added = {token["content"]: int(token["id"]) for token in definition["added_tokens"]}
            vocabulary: dict[str, int] = definition["model"]["vocab"]
            # `tokenizers` matches added tokens inside any text, also with add_special_tokens=False,
            # and encode_special_tokens protects only those flagged special, which V4's turn and
            # DSML tokens are not. Without added tokens there is nothing left to match.
            plain = json.dumps({**definition, "added_tokens": []}, ensure_ascii=False)
            self._plain = tokenizers.Tokenizer.from_str(plain)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFormatError(f"{name} is no usable tokenizer.json: {error!r}") from error
        except Exception as error:  # tokenizers raises bare Exception for what it cannot read
            raise ModelFormatError(f"{name} is no usable tokenizer.json: {error}") from error
        self._name = name
        self._controls = added
        self._vocabulary = vocabulary
        self.control_texts = frozenset(added)
        self.control_ids = frozenset(added.values())
        self.vocab_size = 1 + max([*vocabulary.values(), *self.control_ids], default=-1)

    @classmethod
    def from_file(cls, path: str | Path) -> "Tokenizer":
        """Load a `tokenizer.json`. Raises ModelFormatError naming the file and what is wrong."""
        try:
            definition = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ModelFormatError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise ModelFormatError(f"{path} is not JSON: {error}") from error
        if not isinstance(definition, dict):
            raise ModelFormatError(f"{path} is no tokenizer.json: not a JSON object")
        return cls(definition, str(path))

    def control(self, text: str) -> int:
        """The id of a control token by its spelling. Raises ModelFormatError where it has none."""
        token_id = self._controls.get(text)
        if token_id is None:
            raise ModelFormatError(
                f"{self._name} has no control token {text!r}; it is not the tokenizer of a "
                "DeepSeek V4 model"
            )
        return token_id

    def encode_data(self, text: str) -> list[int]:
        """Ids of plain text. What spells a control token becomes ordinary ids."""
        try:
            ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError):  # a lone surrogate has no UTF-8
            ids = self._plain.encode(without_surrogates(text), add_special_tokens=False).ids
        if not self.control_ids.isdisjoint(ids):
            raise ModelFormatError(f"{self._name} lets plain text become control ids")
        return ids

    def encode(self, segments: Iterable[Segment]) -> list[int]:
        """Ids of a prompt. Neighbouring template and data segments are one text for the BPE."""
        ids: list[int] = []
        for is_control, group in groupby(segments, key=lambda segment: segment.kind == "control"):
            if is_control:
                ids.extend(self.control(segment.text) for segment in group)
            else:
                ids.extend(self.encode_data("".join(segment.text for segment in group)))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, control tokens spelled out; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(map(self.piece, ids)).decode("utf-8", "replace")

    def piece(self, token_id: int) -> bytes:
        """The bytes of one id: often not whole characters. Raises TokenRangeError."""
        if not 0 <= token_id < self.vocab_size:
            raise TokenRangeError(
                f"token id {token_id} is outside the vocabulary of {self._name} "
                f"(0 to {self.vocab_size - 1})"
            )
        return self.pieces[token_id]

    def stream_decoder(self) -> "StreamDecoder":
        """A decoder for ids that arrive one by one."""
        return StreamDecoder(self)

    @cached_property
    def pieces(self) -> Sequence[bytes]:
        """The bytes of every id: [vocab_size]; empty where the file leaves a gap."""
        pieces = [b""] * self.vocab_size
        byte_of = _byte_level_alphabet()
        for text, token_id in self._vocabulary.items():
            if token_id not in self.control_ids:
                try:
                    pieces[token_id] = text.translate(byte_of).encode("latin-1")
                except UnicodeEncodeError as error:
                    raise ModelFormatError(
                        f"{self._name} is not byte-level: token {text!r}"
                    ) from error
        for text, token_id in self._controls.items():
            pieces[token_id] = text.encode("utf-8")
        return tuple(pieces)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The ids that plain text can have, indexed by their bytes (0.2 s for V4's, once)."""
        return Vocabulary(self.pieces, self.control_ids)


class StreamDecoder:
    """Ids in, text out as soon as it is certain: bytes of an unfinished character are held back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        """The text that `token_id` completes, "" when none."""
        return self._decoder.decode(self._tokenizer.piece(token_id))

    def flush(self) -> str:
        """U+FFFD for a character that never became whole, else ""; then start afresh."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


def _byte_level_alphabet() -> dict[int, int]:
    """GPT-2's printable stand-in for each byte that has none, as in every byte-level BPE file:
    code point -> byte. A character outside it is left alone and then fails as Latin-1."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in printable]
    return {256 + rank: byte for rank, byte in enumerate(hidden)}
