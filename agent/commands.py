"""The commands beside a run: `config`. Those with a file of their own are called from here:
`batch`, `cache`, `doctor`, `model`, `sessions`, `tools`.

In: their arguments. Out: a few lines on stdout, or JSON with `--json`; the exit code. Each imports
what it needs; none of them loads weights or changes anything.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ds4_agent.agent.cli import Parser, add_common, options_from
from ds4_agent.agent.display import visible
from ds4_agent.agent.model_names import SCRIPTED, model_directory
from ds4_agent.agent.printing import print_json, warn

if TYPE_CHECKING:
    from ds4_agent.agent.build import RunOptions
    from ds4_agent.agent.places import Places
    from ds4_agent.engine.dsml.tokenizer import Tokenizer

__all__ = ["run_command"]


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run `ds4-agent NAME …`. Raises UsageError and EngineError."""
    if name == "batch":
        from ds4_agent.agent.batch.command import run_batch

        return run_batch(arguments)
    if name == "tools":
        from ds4_agent.agent.tool_commands import run_tools

        return run_tools(arguments)
    if name == "sessions":
        from ds4_agent.agent.session_commands import run_sessions

        return run_sessions(arguments)
    if name == "cache":
        from ds4_agent.agent.cache_commands import run_cache

        return run_cache(arguments)
    if name == "model":
        from ds4_agent.agent.model_commands import run_model

        return run_model(arguments)
    if name == "doctor":
        from ds4_agent.agent.doctor import run_doctor

        return run_doctor(arguments)
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "show": _config_show, "path": _config_path, "prompt": _config_prompt,
    }  # fmt: skip
    parser = Parser(prog=f"ds4-agent {name}", allow_abbrev=False)
    choices = sorted(actions)
    parser.add_argument("action", choices=choices, metavar="|".join(choices))
    parser.add_argument("--profile", metavar="NAME", help="of `prompt`: handbook, lean or nano")
    parser.add_argument("--append-system-prompt", metavar="TEXT")
    parser.add_argument("--model", metavar="NAME")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    add_common(parser)
    chosen = parser.parse_intermixed_args(arguments)
    return actions[chosen.action](chosen)


def _config_path(chosen: argparse.Namespace) -> int:
    from ds4_agent.agent.places import find_places

    path = os.fspath(find_places(os.environ).config_file)
    print_json({"path": path}) if chosen.json else print(visible(path))
    return 0


def _config_show(chosen: argparse.Namespace) -> int:
    """Every setting and where it comes from."""
    from ds4_agent.agent.config import load_settings
    from ds4_agent.agent.places import find_places

    flags = {"model": chosen.model, "append_system_prompt": chosen.append_system_prompt}
    path = find_places(os.environ).config_file
    settings, origins = load_settings(flags, os.environ, path)
    shown = {
        name: {"value": value, "from": origins.get(name, "default")}
        for name, value in asdict(settings).items()
    }
    if chosen.json:
        print_json(shown)
        return 0
    for name, entry in shown.items():
        value = "-" if entry["value"] in (None, (), "") else entry["value"]
        print(f"{name:<21} {visible(str(value)):<24} {visible(entry['from'])}")
    return 0


def _config_prompt(chosen: argparse.Namespace) -> int:
    """The prompt up to the first user turn, and what each of its sections costs."""
    from ds4_agent.agent.build import gathered_facts, gathered_memory
    from ds4_agent.agent.prompt.profile import has_task, sections
    from ds4_agent.agent.toolbox import gather_toolbox
    from ds4_agent.engine.dsml.segments import spell
    from ds4_agent.tools.process import Processes

    options = options_from(chosen, is_headless=True)
    with Processes() as processes:
        toolbox = gather_toolbox(options.directory, options.places, processes)
    for notice in toolbox.notices:
        warn(notice)
    model = options.settings.model or "nano"
    profile = chosen.profile or _profile_of(options, model)
    memory = gathered_memory(options, profile)
    parts = sections(
        profile,
        (toolbox.with_task if has_task(profile) else toolbox).tools,
        gathered_facts(options),
        append=options.settings.append_system_prompt,
        memory=memory.text,
    )
    tokenizer = _tokenizer(model, options.places)
    text = "".join(spell(part) for _, part in parts)
    counted = [(name, len(tokenizer.encode(part)), spell(part)) for name, part in parts]
    tokens = len(tokenizer.encode([segment for _, part in parts for segment in part]))
    if chosen.json:
        listed = [{"name": n, "tokens": count, "text": said} for n, count, said in counted]
        print_json({"profile": profile, "model": model, "tokens": tokens, "sections": listed})
        return 0
    print(visible(text))
    for notice in memory.notices:
        print(visible(notice), file=sys.stderr)
    for name, count, _ in counted:
        print(f"{name:<22} {count:>6,} tokens", file=sys.stderr)
    print(f"{profile:<22} {tokens:>6,} tokens of {visible(model)}", file=sys.stderr)
    return 0


def _profile_of(options: RunOptions, model: str) -> str:
    """The profile of a run with `model`, without loading it."""
    from ds4_agent.agent.prompt.profile import profile_of

    if model == "nano" or model.startswith(SCRIPTED):
        return options.settings.prompt_profile or "nano"
    from ds4_agent.engine.local import default_context
    from ds4_agent.engine.version import read_version
    from ds4_agent.engine.weights.checkpoint import read_config

    directory = model_directory(model, options.places)
    longest = read_config(directory).max_position_embeddings
    of_model = read_version(directory).profile
    context = options.settings.ctx or default_context(longest)
    return profile_of(options.settings, of_model, context, keeps_states=options.keeps_states)


def _tokenizer(model: str, places: Places) -> Tokenizer:
    from ds4_agent.engine.dsml.tokenizer import Tokenizer

    directory = model_directory("nano" if model.startswith(SCRIPTED) else model, places)
    return Tokenizer.from_file(directory / "tokenizer.json")
