"""JSON read byte by byte: which byte may follow, for a value of given types written between the
tags of a parameter. In: a state and a byte. Out: the next state, or None where the byte cannot be.

A state is (mode, stack): plain strings, so that it can be the key of a cache. `stack` holds an
"a" or "o" for each open array or object. The value is followed by `</`; then the state is CLOSED.
Every value that is accepted is one `json_value` accepts: hence the limits on numbers and depth.
"""

from collections.abc import Iterable

__all__ = ["CLOSED", "JsonState", "advance", "is_in_string", "start", "step"]

JsonState = tuple[str, str]

CLOSED: JsonState = ("closed", "")

_SPACE = frozenset(b" \t\n\r")
_DIGITS = frozenset(b"0123456789")
_HEX = frozenset(b"0123456789abcdefABCDEF")
_ESCAPES = frozenset(b'"\\/bfnrt')
_LITERALS = {ord("t"): "rue", ord("f"): "alse", ord("n"): "ull"}
_LITERAL_TYPES = {ord("t"): "boolean", ord("f"): "boolean", ord("n"): "null"}
_DEEPEST = 64
# A float must stay finite: at most this many digits before a fraction, before an exponent.
_FRACTION_DIGITS = 16
_EXPONENT_DIGITS = 8


def start(types: Iterable[str]) -> JsonState:
    """The state before a value of one of these JSON types."""
    return "top:" + ",".join(sorted(types)), ""


def advance(state: JsonState, text: bytes) -> JsonState | None:
    """The state after all of `text`, or None where it cannot be."""
    current: JsonState | None = state
    for byte in text:
        if current is None:
            return None
        current = step(current, byte)
    return current


def is_in_string(state: JsonState) -> bool:
    """Whether any text may follow, up to the next quote or backslash."""
    return state[0] in ("s", "k")


def step(state: JsonState, byte: int) -> JsonState | None:
    """The state after one more byte."""
    mode, stack = state
    kind = mode[0]
    if kind in "sk":
        return _in_string(mode, stack, byte)
    if kind == "n":
        return _in_number(mode, stack, byte)
    if kind == "l":
        return _in_literal(mode, stack, byte)
    if kind == "t":
        return _value(stack, byte, frozenset(mode[4:].split(",")))
    if kind == "<":
        return CLOSED if byte == ord("/") else None
    if mode == "done":
        return ("<", "") if byte == ord("<") else None
    if mode == "closed":
        return None
    return _between(mode, stack, byte)


def _between(mode: str, stack: str, byte: int) -> JsonState | None:
    """Inside an array or object, outside its values."""
    if byte in _SPACE:
        return mode, stack
    if mode in ("value", "value or end"):
        if byte == ord("]") and mode == "value or end":
            return _closed(stack)
        return _value(stack, byte, None)
    if mode in ("entry", "entry or end"):
        if byte == ord("}") and mode == "entry or end":
            return _closed(stack)
        return ("k", stack) if byte == ord('"') else None
    if mode == "colon":
        return ("value", stack) if byte == ord(":") else None
    # after a value
    if byte == ord(","):
        return ("value" if stack[-1] == "a" else "entry"), stack
    if byte == (ord("]") if stack[-1] == "a" else ord("}")):
        return _closed(stack)
    return None


def _closed(stack: str) -> JsonState:
    return _after(stack[:-1])


def _after(stack: str) -> JsonState:
    return ("after", stack) if stack else ("done", "")


def _value(stack: str, byte: int, types: frozenset[str] | None) -> JsonState | None:
    """The first byte of a value; `types` None: of any type."""
    if byte in _LITERALS:
        fits = types is None or _LITERAL_TYPES[byte] in types
        return ("l" + _LITERALS[byte], stack) if fits else None
    if byte == ord("-") or byte in _DIGITS:
        if types is not None and not types & {"integer", "number"}:
            return None
        # "ni…" is an integer only, "nf…" may go on with a fraction.
        lead = "nf" if types is None or "number" in types else "ni"
        return _first_digit(lead, stack, byte) if byte != ord("-") else (lead + "-", stack)
    if byte == ord('"'):
        return ("s", stack) if types is None or "string" in types else None
    if len(stack) >= _DEEPEST:
        return None
    if byte == ord("["):
        return ("value or end", stack + "a") if types is None or "array" in types else None
    if byte == ord("{"):
        return ("entry or end", stack + "o") if types is None or "object" in types else None
    return None


def _in_literal(mode: str, stack: str, byte: int) -> JsonState | None:
    rest = mode[1:]
    if byte != ord(rest[0]):
        return None
    return ("l" + rest[1:], stack) if len(rest) > 1 else _after(stack)


def _in_string(mode: str, stack: str, byte: int) -> JsonState | None:
    """`s` in a value and `k` in a key; then `\\` after a backslash, or the hex digits to come."""
    kind, rest = mode[0], mode[1:]
    if not rest:
        if byte == ord('"'):
            return _after(stack) if kind == "s" else ("colon", stack)
        if byte == ord("\\"):
            return kind + "\\", stack
        return (kind, stack) if byte >= 0x20 else None
    if rest == "\\":
        if byte == ord("u"):
            return kind + "4", stack
        return (kind, stack) if byte in _ESCAPES else None
    if byte not in _HEX:
        return None
    return kind + (str(int(rest) - 1) if rest != "1" else ""), stack


def _first_digit(lead: str, stack: str, byte: int) -> JsonState:
    return lead + ("0" if byte == ord("0") else "1"), stack


def _in_number(mode: str, stack: str, byte: int) -> JsonState | None:
    """Modes after `ni` or `nf`: `-`; `0` a lone zero, else the count of digits; `.`, `.d` in the
    fraction; `e`, `e+`, and `x` with the exponent's digits so far."""
    lead, rest = mode[:2], mode[2:]
    is_digit = byte in _DIGITS
    if rest == "-":
        return _first_digit(lead, stack, byte) if is_digit else None
    if rest[0] in "ex":
        return _in_exponent(lead, rest, stack, byte)
    if rest[0] == ".":
        if is_digit:
            return f"{lead}.d{rest[2:]}" if rest[1:2] == "d" else f"{lead}.d{rest[1:]}", stack
        if rest[1:2] != "d":
            return None
        may_have_exponent = rest[2:] == "e"
    elif is_digit:
        count = int(rest)
        # Saturates, so that long integers do not make a state of their own for every length.
        return None if count == 0 else (f"{lead}{min(count + 1, _FRACTION_DIGITS + 1)}", stack)
    else:
        count = int(rest)
        may_have_exponent = lead == "nf" and count <= _EXPONENT_DIGITS
        if byte == ord("."):
            fits = lead == "nf" and count <= _FRACTION_DIGITS
            return (f"{lead}.{'e' * may_have_exponent}", stack) if fits else None
    if byte in b"eE":
        return (lead + "e", stack) if may_have_exponent else None
    return step(_after(stack), byte)


def _in_exponent(lead: str, rest: str, stack: str, byte: int) -> JsonState | None:
    if byte not in _DIGITS:
        if rest == "e" and byte in b"+-":
            return lead + "e+", stack
        return step(_after(stack), byte) if rest[0] == "x" else None
    if rest[0] == "e":
        return f"{lead}x{'s' if byte in b'012' else 'l'}", stack
    # Three digits only below 300: with eight digits before it the number stays finite.
    longest = {"s": 3, "l": 2}[rest[1]]
    return (f"{lead}{rest}d", stack) if len(rest) - 1 < longest else None
