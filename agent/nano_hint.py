"""What a first run says of the bundled model: what it can do, and which real one fits this machine.

In: the machine's memory. Out: two lines of at most 78 columns.
"""

__all__ = ["nano_hint"]

GIB = 1 << 30
# What a machine sold with 96 or 192 GB says that it has, less what its firmware keeps.
TWO_BITS, LOSSLESS = 92 * GIB, 184 * GIB


def nano_hint(memory: int) -> str:
    """`memory`: bytes of the machine; 0: unknown. The layouts of V4 Flash open, which is tested on
    tiny models; nobody has run its real weights with this yet, so the hint says untried."""
    size = f"{round(memory / GIB)} GB" if memory else "this machine"
    if memory >= LOSSLESS:
        real = f"{size} holds V4 Flash in MXFP4 (untried)"
    elif memory >= TWO_BITS:
        real = f"{size} holds V4 Flash in 2 bits (untried)"
    elif memory:
        real = f"{size} holds small ones; V4 Flash needs 96 GB"
    else:
        real = "V4 Flash needs 96 GB"
    return (
        "this is the bundled nano model: replaces, renames, reads, creates, runs tests\n"
        f"real: --model DIR or model pull; {real}"
    )
