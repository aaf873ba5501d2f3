"""Settings: what is set where wins, and a wrong one says which file and which key."""

from pathlib import Path

import pytest

from ds4_agent.agent.config import Settings, load_settings
from ds4_agent.agent.errors import UsageError
from ds4_agent.agent.places import find_places


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_without_anything_set_all_is_default(config: Path) -> None:
    assert load_settings({}, {}, config) == (Settings(), {})


def test_the_command_line_wins_over_the_environment_over_the_file(config: Path) -> None:
    config.write_text('model = "a"\nthink = "high"\ntemp = 1\n')
    settings, origins = load_settings({"temp": 0.5, "seed": None}, {"DS4_MODEL": "b"}, config)
    assert (settings.model, settings.think, settings.temp, settings.seed) == (
        "b",
        "high",
        0.5,
        None,
    )
    assert origins == {"model": "DS4_MODEL", "think": str(config), "temp": "command line"}


def test_rules_of_both_places_are_kept(config: Path) -> None:
    config.write_text('disallowed_tools = ["bash"]\n')
    settings, _ = load_settings({"disallowed_tools": ["write"]}, {}, config)
    assert settings.disallowed_tools == ("bash", "write")


def test_the_table_of_permissions_adds_to_the_rules_of_the_flags(config: Path) -> None:
    config.write_text(
        'allowed_tools = "read"\n[permissions]\n'
        'allow = ["edit", "bash(make test)"]\nask = ["bash(git push:*)"]\ndeny = ["bash(rm:*)"]\n'
    )
    flags = {"allowed_tools": ["write"], "disallowed_tools": None}
    settings, origins = load_settings(flags, {}, config)
    assert settings.allowed_tools == ("read", "edit", "bash(make test)", "write")
    assert settings.asked_tools == ("bash(git push:*)",)
    assert settings.disallowed_tools == ("bash(rm:*)",)
    assert origins["asked_tools"] == str(config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle = 'x'", "unknown setting `modle`"),
        ("model = 3", "model must be a text"),
        ("ctx = 'many'", "ctx must be a whole number"),
        ("ctx = true", "ctx must be a whole number"),
        ("ctx = 0", "ctx must be at least 1"),
        ("temp = inf", "temp must be a number"),
        ("top_p = 1.5", "top_p must be between 0 and 1"),
        ("think = 'hard'", "think is one of off, low, high, max"),
        ("allowed_tools = [1]", "allowed_tools must be a list of texts"),
        ("model = ", "not valid TOML"),
        ("permissions = 3", "[permissions] must be a table"),
        ("[permissions]\nalow = []", "[permissions] has no `alow`; there are allow, ask, deny"),
        ("[permissions]\nask = 'edit'", "[permissions] ask must be a list of texts"),
        ("cache = 3", "[cache] must be a table with `budget`"),
        ("[cache]\nsize = 3", "[cache] must be a table with `budget`"),
        ("[cache]\nbudget = 'much'", '[cache] budget must be like "32GB" or a number'),
        ("[cache]\nbudget = true", '[cache] budget must be like "32GB" or a number'),
        ("[cache]\nbudget = -1", "cache_budget must be at least 0"),
    ],
)
def test_a_wrong_setting_names_its_file_and_key(config: Path, text: str, words: str) -> None:
    config.write_text(text)
    with pytest.raises(UsageError) as error:
        load_settings({}, {}, config)
    assert str(config) in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("budget", "size"),
    [
        ("5000", 5000),
        ('"5000"', 5000),
        ('"500MB"', 500 * 10**6),
        ('"32 GB"', 32 * 10**9),
        ('"1.5tb"', 1_500 * 10**9),
        ('"16GiB"', 16 << 30),
        ('"2k"', 2000),
    ],
)
def test_the_budget_of_the_cache_is_in_bytes_or_has_a_unit(
    config: Path, budget: str, size: int
) -> None:
    config.write_text(f"[cache]\nbudget = {budget}\n")
    settings, origins = load_settings({}, {}, config)
    assert settings.cache_budget == size
    assert origins == {"cache_budget": str(config)}


def test_ds4_home_holds_everything(tmp_path: Path) -> None:
    places = find_places({"DS4_HOME": str(tmp_path)})
    assert places.config_file == tmp_path / "config/config.toml"
    assert places.sessions == tmp_path / "data/sessions"
    assert (places.cache, places.state) == (tmp_path / "cache", tmp_path / "state")


def test_without_ds4_home_the_places_are_the_platforms() -> None:
    places = find_places({})
    assert places.config.name == places.data.name == "ds4-agent"
    assert len({places.config, places.data, places.cache, places.state}) >= 1
