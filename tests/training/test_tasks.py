"""The task generator: what is held out stays out, every call is one the product can make, and
every result is what the tool returns."""

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ds4_agent.engine.dsml.parse import Parser
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.tools.registry import execute
from ds4_agent.tools.schema import validate
from training.tasks.commands import script_project
from training.tasks.copying import copy
from training.tasks.families import FAMILIES, TESTS, TaskSource, shared_pool
from training.tasks.generate import TOKENIZER, make_shard
from training.tasks.phrasing import Phrasing, choose
from training.tasks.play import Player, context
from training.tasks.render import CHOSEN, CONTEXT, Renderer
from training.tasks.skeletons import FRAMES, SYNONYMS, Phrases
from training.tasks.vocabulary import COMMON, Words, is_held

QUICK = [name for name in FAMILIES if name != TESTS]  # a real test run takes a third of a second


@pytest.fixture
def player(tmp_path: Path) -> Iterator[Player]:
    player = Player(tmp_path / "scratch")
    player.scratch.mkdir()
    yield player
    player.close()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(TOKENIZER)


def test_training_words_are_never_held_out() -> None:
    words = Words(random.Random(1))
    assert not any(is_held(words.word()) for _ in range(3000))


def test_evaluation_words_are_all_held_out() -> None:
    words = Words(random.Random(1), held=True)
    assert all(is_held(words.word()) for _ in range(3000))


def test_held_words_never_stand_in_training_calls(player: Player) -> None:
    source = TaskSource(2, shared_pool(8))
    held_common = {word for word in COMMON if is_held(word) and len(word) > 4}
    for _ in range(150):
        task = source.task("rename")
        call = next(task.asks[0].policy())
        for name in (call.arguments["old"], call.arguments["new"]):
            parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
            assert not {part.lower() for part in parts} & held_common


def held_pieces() -> set[str]:
    """Literal runs of words of every held-out frame and synonym, without their choices."""
    frames = [frame for phrases in FRAMES.values() for frame in phrases.held]
    synonyms = [word for phrases in SYNONYMS.values() for word in phrases.held]
    runs = [run for text in frames + synonyms for run in re.split(r"[\[\]|<>{}!]", text)]
    return {run.strip().lower() for run in runs if len(run.split()) >= 4}


def test_held_out_frames_never_occur_in_training() -> None:
    source = TaskSource(3, shared_pool(8))
    requests = [a.text.lower() for _ in range(1500) for a in source.task().asks]
    pieces = held_pieces()
    assert len(pieces) > 15
    assert not [(p, r) for p in pieces for r in requests if p in r]


def test_frames_and_synonyms_are_held_out_or_not() -> None:
    for phrases in (*FRAMES.values(), *SYNONYMS.values()):
        assert not set(phrases.held) & set(phrases.train)


def test_every_held_out_request_has_something_held_out() -> None:
    frames = Phrases(("!<replace> {a}",), ("{a} must go",))
    held = Phrasing(random.Random(4), held=True)
    unseen = SYNONYMS["replace"].held
    for _ in range(200):
        text = held.request(frames, {"a": "X"}, plain=True)
        assert "must go" in text or any(word in text for word in unseen)


def test_texts_to_copy_stay_unchanged_in_requests() -> None:
    phrasing = Phrasing(random.Random(5))
    texts = {"a": '"x  = [a|b] ."', "b": "'<in> {f}'", "f": "src/a b.py"}
    for _ in range(300):
        text = phrasing.request(FRAMES["replace"], texts)
        assert all(value in text for value in texts.values())


def test_choices_are_all_made() -> None:
    assert choose(random.Random(6), "[a|[b|c]]d") in {"ad", "bd", "cd"}


@pytest.mark.parametrize("family", QUICK)
def test_calls_are_valid_and_results_are_real(
    family: str, player: Player, tokenizer: Tokenizer
) -> None:
    renderer = Renderer(tokenizer, player.tools)
    schemas = {tool.name: tool.schema() for tool in player.tools}
    source = TaskSource(7, shared_pool(8))
    for _ in range(3):
        task = source.task(family)
        episode = player.play(task)
        session = context(player.prepared(task))
        for at, turn in enumerate(episode.turns):
            if turn.call is None:
                continue
            parameters = schemas[turn.call.name]["parameters"]
            validate(turn.call.name, "", parameters, turn.call.arguments)
            ids = tokenizer.encode(renderer.spoken(turn))
            parser = Parser(tokenizer, thinking=False, schemas=schemas)
            for token_id in ids:
                parser.feed(token_id)
            parsed = parser.finish("stop")
            assert [(c.name, c.arguments) for c in parsed.calls] == [
                (turn.call.name, dict(turn.call.arguments))
            ]
            again = execute(player.tools, turn.call.name, turn.call.arguments, session)
            if turn.call.name != "git":  # a commit's hash holds the time
                assert again.content == episode.turns[at + 1].text


def test_grammar_allows_and_marks_every_turn(player: Player, tokenizer: Tokenizer) -> None:
    renderer = Renderer(tokenizer, player.tools)
    source = TaskSource(8, shared_pool(8))
    sequence = renderer.episode(player.play(source.task("replace")))
    end = tokenizer.control("</think>")
    first = [i + 1 for i, token_id in enumerate(sequence.ids) if token_id == end]
    assert all(sequence.loss[i] == CHOSEN for i in first)
    assert sequence.loss[0] == CONTEXT
    assert len(sequence.loss) == len(sequence.ids)


def test_a_replacement_is_asked_for_only_where_the_text_occurs_once() -> None:
    source = TaskSource(9, shared_pool(8))
    for _ in range(200):
        task = source.task("replace")
        call = next(task.asks[0].policy())
        content = task.files[call.arguments["path"]]
        assert content.count(call.arguments["old"]) == 1


def test_what_is_copied_stands_in_the_request() -> None:
    source = TaskSource(10, shared_pool(8))
    for family in ("replace", "rename", "read", "create", "run command", "search"):
        for _ in range(60):
            task = source.task(family)
            call = next(task.asks[0].policy())
            for value in call.arguments.values():
                assert not isinstance(value, str) or value in task.asks[0].text


def test_same_seed_same_shard(tmp_path: Path, tokenizer: Tokenizer) -> None:
    made = []
    for number in range(2):
        player = Player(tmp_path / str(number))
        player.scratch.mkdir()
        scripts = tuple(script_project(Words(random.Random(n))) for n in range(4))
        pool = replace(shared_pool(8), projects=scripts)  # no clock in their output
        shard = make_shard(
            player, Renderer(tokenizer, player.tools), pool, 11, 60, held=False, copies=0.1
        )
        texts = [tokenizer.decode(sequence.ids) for sequence in shard.sequences]
        made.append([re.sub(r"\b[0-9a-f]{7}\b", "hash", text) for text in texts])  # of a commit
    assert made[0] == made[1]


def test_copies_are_copies() -> None:
    words = Words(random.Random(12))
    for _ in range(100):
        request, answer = copy(words).turns
        assert all(line in request.text for line in answer.text.split("\n"))
