"""Child: the end of a process is seen once, its status is never another's, and a closed one touches no fd."""

import contextlib
import errno
import itertools
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.fds import no_fd_left, open_fds
from support.processes import in_child, run
from support.seccomp import denied
from support.threads import together, until

import pyepoll
from pyepoll import Child, Event

Epoll = pyepoll.Epoll[Any]


def start(program: str) -> int:
    return os.posix_spawnp("sh", ["sh", "-c", program], os.environ)


@pytest.fixture
def sleeper() -> Iterator[Child]:
    """A child that ends only by a signal."""
    pid = os.posix_spawnp("sleep", ["sleep", "1000"], os.environ)
    with Child(pid) as child:
        yield child
        with contextlib.suppress(ProcessLookupError, ValueError):
            child.send_signal(signal.SIGKILL)
            until(child.read)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def zombie(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"
    return False


@pytest.mark.parametrize(
    ("program", "returncode"), [("exit 0", 0), ("exit 255", 255), ("kill -TERM $$", -15)]
)
def test_an_exit_is_an_event_with_a_status(ep: Epoll, program: str, returncode: int) -> None:
    pid = start(program)
    with Child(pid) as child:
        ep.register(child, Event.IN, child)
        assert child.pid == pid
        [(data, events)] = ep.poll(10)
        assert data is child
        assert events & Event.IN
        before = child.returncode
        assert child.read() is True
        assert (before, child.returncode) == (None, returncode)
        assert child.read() is True
        with pytest.raises(ChildProcessError):  # it was reaped
            os.waitpid(pid, 0)
    assert child.returncode == returncode


def test_a_core_dump_is_a_signal(ep: Epoll) -> None:
    with Child(start("ulimit -c 0; kill -ABRT $$")) as child:
        ep.register(child, Event.IN)
        ep.poll(10)
        assert (child.read(), child.returncode) == (True, -signal.SIGABRT)


def test_one_that_runs_or_is_stopped_has_not_ended(ep: Epoll, sleeper: Child) -> None:
    ep.register(sleeper, Event.IN, "ended")
    assert (ep.poll(0), sleeper.read(), sleeper.returncode) == ([], False, None)
    for signum in signal.SIGSTOP, signal.SIGCONT:
        sleeper.send_signal(signum)
        assert (ep.poll(0.02), sleeper.read(), sleeper.returncode) == ([], False, None)
    sleeper.send_signal(signal.SIGTERM)
    assert ep.poll(10) != []
    assert (sleeper.read(), sleeper.returncode) == (True, -signal.SIGTERM)


def test_one_that_has_ended_before() -> None:
    pid = start("exit 5")
    until(lambda: zombie(pid))
    with Child(pid) as child:
        assert (child.read(), child.returncode) == (True, 5)


def test_popen_keeps_its_status_with_reap_false(ep: Epoll) -> None:
    with subprocess.Popen(["sh", "-c", "exit 3"]) as process, Child(process.pid, reap=False) as child:
        ep.register(child, Event.IN)
        ep.poll(10)
        assert child.read() is child.read() is True
        assert child.returncode == 3
        assert zombie(process.pid)
        assert process.wait() == 3


def test_a_status_that_others_have_taken_is_unknown() -> None:
    """Not lost silently: the end is seen, and there is no number that could be another's."""
    for reap in True, False:
        pid = start("exit 3")
        with Child(pid, reap=reap) as child:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
            assert (child.read(), child.returncode) == (True, None)
            assert repr(child).endswith(f" pid={pid} ended>")


def test_sigchld_ignored() -> None:
    """The kernel then keeps no status."""
    program = """
    import os, signal, subprocess
    from pyepoll import Child, Epoll, Event
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    child = Child(os.posix_spawnp("sh", ["sh", "-c", "sleep 0.05; exit 3"], os.environ))
    with Epoll() as ep:
        ep.register(child, Event.IN)
        assert child.read() is False
        assert ep.poll(10)
    assert (child.read(), child.returncode) == (True, None)
    """
    assert run(program) == ""


def test_of_another_process_the_end_is_seen(ep: Epoll) -> None:
    """A grandchild."""
    middle = subprocess.Popen(
        ["sh", "-c", "sleep 1000 & echo $!; wait $!"], stdout=subprocess.PIPE, start_new_session=True
    )
    assert middle.stdout is not None
    with middle, Child(int(middle.stdout.readline())) as grandchild:
        ep.register(grandchild, Event.IN, "ended")
        assert (ep.poll(0), grandchild.read()) == ([], False)
        grandchild.send_signal(signal.SIGTERM)
        [(data, events)] = ep.poll(10)
        assert (data, bool(events & Event.IN)) == ("ended", True)
        assert (grandchild.read(), grandchild.returncode) == (True, None)


def test_in_a_forked_process_the_end_alone_is_seen(ep: Epoll, sleeper: Child) -> None:
    ep.register(sleeper, Event.IN, "ended")

    def fork() -> None:
        assert (ep.poll(0), sleeper.read()) == ([], False)
        sleeper.send_signal(signal.SIGTERM)
        assert ep.poll(10) != []
        assert (sleeper.read(), sleeper.returncode) == (True, None)
        sleeper.close()

    assert in_child(fork) == ""
    assert ep.poll(10) != []
    assert (sleeper.read(), sleeper.returncode) == (True, -signal.SIGTERM)


def test_a_signal_goes_to_no_other_process(sleeper: Child) -> None:
    sleeper.send_signal(0)
    sleeper.send_signal(signal.SIGKILL)
    until(lambda: zombie(sleeper.pid))
    sleeper.send_signal(signal.SIGTERM)  # a zombie ignores it
    assert sleeper.read()
    with pytest.raises(ProcessLookupError, match=rf"send_signal 15 to process {sleeper.pid} "):
        sleeper.send_signal(signal.SIGTERM)


def test_a_status_has_one_taker(fast_switching: None) -> None:
    """Eight threads read one child, and each sees the status in the end."""
    for _ in range(20):
        with Child(start("exit 9")) as child:
            seen: list[int | None] = []

            def work(child: Child = child, seen: list[int | None] = seen) -> None:
                until(child.read)
                seen.append(child.returncode)

            assert together(*[work] * 8) == []
            assert seen == [9] * 8


def test_many_children_at_once(ep: Epoll) -> None:
    children = {}
    for code in range(40):
        child = Child(start(f"exit {code}"))
        children[child] = code
        ep.register(child, Event.IN, child)
    seen: dict[Child, int | None] = {}
    while len(seen) < len(children):
        for child, _ in ep.poll(10):
            assert child.read()
            seen[child] = child.returncode
            ep.unregister(child)
            child.close()
    assert seen == children


# Errors and ends.


@pytest.mark.parametrize(
    ("pid", "error", "text"),
    [
        (0, ValueError, "pid must be above 0, not 0"),
        (-1, ValueError, "pid must be above 0, not -1"),
        (2**31, OverflowError, "32 bits"),
        ("1", TypeError, "int"),
        (1.0, TypeError, "int"),
        (2**31 - 1, ProcessLookupError, r"pidfd_open\(2147483647\): No such process"),
    ],
)
def test_what_is_no_process(pid: Any, error: type[Exception], text: str) -> None:
    fds = open_fds()
    with pytest.raises(error, match=text):
        Child(pid)
    assert open_fds() == fds


def test_a_thread_is_no_process(pool: ThreadPoolExecutor) -> None:
    thread = pool.submit(threading.get_native_id).result()
    with pytest.raises(OSError, match=rf"pidfd_open\({thread}\)"):
        Child(thread)


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
def test_without_pidfds_it_says_so(error: int) -> None:
    """An older kernel, or a sandbox."""
    result = denied(lambda: Child(os.getpid()), error, "pidfd_open")
    assert isinstance(result, OSError)
    assert result.errno == error
    assert str(result).startswith(f"[Errno {error}] pidfd_open({os.getpid()})")
    assert ("needs Linux 5.3" in str(result)) is (error == errno.ENOSYS)


def test_without_waitid_it_says_so() -> None:
    pid = start("exit 3")
    with Child(pid) as child:
        result = denied(child.read, errno.EPERM, "waitid")
        assert isinstance(result, PermissionError)
        assert re.search(r"read: waitid\(pidfd \d+\)", str(result))
        until(child.read)  # not lost
        assert child.returncode == 3


ONLY_PIDS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>

int waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    int (*next)(idtype_t, id_t, siginfo_t *, int) = dlsym(RTLD_NEXT, "waitid");
    if (type > P_PGID) {
        errno = EINVAL;
        return -1;
    }
    if (getenv("REUSED") != NULL) {
        info->si_pid = (pid_t)id;
        info->si_code = CLD_EXITED;
        info->si_status = 9;
        return 0;
    }
    return next(type, id, info, options);
}
"""
"""Linux 5.3: pidfds, but no waitid(P_PIDFD), which came with 5.4. REUSED: another child has got the pid."""


def test_on_linux_5_3(preload: Callable[[str], None]) -> None:
    preload(ONLY_PIDS)
    program = """
    import os
    from pyepoll import Child, Epoll, Event
    for reaped in False, True:
        pid = os.posix_spawnp("sh", ["sh", "-c", "exit 3"], os.environ)
        child = Child(pid)
        if reaped:
            os.waitpid(pid, 0)
            os.environ["REUSED"] = "1"
        with Epoll() as ep:
            ep.register(child, Event.IN)
            ep.poll(10)
        print(child.read(), child.returncode)
    """
    assert run(program).split() == ["True", "3", "True", "None"]


def test_no_fd_left() -> None:
    with no_fd_left(), pytest.raises(OSError, match="pidfd_open") as caught:
        Child(os.getpid())
    assert caught.value.errno == errno.EMFILE


def calls(child: Child) -> list[Callable[[], object]]:
    return [child.read, lambda: child.send_signal(0)]


def test_closed_touches_no_fd(sleeper: Child) -> None:
    other = os.posix_spawnp("sleep", ["sleep", "1000"], os.environ)
    number = sleeper.fileno()
    sleeper.close()
    with Child(other) as unrelated:
        assert unrelated.fileno() == number
        for call in [*calls(sleeper), sleeper.fileno, sleeper.__enter__]:
            with pytest.raises(ValueError, match="closed child"):
                call()
        sleeper.close()
        assert sleeper.closed
        assert repr(sleeper) == f"<pyepoll.Child closed pid={sleeper.pid}>"
        unrelated.send_signal(signal.SIGTERM)
        until(unrelated.read)
        assert unrelated.returncode == -signal.SIGTERM
    os.kill(sleeper.pid, signal.SIGKILL)


def test_an_fd_that_was_closed_elsewhere_is_an_error(sleeper: Child) -> None:
    with Child(sleeper.pid) as child:
        os.close(child.fileno())
        for call in [*calls(child), child.close]:
            with pytest.raises(OSError, match="pidfd") as caught:
                call()
            assert caught.value.errno == errno.EBADF


def test_is_closed_when_it_is_dropped() -> None:
    number = Child(os.getpid()).fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_close_in_one_thread_and_calls_in_others(
    sleeper: Child, pool: ThreadPoolExecutor, fast_switching: None
) -> None:
    for _ in range(20):
        child = Child(sleeper.pid)

        def work(child: Child = child) -> None:
            try:
                for call in itertools.cycle(calls(child)):
                    call()
            except ValueError:
                return

        working = [pool.submit(work) for _ in range(4)]
        time.sleep(0.001)
        number = child.fileno()
        child.close()
        assert os.eventfd(1) == number
        for each in working:
            each.result(10)
        assert os.eventfd_read(number) == 1
        os.close(number)


def test_is_close_on_exec(sleeper: Child) -> None:
    assert os.get_inheritable(sleeper.fileno()) is False


def test_reap_is_a_keyword() -> None:
    with pytest.raises(TypeError):
        Child(os.getpid(), False)  # type: ignore[call-arg]


def test_a_thread_is_refused_with_the_reason() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(OSError, match="this is a thread"):
            Child(thread.native_id or 0)
    finally:
        done.set()
        thread.join()
