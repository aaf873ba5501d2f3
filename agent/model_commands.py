"""The command `model`: which models can be named, what one is, what it takes in memory, and which
one is used where none is named. `verify` has a module of its own.

In: its arguments. Out: a few lines on stdout, or JSON with `--json`; the exit code. It loads no
weights; `use` writes one line of config.toml.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ds4_agent.agent.cli import Parser, add_common, options_from
from ds4_agent.agent.config_file import change_config
from ds4_agent.agent.display import visible
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.model_list import model_list
from ds4_agent.agent.model_names import model_directory
from ds4_agent.agent.model_verify import add_verify_options, verify_model
from ds4_agent.agent.printing import print_json
from ds4_agent.agent.sizes import shown_size

if TYPE_CHECKING:
    from ds4_agent.engine.weights.plan import Plan

__all__ = ["run_model"]


def run_model(arguments: Sequence[str]) -> int:
    """Run `ds4-agent model …`. Raises UsageError, PullError, OutputError and EngineError."""
    if arguments and arguments[0] == "convert":  # it takes two directories
        from ds4_agent.agent.model_convert import run_convert

        return run_convert(arguments[1:])
    if arguments and arguments[0] == "pull":
        from ds4_agent.agent.model_pull import run_pull

        return run_pull(arguments[1:])
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "info": _model_info,
        "list": model_list,
        "plan": _model_plan,
        "use": _model_use,
        "verify": lambda chosen: verify_model(chosen, model_directory),
    }
    parser = Parser(
        prog="ds4-agent model",
        epilog="ds4-agent model convert SRC DST --recipe …, ds4-agent model pull OWNER/NAME [DIR]: "
        "see ds4-agent model convert --help, ds4-agent model pull --help",
        allow_abbrev=False,
    )
    parser.add_argument("action", choices=sorted(actions), metavar="|".join(sorted(actions)))
    parser.add_argument("name", nargs="?", help="nano, a pulled OWNER/NAME, or a directory")
    parser.add_argument("--ctx", type=int, metavar="N", help="of `plan`: tokens of context")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    add_verify_options(parser)
    add_common(parser)
    chosen = parser.parse_intermixed_args(arguments)
    return actions[chosen.action](chosen)


def _model_info(chosen: argparse.Namespace) -> int:
    """What a checkpoint is, from its files' heads."""
    from ds4_agent.engine.version import read_version
    from ds4_agent.engine.weights.checkpoint import fingerprint, read_config

    options = options_from(chosen, is_headless=True)
    name = chosen.name or options.settings.model or "nano"
    directory = model_directory(name, options.places)
    config, version = read_config(directory), read_version(directory)
    info = {
        "name": name,
        "version": version.name,
        "directory": os.fspath(directory),
        "fingerprint": fingerprint(directory),
        "bytes": sum(path.stat().st_size for path in directory.glob("*.safetensors")),
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "experts": config.n_routed_experts,
        "experts_per_token": config.num_experts_per_tok,
        "vocabulary": config.vocab_size,
        "longest_context": config.max_position_embeddings,
        "thinking": list(version.efforts),
        "default_thinking": version.thinking,
        "temperature": version.sampling.temperature,
        "top_p": version.sampling.top_p,
        "min_p": version.sampling.min_p,
    }
    if chosen.json:
        print_json(info)
        return 0
    for key, value in info.items():
        shown = ", ".join(value) if isinstance(value, list) else str(value)
        shown = f"{value:,}" if isinstance(value, int) else visible(shown)
        print(f"{key.replace('_', ' '):<18} {shown}")
    return 0


def _model_plan(chosen: argparse.Namespace) -> int:
    """What a checkpoint and a context would take. Exit code 2 where they do not fit."""
    from ds4_agent.engine.local import default_context
    from ds4_agent.engine.weights.checkpoint import plan_model, read_config

    options = options_from(chosen, is_headless=True)
    settings = options.settings
    directory = model_directory(chosen.name or settings.model or "nano", options.places)
    longest = read_config(directory).max_position_embeddings
    context = settings.ctx or default_context(longest)
    if context > longest:
        raise UsageError(f"--ctx {context:,} is more than the {longest:,} tokens it can take")
    plan = plan_model(directory, context)
    if chosen.json:
        print_json(_plan_figures(plan))
    else:
        _print_plan(plan)
    return 0 if plan.fits else 2


def _plan_figures(plan: Plan) -> dict[str, Any]:
    return {
        "directory": os.fspath(plan.directory),
        "context": plan.context,
        "weights": plan.weights,
        "kv": plan.kv,
        "kv_per_token": plan.kv_token,
        "work": plan.working,
        "needed": plan.needed,
        "machine_memory": plan.machine.memory,
        "usable": plan.machine.usable,
        "fits": plan.fits,
        "largest_context": plan.largest_context,
        "sysctl": plan.sysctl,
    }


def _print_plan(plan: Plan) -> None:
    rows = [
        ("weights", shown_size(plan.weights)),
        (f"KV of {plan.context:,}", f"{shown_size(plan.kv)}  ({plan.kv_token:,} bytes a token)"),
        ("work", f"{shown_size(plan.working)}  (a chunk of the prompt, or a layer while loading)"),
        ("needed", shown_size(plan.needed)),
        ("usable", f"{shown_size(plan.machine.usable)} of {shown_size(plan.machine.memory)}"),
        ("largest context", f"{plan.largest_context:,} tokens"),
    ]
    for key, value in rows:
        print(f"{key:<18} {value}")
    print("it fits" if plan.fits else visible(plan.refusal() or ""))


def _model_use(chosen: argparse.Namespace) -> int:
    """Make a model the one that is used where none is named: `model` in config.toml."""
    from ds4_agent.engine.weights.checkpoint import plan_model

    if not chosen.name:
        raise UsageError("model use needs a name: nano, a pulled OWNER/NAME, or a directory")
    places = options_from(chosen, is_headless=True).places
    directory = model_directory(chosen.name, places)
    plan = plan_model(directory, 0)  # it is a model, and all its files are there
    name = "nano" if chosen.name == "nano" else os.fspath(directory.resolve())
    config_file = places.config_file

    def put(document: Any) -> bool:
        document["model"] = name
        return True

    change_config(config_file, put, "name the model in")
    if chosen.json:
        print_json({"model": name, "config": os.fspath(config_file), "fits": plan.fits})
    else:
        print(f"{visible(name)} is the model now ({visible(os.fspath(config_file))})")
        if not plan.fits:
            print(visible(plan.refusal() or ""))
    return 0
