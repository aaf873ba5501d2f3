"""The process `ds4-agent` (and `python -m ds4_agent`): nothing but the command line and its end.

Out: the exit code. Imports next to nothing before Ctrl+C is a quiet end, and leaves in the same
way: neither a traceback while Python still loads, nor one while it puts its things away.
"""

import os
import signal
import sys
from types import FrameType


def start() -> int:
    """Run this process's command line; returns the exit code."""
    signal.signal(signal.SIGINT, _leave)
    _fill_standard_descriptors()
    from ds4_agent.agent.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return main()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, _leave)


def _fill_standard_descriptors() -> None:
    """Closed ones (`2>&-`) lead nowhere, so that no file that is opened later gets their numbers
    and with them what others print."""
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(number, True)
    os.close(number)


def _leave(signum: int, frame: FrameType | None) -> None:
    os._exit(128 + signum)


if __name__ == "__main__":
    sys.exit(start())
