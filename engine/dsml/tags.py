"""The text of one DSML tag, between the DSML id and `>`, read into its parts.

In: e.g. `invoke name="bash"`. Out: a Tag, or what is wrong with it. Dialects that mean the same
thing are read and named in `repaired`; anything that could mean two things is refused.
"""

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["BadTag", "Tag", "read_closing_tag", "read_opening_tag"]

_BLOCK_NAME = "tool_calls"
# The wrapper as real models misspell it: V3.2's name, V4.1's name, and 0731 dropping the id `_c`
# (vllm-project/vllm#51914, #52645; sgl-project/sglang#40236).
_BLOCK_VARIANTS = frozenset(
    {_BLOCK_NAME, "toolcalls", "tool", "tools", "tool_call", "function_calls", "calls"}
)
_ATTRIBUTE = re.compile(r'\s*([a-z_]+)\s*=\s*"([^"]*)"')


@dataclass(frozen=True)
class Tag:
    """A tag that makes sense. `is_string` is None where the attribute is missing or no boolean."""

    kind: Literal["block", "invoke", "parameter"]
    name: str = ""
    is_string: bool | None = None
    string_attribute: str | None = None
    is_self_closing: bool = False
    repaired: str | None = None


@dataclass(frozen=True)
class BadTag:
    """A tag that cannot be used: the defect's name."""

    defect: str


def read_opening_tag(text: str) -> Tag | BadTag:
    """`tool_calls`, `invoke name="…"` or `parameter name="…" string="…"`, without brackets."""
    bare = text.strip()
    if bare in _BLOCK_VARIANTS:
        return Tag("block", repaired=None if text == _BLOCK_NAME else "wrapper_variant")
    head = bare.split(None, 1)[0] if bare else ""
    # V4.1 writes a space between the DSML id and the tag's name.
    dialect = "wrapper_variant" if text[:1].isspace() else None
    if head == "invoke":
        return _invoke(text, bare[len(head) :], dialect)
    if head == "parameter":
        return _parameter(text, bare[len(head) :], dialect)
    return BadTag("bad_wrapper")


def read_closing_tag(text: str) -> Tag | BadTag:
    """`tool_calls`, `invoke` or `parameter`, without brackets."""
    bare = text.strip()
    repaired = None if bare == text else "wrapper_variant"
    if bare.endswith("｜"):  # `</｜DSML｜parameter｜>`, which ds4 accepts too
        bare, repaired = bare.rstrip("｜"), "closing_tag_variant"
    if bare in _BLOCK_VARIANTS:
        return Tag("block", repaired=repaired if bare == _BLOCK_NAME else "wrapper_variant")
    if bare == "invoke":
        return Tag("invoke", repaired=repaired)
    if bare == "parameter":
        return Tag("parameter", repaired=repaired)
    return BadTag("bad_closing_tag")


def _invoke(text: str, attributes: str, dialect: str | None) -> Tag | BadTag:
    is_self_closing = attributes.endswith("/")
    found = _attributes(attributes.removesuffix("/"))
    if found is None or [name for name, _ in found] != ["name"]:
        return BadTag("bad_invoke_tag")
    name = found[0][1]
    # A name with a line break is prose that ran into the tag, not a tool.
    if not name or any(c.isspace() or not c.isprintable() for c in name):
        return BadTag("bad_tool_name")
    repaired = dialect or ("self_closing_invoke" if is_self_closing else None)
    if repaired is None and text != f'invoke name="{name}"':
        repaired = "tag_whitespace"
    return Tag("invoke", name, is_self_closing=is_self_closing, repaired=repaired)


def _parameter(text: str, attributes: str, dialect: str | None) -> Tag | BadTag:
    found = _attributes(attributes)
    names = [name for name, _ in found or ()]
    if found is None or sorted(names) not in (["name"], ["name", "string"]):
        return BadTag("bad_param_tag")
    values = dict(found)
    name, flag = values["name"], values.get("string")
    if not name:
        return BadTag("bad_param_tag")
    repaired = dialect
    if names == ["string", "name"]:
        repaired = repaired or "swapped_attributes"
    elif flag is not None and text != f'parameter name="{name}" string="{flag}"':
        repaired = repaired or "tag_whitespace"
    is_string = {"true": True, "false": False}.get(flag or "")
    return Tag("parameter", name, is_string, string_attribute=flag, repaired=repaired)


def _attributes(text: str) -> list[tuple[str, str]] | None:
    """`name="value"` pairs in order; None where anything else stands between them."""
    found: list[tuple[str, str]] = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        match = _ATTRIBUTE.match(text, at)
        if match is None:
            return None
        found.append((match[1], match[2]))
        at = match.end()
    return found
