"""Who accepts edits has not accepted that something runs."""

import pytest

from ds4_agent.tools.registry import builtin_tools

CHANGES = {tool.name: tool for tool in builtin_tools() if tool.name in ("write", "edit")}


@pytest.mark.parametrize("name", sorted(CHANGES))
@pytest.mark.parametrize(
    ("path", "effect"),
    [
        ("src/client.py", "edit"),
        ("docs/.ds4.md", "edit"),
        (".ds4/tools/count.py", "execute"),
        ("src/../.ds4/tools/count.py", "execute"),
        ("./.DS4/hooks.toml", "execute"),
        ("/repo/.ds4/tools/count.py", "execute"),
    ],
)
def test_a_change_of_what_will_run_counts_as_running(name: str, path: str, effect: str) -> None:
    assert CHANGES[name].effect_of({"path": path}) == effect
