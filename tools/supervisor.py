"""Stands between the agent and one command, so that nothing of the command outlives either.

Run as a script of its own (`python -I -S supervisor.py OUT_FD IN_FD PROGRAM ARG…`), standard
library only. In: on stdin the lifeline, a pipe held by the agent: `T` asks for a polite end (TERM,
then KILL), `K` for an instant one, end of file means that the agent is dead. Out: on stdout one
line `EXIT_CODE LEFT`, when nothing of the command is left; LEFT is 1 when its main process had
ended by itself and others had to be stopped. Never touches a process it did not start.

Why a process and not PR_SET_PDEATHSIG alone: that signal follows the *thread* that started a
child, reaches no grandchild and does not exist outside Linux.
"""

# `signal` puts an `enum` round these, whose loading takes longer than all of our own start.
import _signal as signal  # type: ignore[import-not-found]
import os
import select
import sys
import time

POLITE_S = 2.0  # between TERM and KILL when a stop was asked for
LEFTOVER_S = 0.5  # the same for what a command that has ended left running
GIVE_UP_S = 5.0  # a process stuck in the kernel cannot be killed; do not wait for ever
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> None:
    output, source, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans of the command become our children, not init's
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    main_pid = os.fork()
    if main_pid == 0:
        become(command, output, source)
    os.close(output)
    os.close(source)
    code, left = Command(main_pid, woken).wait()
    with Ignoring(OSError):  # the agent is gone: nobody reads the report
        os.write(1, b"%d %d\n" % (code, left))


def become(command: list[str], output: int, source: int) -> None:
    """In the forked child: a session of its own, default signals, and then the command."""
    os.setsid()
    os.dup2(source, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.close(source)
    signal.set_wakeup_fd(-1)
    # Python ignores SIGPIPE and SIGXFSZ, and ignored signals survive exec: `yes | head` would hang.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # we have one thread, so it does mean our death
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    os._exit(127)


class Command:
    """The command's process tree, until nothing of it is left."""

    def __init__(self, main_pid: int, woken: int) -> None:
        self.main_pid = main_pid
        self.woken = woken
        self.code: int | None = None
        self.stopping = False
        self.left = False
        self.kill_at = float("inf")
        self.give_up_at = float("inf")

    def wait(self) -> tuple[int, bool]:
        watched = select.poll()
        watched.register(0, select.POLLIN)
        watched.register(self.woken, select.POLLIN)
        while not self.is_over():
            for descriptor, _ in watched.poll(self.pause_ms()):
                request = os.read(descriptor, 64)
                if descriptor == 0:
                    self.obey(request)
                    if not request:
                        watched.unregister(0)
                elif set(request) & {signal.SIGTERM, signal.SIGHUP, signal.SIGINT}:
                    self.obey(b"T")  # somebody wants us gone: take the command along
            if time.monotonic() >= self.kill_at:
                self.signal_all(signal.SIGKILL)
                self.kill_at = time.monotonic() + 0.05  # again, for what was forked meanwhile
        return (128 + signal.SIGKILL if self.code is None else self.code), self.left

    def pause_ms(self) -> int | None:
        if self.kill_at == float("inf"):
            return None
        return max(1, int((self.kill_at - time.monotonic()) * 1000) + 1)

    def obey(self, request: bytes) -> None:
        if b"K" in request:
            self.stop(0)
        elif not self.stopping:
            self.stop(POLITE_S)

    def stop(self, grace: float) -> None:
        self.stopping = True
        now = time.monotonic()
        if grace:
            self.signal_all(signal.SIGTERM)
            self.signal_all(signal.SIGCONT)  # a stopped process cannot take a TERM
        self.kill_at = min(self.kill_at, now + grace)
        self.give_up_at = min(self.give_up_at, now + grace + GIVE_UP_S)

    def is_over(self) -> bool:
        self.reap()
        if self.code is None:
            return time.monotonic() > self.give_up_at
        if not self.others():
            return True
        if not self.stopping:
            self.left = True
            self.stop(LEFTOVER_S)
        return time.monotonic() > self.give_up_at

    def reap(self) -> None:
        """Collect what has ended. The main process stays a zombie where the system allows:

        its number, which is that of its group, then belongs to nobody else while we may signal it.
        """
        if hasattr(os, "waitid"):
            if self.code is None:
                state = os.waitid(os.P_PID, self.main_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if state is not None and state.si_pid == self.main_pid:
                    exited = state.si_code == os.CLD_EXITED
                    self.code = state.si_status if exited else 128 + state.si_status
            for pid in children(os.getpid()):
                if pid != self.main_pid:
                    with Ignoring(ChildProcessError):
                        os.waitpid(pid, os.WNOHANG)
        elif self.code is None:
            pid, status = os.waitpid(self.main_pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.code = code if code >= 0 else 128 - code

    def others(self) -> bool:
        """Whether anything but the ended main process is left."""
        if os.path.isdir("/proc/self/task"):
            return any(pid != self.main_pid for pid in children(os.getpid()))
        try:
            os.killpg(self.main_pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def signal_all(self, number: int) -> None:
        with Ignoring(ProcessLookupError, PermissionError):
            os.killpg(self.main_pid, number)
        for pid in descendants(os.getpid()):
            with Ignoring(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def children(pid: int) -> list[int]:
    """Direct children of a process, zombies among them; [] where there is no such file."""
    found: list[int] = []
    with Ignoring(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    return found


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, those in other sessions too."""
    found = children(pid)
    for child in found:  # grows while it is walked
        found += children(child)
    return found


class Ignoring:
    """`contextlib.suppress`, whose module takes longer to load than everything else here."""

    def __init__(self, *errors: type[BaseException]) -> None:
        self.errors = errors

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, self.errors)


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
