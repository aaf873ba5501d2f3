"""The scripted engine: plays exact steps with every key of the contract, and fails by name."""

import json
import subprocess
import sys
import threading
import time

import pytest

from ds4_agent.engine.api import Sampling
from ds4_agent.engine.dsml.encode import (
    assistant_header,
    system_segments,
    tool_result_segments,
    user_segments,
)
from ds4_agent.engine.errors import (
    Cancelled,
    ContextFullError,
    EngineError,
    ScriptError,
    TokenRangeError,
)
from ds4_agent.engine.open import open_engine

CALL = (
    "Reading.\n\n<｜DSML｜tool_calls>\n"
    '<｜DSML｜invoke name="read">\n<｜DSML｜parameter name="path" string="true">a.py'
    "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>"
)


@pytest.fixture
def script(tmp_path):
    """Write the steps (objects, or raw lines) and open the engine that plays them."""

    def write(*steps, **options):
        path = tmp_path / "script.jsonl"
        lines = [step if isinstance(step, str) else json.dumps(step) for step in steps]
        path.write_text("\n".join(lines), encoding="utf-8")
        return open_engine(f"scripted:{path}", **options)

    return write


def play(context, max_tokens=1000, cancel=None):
    tokens = context.sample(sampling=Sampling(), grammar=None, max_tokens=max_tokens, cancel=cancel)
    return [token.id for token in tokens]


def prompt(engine, text):
    return engine.tokenizer.encode([*user_segments(text), *assistant_header(thinking=False)])


def results(engine, *texts):
    return engine.tokenizer.encode(
        [*tool_result_segments(texts), *assistant_header(thinking=False)]
    )


def eos(engine):
    return engine.tokenizer.control("<｜end▁of▁sentence｜>")


# What a step plays


def test_text_is_played_with_its_control_tokens_and_the_end_token(script):
    engine = script({"text": CALL})
    ids = play(engine.new_context())

    assert engine.tokenizer.decode(ids) == CALL + "<｜end▁of▁sentence｜>"
    assert ids.count(engine.tokenizer.control("｜DSML｜")) == 6
    assert ids[-1] == eos(engine)


def test_plain_text_plays_no_control_id(script):
    engine = script({"text": CALL, "plain": True})
    ids = play(engine.new_context())

    assert engine.tokenizer.control_ids.isdisjoint(ids[:-1])
    assert engine.tokenizer.decode(ids[:-1]) == CALL


def test_ids_are_played_exactly(script):
    assert play(script({"ids": [9, 8, 7]}).new_context()) == [9, 8, 7, 1]


def test_ids_that_end_in_the_end_token_get_no_second_one(script):
    assert play(script({"ids": [9, 1]}).new_context()) == [9, 1]


def test_a_malformed_call_is_played_as_it_stands(script):
    broken = CALL.replace("</｜DSML｜parameter>", "").replace("tool_calls", "toolcalls")
    engine = script({"text": broken})

    assert engine.tokenizer.decode(play(engine.new_context())[:-1]) == broken


def test_finish_length_stops_without_the_end_token(script):
    assert play(script({"ids": [9, 8], "finish": "length"}).new_context()) == [9, 8]


def test_max_tokens_cuts_a_step(script):
    assert play(script({"ids": [9, 8, 7]}).new_context(), max_tokens=2) == [9, 8]


def test_played_tokens_are_in_the_context_when_they_are_yielded(script):
    context = script({"ids": [9, 8]}).new_context()
    context.extend([5])
    seen = []
    for _ in context.sample(sampling=Sampling(), grammar=None, max_tokens=9):
        seen.append(list(context.tokens))

    assert seen == [[5, 9], [5, 9, 8], [5, 9, 8, 1]]


def test_delay_and_chunk_pace_a_step(script):
    context = script({"ids": [9] * 5, "delay_ms": 20, "chunk": 2}).new_context()
    began = time.monotonic()
    play(context)

    assert 0.06 <= time.monotonic() - began < 10  # three pauses: 2 + 2 + 2 ids


def test_a_cancel_ends_a_delay_at_once_and_keeps_what_was_played(script):
    context = script({"ids": [9, 8], "delay_ms": 60_000, "chunk": 1}).new_context()
    cancel = threading.Event()
    threading.Timer(0.05, cancel.set).start()

    with pytest.raises(Cancelled):
        play(context, cancel=cancel)
    assert list(context.tokens) == []


# expect


def test_expect_looks_at_the_newest_prompt(script):
    engine = script({"text": "ok", "expect": "^fix it$"})
    context = engine.new_context()
    context.extend(engine.tokenizer.encode(system_segments("You are.", [])))
    context.extend(prompt(engine, "fix it"))

    assert play(context)


def test_expect_looks_at_each_of_the_newest_tool_results(script):
    engine = script({"text": CALL}, {"text": "ok", "expect": r"^exit code 0$"})
    context = engine.new_context()
    context.extend(prompt(engine, "run"))
    play(context)
    context.extend(results(engine, "a.py is empty", "exit code 0"))

    assert play(context)


def test_expect_does_not_look_at_anything_older(script):
    engine = script({"text": "hello"}, {"text": "ok", "expect": "hello|first|You are"})
    context = engine.new_context()
    context.extend(engine.tokenizer.encode(system_segments("You are.", [])))
    context.extend(prompt(engine, "first"))
    play(context)
    context.extend(prompt(engine, "second"))

    with pytest.raises(ScriptError, match=r"script.jsonl:2: expected .* which is 'second'"):
        play(context)


# Bad scripts


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{text", "not JSON"),
        ("[1]", "not a JSON object"),
        ({"txt": "a"}, "unknown key 'txt'; known are text, ids, plain"),
        ({"expect": "a"}, "either text or ids"),
        ({"text": "a", "ids": [9]}, "either text or ids"),
        ({"ids": [9], "plain": True}, "plain goes with text"),
        ({"text": 3}, "text has the wrong type: 3"),
        ({"text": "a", "chunk": True}, "chunk has the wrong type"),
        ({"text": "a", "chunk": 0}, "chunk at least 1"),
        ({"text": "a", "delay_ms": -1}, "delay_ms is at least 0"),
        ({"text": "a", "finish": "eos"}, 'finish is "stop" or "length"'),
        ({"text": "a", "expect": "("}, "no regular expression"),
        ({"text": "<｜title｜>"}, "no control token '<｜title｜>'"),
        ({"ids": [9, 99999]}, "99999 is no token id"),
        ({"ids": [True]}, "True is no token id"),
        ({"ids": ["a"]}, "'a' is no token id"),
    ],
)
def test_a_bad_line_is_named_when_the_script_is_opened(script, line, says):
    with pytest.raises(ScriptError) as caught:
        script({"text": "fine"}, "", line)

    assert "script.jsonl:3: " in str(caught.value)
    assert says in str(caught.value)


def test_a_missing_script_is_named(tmp_path):
    with pytest.raises(ScriptError, match=r"cannot read the script .*no\.jsonl: No such file"):
        open_engine(f"scripted:{tmp_path / 'no.jsonl'}")


def test_a_script_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text":"\xff"}')

    with pytest.raises(ScriptError, match="is not UTF-8: byte 9"):
        open_engine(f"scripted:{path}")


def test_a_used_up_script_says_how_many_steps_it_had(script):
    context = script({"text": "a"}, {"text": "b"}).new_context()
    play(context)
    play(context)

    with pytest.raises(ScriptError, match="all 2 steps are used up"):
        play(context)


# The promises of a Context


def test_extend_reports_its_tokens_and_keeps_them(script):
    context = script({"text": "a"}).new_context()
    seen = []
    context.extend([5, 6], on_progress=seen.append)
    context.extend([7], on_progress=seen.append)

    assert [(p.done, p.total, p.reused) for p in seen] == [(2, 2, 0), (1, 1, 2)]
    assert list(context.tokens) == [5, 6, 7]


def test_a_cancelled_extend_still_has_its_tokens(script):
    context = script({"text": "a"}).new_context()
    cancel = threading.Event()
    cancel.set()

    with pytest.raises(Cancelled):
        context.extend([5, 6], cancel=cancel)
    assert list(context.tokens) == [5, 6]


def test_bad_ids_and_overlong_prompts_change_nothing(script):
    context = script({"text": "a"}, context_length=4).new_context()
    with pytest.raises(TokenRangeError):
        context.extend([99999])
    with pytest.raises(ContextFullError):
        context.extend([5] * 5)

    assert list(context.tokens) == []


def test_a_step_ends_where_the_context_is_full_and_the_next_does_not_begin(script):
    context = script({"ids": [9, 8, 7]}, {"text": "b"}, context_length=3).new_context()
    context.extend([5])

    assert play(context) == [9, 8]
    with pytest.raises(ContextFullError):
        play(context)


def test_forks_are_independent_and_play_the_one_script_in_turn(script):
    context = script({"ids": [9]}, {"ids": [8]}).new_context()
    context.extend([5])
    fork = context.fork()

    assert (play(context), play(fork)) == ([9, 1], [8, 1])
    assert (list(context.tokens), list(fork.tokens)) == ([5, 9, 1], [5, 8, 1])


def test_rewind_goes_back_in_tokens_not_in_the_script(script):
    context = script({"ids": [9]}, {"ids": [8]}).new_context()
    context.extend([5])
    place = context.checkpoint()
    play(context)
    context.rewind(place)

    assert (place.token_count, list(context.tokens)) == (1, [5])
    assert play(context) == [8, 1]


def test_a_checkpoint_of_something_else_is_refused(script):
    with pytest.raises(EngineError, match="belongs to another model"):
        script({"text": "a"}).new_context().rewind(object())


def test_its_defaults_are_those_of_the_contract(script):
    engine = script({"text": "a"})

    assert (engine.default_thinking, engine.default_profile) == ("off", "nano")
    assert engine.default_sampling.temperature == 0
    assert engine.tokenizer.vocab_size == open_engine(engine.model_name).tokenizer.vocab_size
    engine.close()


def test_it_never_imports_mlx(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text":"a"}')
    code = (
        "import sys\n"
        "from ds4_agent.engine.open import open_engine\n"
        f"context = open_engine('scripted:{path}').new_context()\n"
        "assert not {'mlx', 'mlx.core', 'numpy'} & set(sys.modules), 'imported'\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)

    assert (done.returncode, done.stderr) == (0, b"")
