"""The engine thread: one thread for everything, errors in the caller, a clean end."""

import subprocess
import sys
import threading

import pytest

from ds4_agent.engine.errors import Cancelled, EngineError, ScriptError
from ds4_agent.engine.worker import Worker, stop_if


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.close()


def test_returns_what_the_closure_returns(worker):
    assert worker.call(lambda a, b: a - b, 5, b=3) == 2


def test_every_call_runs_on_the_same_other_thread(worker):
    idents = {worker.call(threading.get_ident) for _ in range(5)}

    assert len(idents) == 1
    assert threading.get_ident() not in idents


def test_calls_of_many_threads_never_overlap(worker):
    running, overlaps = [], []

    def closure():
        running.append(1)
        overlaps.append(len(running))
        running.pop()

    threads = [
        threading.Thread(target=lambda: [worker.call(closure) for _ in range(50)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert overlaps == [1] * 200


@pytest.mark.parametrize("error", [ScriptError("x"), EngineError("y"), Cancelled("z")])
def test_errors_of_the_engine_come_through_as_raised(worker, error):
    def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        worker.call(fail)
    assert caught.value is error


def test_any_other_exception_becomes_one_line_of_engine_error(worker):
    def fail():
        raise RuntimeError("[matmul] shapes\n  (2,3) and (4,5)")

    with pytest.raises(EngineError) as caught:
        worker.call(fail)
    assert str(caught.value) == ("the engine failed: RuntimeError: [matmul] shapes (2,3) and (4,5)")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_out_of_memory_says_what_to_do(worker):
    def fail():
        raise MemoryError

    with pytest.raises(EngineError, match="smaller --ctx"):
        worker.call(fail)


def test_the_thread_lives_on_after_an_error(worker):
    with pytest.raises(EngineError):
        worker.call(int, "no number")

    assert worker.call(int, "7") == 7


def test_close_ends_the_thread_and_refuses_calls():
    worker = Worker("ds4-test-close")
    worker.call(int)
    worker.close()
    worker.close()

    assert worker.closed
    assert "ds4-test-close_0" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(EngineError, match="the engine is closed"):
        worker.call(int)


def test_close_refuses_calls_that_wait():
    worker = Worker()
    entered, leave, outcome = threading.Event(), threading.Event(), []

    def wait_in_line():
        try:
            worker.call(int)
        except EngineError as error:
            outcome.append(str(error))

    busy = threading.Thread(target=worker.call, args=(lambda: (entered.set(), leave.wait(5)),))
    busy.start()
    entered.wait(5)
    waiting = threading.Thread(target=wait_in_line)
    waiting.start()
    while worker._executor._work_queue.qsize() == 0:  # until it waits in the queue
        pass
    closing = threading.Thread(target=worker.close)
    closing.start()
    waiting.join(5)
    leave.set()
    for thread in (busy, closing):
        thread.join(5)

    assert outcome == ["the engine is closed"]


def test_a_process_that_never_closes_its_worker_still_ends():
    code = (
        "from ds4_agent.engine.worker import Worker\n"
        "worker = Worker()\n"
        "def load():\n"
        "    import mlx.core as mx\n"
        "    mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)))\n"
        "worker.call(load)\n"
        "raise SystemExit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)

    assert (done.returncode, done.stderr) == (3, b"")


def test_stop_if_raises_only_when_asked():
    cancel = threading.Event()
    stop_if(None)
    stop_if(cancel)
    cancel.set()

    with pytest.raises(Cancelled):
        stop_if(cancel)
