"""Text whose end cannot be shown yet, because it may belong to a DSML block that follows: line
breaks before the block and the bracket of its first tag. In: text as it is decoded, in any pieces.
Out: the text that is certain. Linear in the text, whatever it holds.
"""

__all__ = ["HeldText"]

_BREAKS = "\r\n"
_BRACKET_ENDS = "</｜"


class HeldText:
    """A stretch of text being decoded. `holds_breaks`: line breaks are held back too (outside
    values, whose bytes are all their own)."""

    def __init__(self, *, holds_breaks: bool) -> None:
        self._holds_breaks = holds_breaks
        self._breaks: list[str] = []
        self._bracket = ""

    def push(self, text: str) -> str:
        """More text; returns what is certain to be text now."""
        whole = self._bracket + text
        core, self._bracket = _split_bracket(whole)
        kept = core.rstrip(_BREAKS) if self._holds_breaks else core
        if kept:
            certain = "".join(self._breaks) + kept
            self._breaks = [core[len(kept) :]]
            return certain
        self._breaks.append(core)
        return ""

    def take(self) -> tuple[str, str]:
        """What is held, as line breaks and bracket; holds nothing afterwards."""
        held = "".join(self._breaks), self._bracket
        self._breaks, self._bracket = [], ""
        return held


def _split_bracket(text: str) -> tuple[str, str]:
    """`text` and the `<` or `</` at its end, also with the bar that a doubled `<｜｜DSML` has."""
    if text[-1:] not in _BRACKET_ENDS:
        return text, ""
    for bracket in ("</｜", "<｜", "</", "<"):
        if text.endswith(bracket):
            return text[: -len(bracket)], bracket
    return text, ""
