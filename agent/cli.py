"""The command line: `ds4-agent`.

In: arguments. Out: the exit code. Loads neither MLX nor Textual to say `--help`; everything heavy
is imported by the command that needs it. Every error a user can cause ends here in one line.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from errno import EIO, ENOSPC, EPIPE
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ds4_agent.agent.choose import choose, in_place
from ds4_agent.agent.config import CHOICES, load_settings
from ds4_agent.agent.errors import StdoutError, UsageError

if TYPE_CHECKING:
    from ds4_agent.agent.build import Asks, RunOptions
    from ds4_agent.agent.choose import Choice
    from ds4_agent.agent.places import Places

__all__ = ["main"]

SUBCOMMANDS = ("batch", "cache", "doctor", "sessions", "tools", "config", "model")
DESCRIPTION = "A coding agent in the terminal, its language model in the same process."
EPILOG = """\
other commands:
  ds4-agent batch GLOB… -p PROMPT       the same prompt over many files
  ds4-agent doctor                      what the engine runs on, what is installed, where things are
  ds4-agent doctor --model [NAME]       is a model computed rightly here, how fast: a report
  ds4-agent sessions list|show|search|export|fork|rename|rm    earlier sessions
  ds4-agent cache list|stats|verify|prune|clear    what is kept on disk so as to compute it once
  ds4-agent tools list|new|check|run    the tools the model has, and tools of your own
  ds4-agent config show|path|prompt     settings and where they come from; the prompt, in tokens
  ds4-agent model list|info|plan|convert|verify|use    models; the memory one takes; making and
    checking quantised ones
  ds4-agent model pull OWNER/NAME       download one from the Hugging Face hub

permission modes: plan reads only; ask asks before changing a file or running a command (without a
screen and without --approver it refuses); accept-edits asks for commands only; auto asks nothing;
deny refuses what no --allowed-tools rule allows. The default is ask on the screen. With -p it is
auto in a git repository, where changes can be taken back, and ask anywhere else.

exit codes: 0 finished, 1 usage or configuration (a prompt larger than the context too),
2 model, disk or engine, 3 stopped by a limit, 4 aborted, 5 batch: some items failed,
130 SIGINT, 143 SIGTERM
"""
SETTINGS = (
    "model", "prompt_profile", "think", "ctx", "max_tokens", "max_turns", "time_limit", "temp",
    "top_p", "min_p", "seed", "permission_mode", "allowed_tools", "disallowed_tools", "approver",
    "append_system_prompt", "speculate",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's); returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    verbose = "-v" in arguments or "--verbose" in arguments
    try:
        return _told(arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # the one place where errors are shown
        from ds4_agent.agent.headless import report

        failed = _failed_write(error)
        if failed is not None:
            _say_no_more()
            is_run = any(word.startswith(("-p", "--print")) for word in arguments)
            if isinstance(failed, BrokenPipeError) and not is_run:
                return 0  # `tools list | head -1`: the reader has what it wanted
            error = StdoutError(f"cannot write to standard output: {failed.strerror or failed}")
        return report(error, verbose=verbose)


def _told(arguments: Sequence[str]) -> int:
    """What was printed is out, while an error can still be told: `--help` ends by an exception."""
    try:
        code = _dispatch(arguments)
    except SystemExit:
        _flush()
        raise
    _flush()
    return code


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _failed_write(error: Exception) -> OSError | None:
    """The failed write to stdout behind an error: one to a file would tell its name."""
    cause = error.__cause__ if isinstance(error, StdoutError) else error
    if isinstance(cause, OSError) and cause.filename is None:
        return cause if cause.errno in (EPIPE, ENOSPC, EIO) else None
    return None


def _say_no_more() -> None:
    """What is still buffered goes nowhere, instead of failing again at exit."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one line, exit code 1."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options every command understands."""
    parser.add_argument("-C", "--cd", metavar="DIR", type=Path, help="work in DIR")
    parser.add_argument("-v", "--verbose", action="store_true", help="show reasoning, tracebacks")


def options_from(chosen: argparse.Namespace, *, is_headless: bool) -> RunOptions:
    """What an agent is built from. Raises UsageError."""
    from ds4_agent.agent.build import RunOptions
    from ds4_agent.agent.places import find_places

    places = find_places(os.environ)
    flags = {name: getattr(chosen, name, None) for name in SETTINGS}
    settings, _ = load_settings(flags, os.environ, places.config_file)
    directory = existing_directory(chosen.cd or Path())
    choice, asks = _session(chosen, places, directory, can_ask=not is_headless)
    if choice is not None and chosen.cd is None:
        directory = in_place(choice, directory)
    return RunOptions(
        settings=settings,
        directory=directory,
        places=places,
        resumes=choice,
        asks_for=asks,
        add_dirs=tuple(existing_directory(path) for path in getattr(chosen, "add_dir", None) or ()),
        is_headless=is_headless,
        yolo=getattr(chosen, "yolo", False),
        trusts=getattr(chosen, "trust", False),
        typed_rules=(*(flags["allowed_tools"] or ()), *(flags["disallowed_tools"] or ())),
        keeps_log=not getattr(chosen, "no_session", False),
        keeps_states=not getattr(chosen, "no_cache", False),
        uses_grammar=not getattr(chosen, "no_grammar", False),
        approvals_log=getattr(chosen, "approvals_log", None),
        trace_tokens=getattr(chosen, "trace_tokens", None),
    )


def _session(
    chosen: argparse.Namespace, places: Places, directory: Path, *, can_ask: bool
) -> tuple[Choice | None, Asks]:
    """The session that goes on, or what the user is to be asked for. Raises UsageError."""
    continues, resume, fork = (
        getattr(chosen, name, None) for name in ("continues", "resume", "fork")
    )
    if not continues and resume is None and fork is None:
        return None, ""
    choice = choose(
        places.sessions,
        directory,
        continues=bool(continues),
        resume=resume,
        fork=fork,
        can_ask=can_ask,
    )
    return choice, "" if choice is not None else "resume" if fork is None else "fork"


def existing_directory(path: Path) -> Path:
    """The absolute path of a directory. Raises UsageError."""
    try:
        if path.is_dir():
            return path.absolute()
    except FileNotFoundError:  # the shell stands in a directory that was removed
        raise UsageError("the current directory does not exist any more; use -C DIR") from None
    raise UsageError(f"there is no directory {path}")


def _dispatch(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] in SUBCOMMANDS:
        from ds4_agent.agent.commands import run_command

        return run_command(arguments[0], arguments[1:])
    chosen = _run_parser().parse_intermixed_args(arguments)
    if chosen.version:
        from ds4_agent import __version__

        print(f"ds4-agent {__version__}")
        return 0
    if chosen.undo:
        return _undo(chosen)
    if chosen.print is None:
        return _interactive(chosen)
    return _headless(chosen)


def _headless(chosen: argparse.Namespace) -> int:
    from ds4_agent.agent.headless import HeadlessRequest, run_headless

    words = [word for word in (chosen.print, *chosen.prompt) if word]
    options = options_from(chosen, is_headless=True)
    file = chosen.output
    return run_headless(HeadlessRequest(options, words, chosen.output_format, file, chosen.verbose))


def _undo(chosen: argparse.Namespace) -> int:
    from ds4_agent.agent.undo import run_undo

    if chosen.print is not None or chosen.prompt:
        raise UsageError("--undo takes no prompt: it takes back files and ends")
    return run_undo(options_from(chosen, is_headless=True))


def _interactive(chosen: argparse.Namespace) -> int:
    """The screen, or the plain prompt: they are started by name, so that nothing imports them."""
    import importlib

    from ds4_agent.agent.prompt_input import compose_prompt

    if chosen.output_format != "text" or chosen.output is not None:
        raise UsageError("--output-format and -o go with -p")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the screen needs a terminal; for one prompt without it use -p PROMPT")
    options = options_from(chosen, is_headless=False)
    prompt = compose_prompt(chosen.prompt, options.directory, "") if chosen.prompt else ""
    front = importlib.import_module("ds4_agent.tui.plain" if chosen.plain else "ds4_agent.tui.app")
    return int(front.run(options, prompt))


def _run_parser() -> Parser:
    parser = Parser(
        prog="ds4-agent",
        usage="ds4-agent [options] [PROMPT] [@file …]\n       ds4-agent -p PROMPT [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("prompt", nargs="*", metavar="PROMPT", help="sent first; @file adds a file's text")
    add("-p", "--print", nargs="?", const="", metavar="PROMPT",
        help="no screen: one prompt (here or on stdin), the answer on stdout, exit")  # fmt: skip
    add("-c", "--continue", dest="continues", action="store_true",
        help="go on with the latest session of this directory")  # fmt: skip
    add("-r", "--resume", nargs="?", const="", metavar="ID", help="go on with a session: its id, "
        "the beginning of it, or its title; without one choose from a list")  # fmt: skip
    add("--fork", nargs="?", const="", metavar="ID", help="go on in a copy of a session, which "
        "stays as it is; also with -c or -r ID")  # fmt: skip
    add("--undo", action="store_true", help="take back what the last turn of the latest session "
        "here did to files, and exit")  # fmt: skip
    add("--plain", action="store_true", help="a line prompt instead of the screen")
    add("--version", "-V", action="store_true", help="print the version and exit")
    add_common(parser)
    add_model_options(parser)
    _add_permission_options(parser)
    _add_output_options(parser)
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("model").add_argument
    add("--model", metavar="NAME", help="nano (default), a pulled OWNER/NAME, "
        "a checkpoint directory, scripted:FILE")  # fmt: skip
    add("--prompt-profile", choices=CHOICES["prompt_profile"],
        help="default: what suits the model and its context")  # fmt: skip
    add("--think", choices=CHOICES["think"], help="reasoning effort (default: the model's own)")
    add("--ctx", type=int, metavar="N", help="tokens of context")
    add("--max-tokens", type=int, metavar="N", help="output tokens the prompt may use")
    add("--max-turns", type=int, metavar="N", help="model steps the prompt may use")
    add("--time-limit", type=float, metavar="S", help="seconds the prompt may use")
    add("--temp", type=float, metavar="T", help="temperature; 0 is greedy")
    add("--top-p", type=float, metavar="P", help="nucleus sampling")
    add("--min-p", type=float, metavar="P", help="drop ids less likely than P times the likeliest")
    add("--seed", type=int, metavar="N", help="repeatable sampling")
    add("--speculate", choices=CHOICES["speculate"],
        help="compute guessed ids ahead: where it pays (default), always, never")  # fmt: skip
    add("--append-system-prompt", metavar="TEXT", help="your own words below the system prompt")
    add("--no-grammar", action="store_true", help="let the model write malformed calls")


def _add_permission_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("permissions").add_argument
    add("--permission-mode", choices=CHOICES["permission_mode"], help="see below")
    add("--yolo", action="store_true", help="allow everything that no rule forbids")
    add("--allowed-tools", "--allowedTools", action="append", metavar="RULES",
        help='never ask for these: Tool or Tool(pattern), e.g. "edit,bash(git log:*)"')  # fmt: skip
    add("--disallowed-tools", "--disallowedTools", action="append", metavar="RULES",
        help="refuse these, whatever else allows them")  # fmt: skip
    add("--approver", metavar="CMD", help="ask CMD: JSON on stdin, answers allow, allow-session, "
        "or deny [reason]")  # fmt: skip
    add("--trust", action="store_true",
        help="from now on load what this repository brings that can run (.ds4/tools)")  # fmt: skip
    add("--add-dir", action="append", type=Path, metavar="DIR", help="work in DIR as well")


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("output and records").add_argument
    add("--output-format", choices=("text", "json", "stream-json"), default="text")
    add("-o", dest="output", type=Path, metavar="FILE", help="write the answer to FILE as well "
        "(json formats: the result object)")  # fmt: skip
    add("--no-session", action="store_true", help="keep no log of this session")
    add("--no-cache", action="store_true", help="read and keep no states of the model on disk")
    add("--approvals-log", type=Path, metavar="FILE", help="append each request and decision")
    add("--trace-tokens", type=Path, metavar="FILE", help="write every token id and its kind")


if __name__ == "__main__":
    sys.exit(main())
