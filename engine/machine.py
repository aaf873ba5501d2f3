"""How much memory a model may take on this machine. In: what the operating system and MLX say. Out:
bytes, in a `Machine`. It changes no setting.
"""

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Machine", "system_memory", "this_machine"]

_CGROUP = Path("/sys/fs/cgroup/memory.max")
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Machine:
    """Bytes. `usable` is what a model can be given now without swapping."""

    memory: int  # of the device that computes
    usable: int
    is_mac: bool = False  # `usable` is the limit of wired memory, which its owner can raise


def this_machine() -> Machine:
    """Asks MLX about a GPU, and the operating system where a CPU computes."""
    import mlx.core as mx

    if mx.default_device().type != mx.DeviceType.cpu:
        info = mx.device_info()
        if mx.metal.is_available():
            memory = int(info["memory_size"])
            usable = int(info["max_recommended_working_set_size"])
            return Machine(memory, min(usable, memory), is_mac=True)
        total = int(info.get("total_memory", 0))
        if total:
            return Machine(total, int(info.get("free_memory", total)))
    memory, limit = system_memory(), _number(_CGROUP)
    memory = memory if limit is None else min(memory, limit)
    return Machine(memory, min(memory, _available(memory)))


def system_memory() -> int:
    """Bytes of memory the system has; 0 where it does not say. Needs no MLX."""
    try:
        return max(0, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError):
        return 0


def _number(path: Path) -> int | None:
    """The number a file of the kernel holds; None where there is none ("max")."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _available(otherwise: int) -> int:
    """Linux's own estimate of what can be taken without swapping."""
    try:
        for line in _MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return otherwise
