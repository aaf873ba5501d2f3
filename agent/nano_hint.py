"""What a first run says of the bundled model: what it can do, and which real one fits this machine.

In: the machine's memory. Out: two lines of at most 78 columns.
"""

import os

__all__ = ["machine_memory", "nano_hint"]

GIB = 1 << 30
# What a machine sold with 96 or 192 GB says that it has, less what its firmware keeps.
TWO_BITS, LOSSLESS = 92 * GIB, 184 * GIB


def machine_memory() -> int:
    """Bytes of memory; 0 where the system does not say."""
    try:
        return max(0, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError):
        return 0


def nano_hint(memory: int) -> str:
    """What can be loaded today comes first: of V4 Flash nothing can yet (README, by memory)."""
    size = f"{round(memory / GIB)} GB" if memory else "this machine"
    if memory >= LOSSLESS:
        real = f"{size} holds V4 Flash in MXFP4 (later)"
    elif memory >= TWO_BITS:
        real = f"{size} holds V4 Flash in 2 bits (later)"
    elif memory:
        real = f"{size} holds small ones; V4 Flash needs 96 GB"
    else:
        real = "V4 Flash needs 96 GB"
    return (
        "this is the bundled nano model: replaces, renames, reads, creates, runs tests\n"
        f"real: --model DIR, V4 in bf16; {real}"
    )
