"""Which kernels a model is given: those that gave the same as their twins, on this machine."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import mlx.core as mx
import pytest

from ds4_agent.engine.model.kernels.choose import _key, choose, tried
from ds4_agent.engine.model.kernels.machine import choose_for_machine
from ds4_agent.engine.model.kernels.trials import Kernel, kernels
from ds4_agent.engine.model.kernels.verdicts import Verdict, Verdicts
from ds4_agent.engine.model.operations import PURE

MACHINE = "a chip, mlx 0"


class Counted:
    """A function, and how often it was called."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *arguments):
        self.calls += 1
        return self.function(*arguments)


def twice(x):
    return 2.0 * x


def kernel(run=twice, name="write_streams", **changes):
    """One that is to give twice a number, tried once a trial."""

    def calls(config, dtype):
        yield (mx.array([1.0, -3.0], dtype=dtype),)

    return replace(Kernel(name, Counted(run), twice, calls, tolerance=1e-3), **changes)


def raises(x):
    raise RuntimeError("program_source:3:1:\n  error: no such function")


WRONG = {
    "raises": (raises, "RuntimeError: program_source:3:1: error: no such function"),
    "differs": (lambda x: 2.01 * x, "differs by 5.0e-03, allowed 1.0e-03"),
    "gives what is no number": (lambda x: twice(x) * mx.array([1.0, mx.nan]), "differs by inf"),
    "gives infinity": (lambda x: twice(x) * mx.array([1.0, mx.inf]), "differs by inf"),
    "gives another shape": (lambda x: twice(x)[None], "differs by inf"),
    "gives fewer": (lambda x: twice(x)[:1], "differs by inf"),
}


@pytest.fixture
def verdicts(tmp_path):
    """`verdicts()`: what a new process would know of the machine."""
    return lambda machine=MACHINE: Verdicts(tmp_path / "cache" / "kernels.json", machine)


@pytest.mark.parametrize("name", WRONG)
def test_a_kernel_that_is_wrong_is_switched_off_and_named_once(config, verdicts, name):
    run, said = WRONG[name]
    wrong, right = kernel(run), kernel(name="attend_pieces")

    first = choose([wrong, right], config, mx.float32, verdicts())
    later = choose([wrong, right], config, mx.float32, verdicts())

    assert first.operations == later.operations == replace(PURE, attend_pieces=right.run)
    assert first.verdicts == later.verdicts
    assert [verdict.is_used for verdict in first.verdicts] == [False, True]
    assert first.verdicts[0].reason.startswith(said)
    assert first.notice.count("write_streams") == 1
    assert said in first.notice
    assert "attend_pieces" not in first.notice
    assert "\n" not in first.notice
    assert later.notice == ""


def test_what_differs_by_less_than_is_allowed_is_used(config, verdicts):
    near = kernel(lambda x: 2.001 * x)

    chosen = choose([near], config, mx.float32, verdicts())

    assert chosen.operations.write_streams is near.run
    assert chosen.notice == ""
    assert chosen.verdicts[0].difference == pytest.approx(5e-4, rel=0.01)


def test_many_that_are_wrong_make_one_notice(config, verdicts):
    wrong = [kernel(raises, name) for name in ("read_streams", "write_streams", "top_rows")]

    chosen = choose(wrong, config, mx.float32, verdicts())

    assert chosen.operations == PURE
    assert "\n" not in chosen.notice
    assert all(each.name in chosen.notice for each in wrong)


def test_a_kernel_that_does_not_suit_the_sizes_is_no_failure(config, verdicts):
    unsuited = kernel(raises, suits=lambda config: False)

    chosen = choose([unsuited], config, mx.float32, verdicts())

    assert (chosen.operations, chosen.notice, unsuited.run.calls) == (PURE, "", 0)
    assert chosen.verdicts[0].reason == "not for the sizes of this model"


def test_a_kernel_is_tried_once_a_machine_code_and_sizes(config, published, verdicts):
    right = kernel()

    def times(sizes=config, dtype=mx.float32, **options):
        before = right.run.calls
        machine = options.pop("machine", MACHINE)
        choose([options.pop("of", right)], sizes, dtype, verdicts(machine), **options)
        return right.run.calls - before

    assert times() == 1
    assert times() == 0
    assert times(again=True) == 1
    assert times(sizes=published) == 1
    assert times(dtype=mx.bfloat16) == 1
    assert times(of=replace(right, tolerance=1e-5)) == 1
    assert times() == 0  # others being known makes no difference
    assert times(machine="the same chip, mlx 1") == 1
    assert times() == 1  # a file is of one machine: the last


def test_other_code_is_tried(config, verdicts, monkeypatch):
    right = kernel()
    choose([right], config, mx.float32, verdicts())

    monkeypatch.setattr("ds4_agent.engine.model.kernels.choose._code", lambda: b"changed")
    choose([right], config, mx.float32, verdicts())

    assert right.run.calls == 2


def test_a_kernel_is_given_another_chance(config, verdicts):
    """`again`, as `doctor --model` has it: the driver may have been updated."""
    unlucky = kernel(raises)
    choose([unlucky], config, mx.float32, verdicts())

    mended = replace(unlucky, run=Counted(twice))
    chosen = choose([mended], config, mx.float32, verdicts(), again=True)

    assert chosen.operations.write_streams is mended.run
    assert choose([mended], config, mx.float32, verdicts()).verdicts[0].is_used


def test_again_says_again_what_is_wrong(config, verdicts):
    wrong = kernel(raises)

    notices = [choose([wrong], config, mx.float32, verdicts(), again=True).notice for _ in range(2)]

    assert notices[0] == notices[1] != ""


@pytest.mark.parametrize("others", [1, 2, 3])
def test_what_ended_its_process_twice_is_not_tried_a_third_time(tmp_path, config, others):
    """A fault of a GPU can end the process, and must not at every start."""
    path = tmp_path / "kernels.json"
    code = (
        "import os, sys; from pathlib import Path\n"
        "from ds4_agent.engine.model.kernels.verdicts import Verdicts\n"
        "if Verdicts(Path(sys.argv[1]), sys.argv[2]).begin(sys.argv[3]): os._exit(9)"
    )
    right = kernel()
    key = _key(right, config, mx.float32)
    codes = [
        subprocess.run([sys.executable, "-c", code, path, MACHINE, key]).returncode
        for _ in range(others)
    ]

    chosen = choose([right], config, mx.float32, Verdicts(path, MACHINE))

    assert codes == [9, 9, 0][:others]
    assert right.run.calls == (others < 2)
    assert chosen.verdicts[0].is_used is (others < 2)
    if others >= 2:
        assert "twice the process ended while it was tried" in chosen.notice
        assert choose([right], config, mx.float32, Verdicts(path, MACHINE)).notice == ""


def test_a_machine_without_metal_keeps_its_own_operations_and_no_file(config, tmp_path):
    if mx.metal.is_available():
        pytest.skip("there is Metal here")

    chosen = choose_for_machine(config, mx.float32, tmp_path / "kernels.json")

    assert (chosen.operations, chosen.verdicts, chosen.notice) == (PURE, (), "")
    assert list(tmp_path.iterdir()) == []


def test_the_kernels_themselves_are_found_right(emulator, config, dtype, verdicts):
    all_kernels = kernels(emulator)

    chosen = choose(all_kernels, config, dtype, verdicts())

    assert chosen.notice == ""
    assert all(verdict.is_used for verdict in chosen.verdicts)
    assert [verdict.kernel for verdict in chosen.verdicts] == [k.name for k in all_kernels]
    for each in all_kernels:
        assert getattr(chosen.operations, each.name) is each.run


def test_a_kernel_that_does_not_compile_is_switched_off(emulator, config, verdicts):
    def broken(source, *arguments, **options):
        return emulator(replace(source, body="this is no C++"), *arguments, **options)

    chosen = choose(kernels(broken), config, mx.float32, verdicts())

    assert chosen.operations == PURE
    assert all("does not compile" in verdict.reason for verdict in chosen.verdicts)
    assert all(len(verdict.reason) < 300 for verdict in chosen.verdicts)


def test_a_trial_leaves_nothing_but_its_verdict(config, verdicts, tmp_path):
    choose([kernel()], config, mx.float32, verdicts())

    (file,) = (tmp_path / "cache").iterdir()
    content = json.loads(file.read_text())
    assert content["machine"] == MACHINE
    assert [entry["is_used"] for entry in content["verdicts"].values()] == [True]
    assert os.stat(file).st_mode & 0o077 == 0


def test_tried_says_how_far_apart(config):
    assert tried(kernel(), config, mx.float32) == Verdict("write_streams", True, "", 0.0)
