"""The writer works behind its caller: in order, a few jobs at most, and it can be left behind."""

import threading

from ds4_agent.engine.kvstore.writer import LONGEST, Writer

WAIT = 30


class Held:
    """Carries out jobs once it is told to go on."""

    def __init__(self):
        self.done = []
        self.began = threading.Event()
        self.go_on = threading.Event()
        self.writer = Writer(self.carry_out, "test-writer")

    def carry_out(self, job):
        self.began.set()
        assert self.go_on.wait(WAIT)
        self.done.append(job)


def test_jobs_are_done_in_order_in_one_thread():
    done = []
    writer = Writer(lambda job: done.append((job, threading.current_thread().name)), "test-writer")
    for job in range(5):
        writer.add(job)

    assert writer.wait(WAIT)
    assert done == [(job, "test-writer") for job in range(5)]
    assert writer.close(WAIT)


def test_no_thread_is_started_without_a_job():
    writer = Writer(print, "test-idle-writer")

    assert writer.close(0)
    assert "test-idle-writer" not in {thread.name for thread in threading.enumerate()}


def test_an_optional_job_is_dropped_while_another_waits():
    held = Held()
    held.writer.add("under way")
    assert held.began.wait(WAIT)
    held.writer.add("optional, next", is_optional=True)
    held.writer.add("optional", is_optional=True)
    held.writer.add("needed")
    held.go_on.set()

    assert held.writer.close(WAIT)
    assert held.done == ["under way", "optional, next", "needed"]


def test_the_oldest_is_dropped_when_too_many_wait():
    held = Held()
    held.writer.add("under way")
    assert held.began.wait(WAIT)
    for job in range(LONGEST + 3):
        held.writer.add(job)
    held.go_on.set()

    assert held.writer.close(WAIT)
    assert held.done == ["under way", *range(3, LONGEST + 3)]


def test_close_does_not_wait_for_ever_and_takes_nothing_more():
    held = Held()
    held.writer.add("under way")
    assert held.began.wait(WAIT)
    held.writer.add("waiting")

    assert not held.writer.close(0.01)
    assert held.writer.is_abandoned
    held.writer.add("late")
    held.go_on.set()
    assert held.writer.wait(WAIT)
    assert held.done == ["under way"]
    assert held.writer.close(WAIT)
