"""The settings of an agent run: built-in < config.toml < DS4_MODEL < command line.

In: flags, the environment, the user's config file. Out: a frozen `Settings` and where each value
came from. An unknown key, a wrong type or an impossible value is an error that names its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.sizes import parse_size

__all__ = ["CHOICES", "Settings", "load_settings"]

CHOICES = {
    "prompt_profile": ("handbook", "lean", "nano"),
    "think": ("off", "low", "high", "max"),
    "permission_mode": ("ask", "accept-edits", "plan", "auto", "deny"),
    "speculate": ("auto", "on", "off"),
}
_AT_LEAST = {
    "cache_budget": 0,
    "ctx": 1,
    "max_tokens": 1,
    "max_turns": 1,
    "time_limit": 0,
    "temp": 0,
    "seed": 0,
}
_INF = float("inf")
_FRACTIONS = ("top_p", "min_p")


@dataclass(frozen=True)
class Settings:
    """What a user can set, in config.toml by these names. None: the model's or the mode's own."""

    model: str | None = None  # nano, a directory, or scripted:FILE
    prompt_profile: str | None = None  # handbook, lean, nano
    think: str | None = None  # off, low, high, max
    ctx: int | None = None  # tokens of context
    max_tokens: int | None = None  # output tokens a prompt may use
    max_turns: int | None = None  # model steps a prompt may use
    time_limit: float | None = None  # seconds a prompt may use
    temp: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    speculate: str | None = None  # auto, on, off; auto where it is None
    permission_mode: str | None = None  # ask, accept-edits, plan, auto, deny
    allowed_tools: tuple[str, ...] = ()  # rules Tool or Tool(pattern)
    disallowed_tools: tuple[str, ...] = ()  # rules; they win over all others
    asked_tools: tuple[str, ...] = ()  # rules; they win over allowed_tools
    approver: str | None = None  # a command asked for each approval
    append_system_prompt: str = ""
    cache_budget: int = 32 * 10**9  # bytes of states on disk; in config.toml: [cache] budget


# The keys of the table [permissions], and the settings they add to.
_PERMISSIONS = {"allow": "allowed_tools", "ask": "asked_tools", "deny": "disallowed_tools"}
_KINDS = {field.name: field.type for field in fields(Settings)}


def load_settings(
    flags: Mapping[str, Any], environment: Mapping[str, str], config_file: Path
) -> tuple[Settings, dict[str, str]]:
    """Settings, and for each one set the place it was set. Flags that are None are not set.

    Raises UsageError. Rules of both places are kept: config.toml's stay in force.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    layers: list[tuple[str, Mapping[str, Any]]] = [
        (str(config_file), layer) for layer in _read(config_file)
    ]
    if environment.get("DS4_MODEL"):
        layers.append(("DS4_MODEL", {"model": environment["DS4_MODEL"]}))
    layers.append(("command line", {k: v for k, v in flags.items() if v not in (None, (), [])}))
    for place, layer in layers:
        for name, value in layer.items():
            checked = _checked(place, name, value)
            values[name] = (*values.get(name, ()), *checked) if _is_list(name) else checked
            origins[name] = place
    return Settings(**values), origins


def _read(path: Path) -> list[Mapping[str, Any]]:
    """The settings of the file, and those that its table [permissions] adds."""
    import tomllib  # only a run needs it, not --help

    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        return []
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    tables = settings.pop("permissions", {}), settings.pop("cache", {})
    return [settings, _permissions(path, tables[0]), _cache(path, tables[1])]


def _permissions(path: Path, table: Any) -> Mapping[str, Any]:
    """[permissions] allow, ask and deny, under the names of the settings they add to."""
    if not isinstance(table, dict):
        raise UsageError(f"{path}: [permissions] must be a table with allow, ask, deny")
    for name, value in table.items():
        if name not in _PERMISSIONS:
            known = ", ".join(_PERMISSIONS)
            raise UsageError(f"{path}: [permissions] has no `{name}`; there are {known}")
        if not isinstance(value, list) or not all(isinstance(rule, str) for rule in value):
            raise UsageError(f"{path}: [permissions] {name} must be a list of texts")
    return {_PERMISSIONS[name]: value for name, value in table.items()}


def _cache(path: Path, table: Any) -> Mapping[str, Any]:
    """[cache] budget, in bytes."""
    if not isinstance(table, dict) or set(table) - {"budget"}:
        raise UsageError(f"{path}: [cache] must be a table with `budget` and nothing else")
    return {"cache_budget": _bytes(path, table["budget"])} if "budget" in table else {}


def _bytes(path: Path, value: Any) -> int:
    """A number of bytes, or a text with a unit: 500MB, 32 GB, 1.5TB, 16GiB."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = parse_size(value) if isinstance(value, str) else None
    if found is None:
        raise UsageError(f'{path}: [cache] budget must be like "32GB" or a number, not {value!r}')
    return found


def _checked(place: str, name: str, value: Any) -> Any:
    if name not in _KINDS:
        raise UsageError(f"{place}: unknown setting `{name}`; known are {', '.join(_KINDS)}")
    if _is_list(name):
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(i, str) for i in items):
            raise UsageError(f"{place}: {name} must be a list of texts")
        return tuple(items)
    kind = str(_KINDS[name]).split(" |")[0]
    accepted = {"str": (str,), "int": (int,), "float": (int, float)}[kind]
    if not isinstance(value, accepted) or isinstance(value, bool) or value in (_INF, -_INF):
        article = {"str": "a text", "int": "a whole number", "float": "a number"}[kind]
        raise UsageError(f"{place}: {name} must be {article}, not {value!r}")
    if name in CHOICES and value not in CHOICES[name]:
        raise UsageError(f"{place}: {name} is one of {', '.join(CHOICES[name])}, not {value!r}")
    _check_range(place, name, value)
    return value


def _check_range(place: str, name: str, value: Any) -> None:
    if name in _AT_LEAST and not value >= _AT_LEAST[name]:
        raise UsageError(f"{place}: {name} must be at least {_AT_LEAST[name]}, not {value}")
    if name in _FRACTIONS and not 0 <= value <= 1:
        raise UsageError(f"{place}: {name} must be between 0 and 1, not {value}")


def _is_list(name: str) -> bool:
    return str(_KINDS.get(name, "")).startswith("tuple")
