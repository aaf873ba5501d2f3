"""The benchmarks run and say what they measured. What they say is for a quiet machine to tell."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python(code, *arguments):
    """Run code where `bench` can be imported: from the repository's root, as `make bench` does."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


TINY = """
import json, runpy, shutil, sys
from pathlib import Path
from bench.random_model import config_of, write_model
from ds4_agent.engine.open import NANO
place = Path(sys.argv[1])
config = config_of(
    layer_kinds="sCH", hash_layers=1, vocab_size=2048, hidden_size=64, moe_intermediate_size=32,
    num_attention_heads=4, head_dim=32, q_lora_rank=32, o_groups=2, o_lora_rank=16,
    n_routed_experts=4, index_head_dim=32, index_topk=16, sliding_window=32,
    max_position_embeddings=4096,
)
write_model(place, config, seed=1)
shutil.copy(NANO / "tokenizer.json", place)
sys.argv = [sys.argv[2], str(place), "200", "40"]
runpy.run_module(sys.argv[0], run_name="__main__")
"""


def test_a_part_prints_one_row_a_length_shortest_first(tmp_path):
    done = python(TINY, str(tmp_path), "bench.ours")

    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [row["tokens"] for row in rows] == [40, 200]
    assert all(row["prefill"] > 0 and row["decode"] > 0 for row in rows)
    assert all(0 <= row["fork_ms"] < 1 and 0 <= row["rewind_ms"] < 1 for row in rows)


def test_the_table_is_markdown_that_reads_as_text():
    code = "from bench.figures import table; print(table(('a', 'bb'), [('x', '1'), ('yy', '22')]))"

    assert python(code).stdout.splitlines() == [
        "| a  | bb |",
        "| -- | -: |",
        "| x  |  1 |",
        "| yy | 22 |",
    ]


def test_a_missed_bar_is_told_beside_its_figure():
    code = """
from bench.__main__ import HEAD, _speeds
from bench.figures import Speed, table
ours = [Speed(512, 1000, 100), Speed(8192, 650, 90, 0.01, 2.5)]
theirs = [Speed(512, 500, 20), Speed(8192, 100, 31)]
print(table(HEAD, _speeds(ours, theirs)))
"""
    lines = python(code).stdout
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines.splitlines()]

    assert rows[3] == ["prefill at 8,192", "650.0", "100.0", "6.5 x", ">= 5 x", "met"]
    assert rows[5] == ["decode at 8,192", "90.0", "31.0", "2.9 x", ">= 3 x", "MISSED"]
    assert rows[6] == ["prefill at 8,192 / at 512", "0.65", "", "", ">= 0.7", "MISSED"]
    assert rows[7] == ["fork at 8,192, ms", "0.010", "", "", "< 1", "met"]
    assert rows[8] == ["rewind at 8,192, ms", "2.500", "", "", "< 1", "MISSED"]


def test_speculation_gives_the_same_tokens_and_is_measured():
    code = """
from bench import speculation
speculation.ROUNDS, speculation.TASKS = 1, speculation.TASKS[2:]
speculation.main()
"""
    done = python(code)

    assert done.returncode == 0, done.stderr
    assert "speculation is auto: " in done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [len(row) for row in rows] == [6] * 4
    assert float(rows[3][1]) > 1  # tokens a pass


def test_forks_are_measured():
    code = "from bench.forks import main; main(300, 500)"
    done = python(code)

    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [len(row) for row in rows] == [6, 6, 6, 6]
    assert rows[0][0].startswith("fork at 300 tokens")
    assert "forks at 500 tokens" in rows[3][0]
