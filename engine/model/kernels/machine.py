"""The kernels of this machine. In: a configuration, the file of verdicts. Out: `Chosen`. Where
there is no Metal it answers at once and imports nothing of what tries and starts kernels.
"""

from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from ds4_agent.engine.model.config import ModelConfig
from ds4_agent.engine.model.kernels.chosen import Chosen
from ds4_agent.engine.model.operations import PURE
from ds4_agent.engine.model.tiles import on_cpu

__all__ = ["choose_for_machine"]


def choose_for_machine(
    config: ModelConfig, dtype: mx.Dtype, path: Path | None, *, again: bool = False
) -> Chosen:
    """The kernels of this machine. `path`: where verdicts are kept; `again`: try whatever is known.

    Runs on the engine thread, for a second or two the first time on a machine.
    """
    if on_cpu() or not mx.metal.is_available():
        return Chosen(PURE, ())
    import platform

    from ds4_agent.engine.model.kernels.choose import choose
    from ds4_agent.engine.model.kernels.launch import metal_launch
    from ds4_agent.engine.model.kernels.trials import kernels
    from ds4_agent.engine.model.kernels.verdicts import Verdicts

    info = mx.device_info()
    names = (info.get("device_name", ""), info.get("architecture", ""), platform.platform())
    machine = f"{', '.join(map(str, names))}, mlx {version('mlx')}"
    return choose(kernels(metal_launch), config, dtype, Verdicts(path, machine), again=again)
