"""Where ds4-agent keeps things: configuration, data, cache and state of this user.

In: the environment. Out: four directories; nothing is created here.
`DS4_HOME` puts all four under one directory; without it the platform's own places are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

APP = "ds4-agent"


@dataclass(frozen=True)
class Places:
    """Absolute directories; none of them needs to exist."""

    config: Path  # config.toml, AGENTS.md, tools/
    data: Path  # sessions/, models/
    cache: Path  # may be deleted at any time
    state: Path  # trusted.json

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def memory_file(self) -> Path:
        return self.config / "AGENTS.md"

    @property
    def tools(self) -> Path:
        return self.config / "tools"

    @property
    def trusted_file(self) -> Path:
        return self.state / "trusted.json"

    @property
    def kv(self) -> Path:
        """The states of models (`engine.kvstore`)."""
        return self.cache / "kv"

    @property
    def kernels(self) -> Path:
        """Which kernels this machine can be given (`engine.model.kernels`)."""
        return self.cache / "kernels.json"

    @property
    def sessions(self) -> Path:
        return self.data / "sessions"

    @property
    def models(self) -> Path:
        """Checkpoints that were pulled, each in a directory OWNER--NAME."""
        return self.data / "models"


def find_places(environment: Mapping[str, str]) -> Places:
    """The places for this environment. An empty variable counts as unset, as XDG says."""
    home = environment.get("DS4_HOME")
    if home:
        base = Path(home).expanduser().absolute()
        return Places(base / "config", base / "data", base / "cache", base / "state")
    # platformdirs knows macOS and XDG; imported here because DS4_HOME needs none of it.
    from platformdirs import PlatformDirs

    dirs = PlatformDirs(APP, appauthor=False)
    return Places(
        Path(dirs.user_config_dir),
        Path(dirs.user_data_dir),
        Path(dirs.user_cache_dir),
        Path(dirs.user_state_dir),
    )
