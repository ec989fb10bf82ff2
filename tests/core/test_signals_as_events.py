"""Signals: none is lost, each process hears its own, and close() leaves everything as it was."""

import ctypes
import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.effort import Effort
from support.fds import no_fd_left, open_fds
from support.kernel import rebuild
from support.processes import fork, in_child, run
from support.threads import until

import pyepoll
from pyepoll import Event, Signals

Epoll = pyepoll.Epoll[Any]
Show = Callable[[str], None]

HUP, USR1, USR2, TERM = signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM

FULL = 2**64 - 2
"""Makes the counter of an eventfd so full that a write would block."""


def send(*signums: int) -> None:
    for signum in signums:
        os.kill(os.getpid(), signum)


@pytest.fixture
def signals() -> Iterator[Signals]:
    with Signals(HUP, USR1, USR2, TERM) as signals:
        yield signals
        if not signals.closed:
            signals.read()  # what a test has left would end this process


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """The signals that a handler in Python gets, because no Signals object has them."""
    seen: list[int] = []
    before = {signum: signal.signal(signum, lambda signum, _: seen.append(signum)) for signum in (HUP, TERM)}
    yield seen
    for signum, handler in before.items():
        signal.signal(signum, handler)


def test_what_arrives_is_read_once_in_order(ep: Epoll, signals: Signals) -> None:
    ep.register(signals, Event.IN, signals)
    assert (ep.poll(0), signals.read()) == ([], [])
    send(TERM, HUP, TERM)
    assert ep.poll(0) == ep.poll(0) == [(signals, Event.IN)]
    assert signals.read() == [HUP, TERM]
    assert (ep.poll(0), signals.read()) == ([], [])


def test_each_signal_makes_an_edge(ep: Epoll, signals: Signals) -> None:
    ep.register(signals, Event.IN | Event.ET, "signals")
    for _ in range(3):
        send(HUP)
        assert ep.poll(0) == [("signals", Event.IN)]
        assert ep.poll(0) == []
    send(USR1)
    assert signals.read() == [HUP, USR1]


def test_ten_thousand_signals_leave_room_for_the_last(signals: Signals) -> None:
    for _ in range(5_000):
        send(HUP, USR1)
    send(TERM)
    assert signals.read() == [HUP, USR1, TERM]
    assert signals.read() == []


def test_a_full_eventfd_loses_nothing(ep: Epoll, signals: Signals) -> None:
    ep.register(signals, Event.IN, "signals")
    os.eventfd_write(signals.fileno(), FULL)
    send(HUP, TERM)
    assert ep.poll(0) == [("signals", Event.IN)]
    assert signals.read() == [HUP, TERM]
    assert ep.poll(0) == []


def test_members_of_the_enum_where_there_are_some() -> None:
    unnamed = signal.SIGRTMIN + 1
    with Signals(signal.SIGRTMAX, unnamed, HUP, HUP) as signals:
        assert signals.signals == (HUP, unnamed, signal.SIGRTMAX)
        send(unnamed, HUP, signal.SIGRTMAX, signal.SIGRTMAX)
        read = signals.read()
        assert read == [HUP, unnamed, signal.SIGRTMAX]
        assert [type(each) for each in read] == [signal.Signals, int, signal.Signals]


def test_every_signal_that_can_be_watched() -> None:
    """They all fit into the object, its text and the table."""
    refused = {signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
    program = f"""
    import os, signal
    from pyepoll import Signals
    all = sorted(signal.valid_signals() - {set(map(int, refused))!r})
    with Signals(*all) as signals:
        assert repr(signals).endswith(f" signals={{','.join(str(int(each)) for each in all)}}>")
        for signum in all:
            os.kill(os.getpid(), signum)
        assert signals.read() == all
    """
    assert run(program) == ""


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.lasts(60)
def test_none_is_lost_from_several_threads(
    ep: Epoll, pool: ThreadPoolExecutor, signals: Signals, count: int, effort: Effort, show: Show
) -> None:
    """Each thread counts up, then sends: the reader sees the last count of each in the end."""
    each, counts = effort(2_500, 50_000), [0] * count
    ep.register(signals, Event.IN)

    def work(number: int) -> None:
        for turn in range(each):
            counts[number] += 1
            os.kill(os.getpid(), (HUP, USR1)[number % 2])
            if turn % 16 == 0:
                time.sleep(0)  # or the threads would run one after another

    working = [pool.submit(work, number) for number in range(count)]
    last, reads = {HUP: 0, USR1: 0}, 0
    while last != {HUP: sum(counts[::2]), USR1: sum(counts[1::2])} or not all(map(_done, working)):
        assert ep.poll(10) != [] or all(map(_done, working)), "slept through a signal"
        for signum in signals.read():
            last[signal.Signals(signum)] = sum(counts[(signum == USR1) :: 2])
            reads += 1
    for each_work in working:
        each_work.result()
    show(f"{count * each} signals, none lost, read as {reads}")


def _done(work: Any) -> bool:
    return bool(work.done())


SIGNAL_IN_READ = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>

int eventfd_read(int fd, eventfd_t *value)
{
    int (*next)(int, eventfd_t *) = dlsym(RTLD_NEXT, "eventfd_read");
    if (getenv("BEFORE") != NULL) {
        raise(SIGUSR1);
    }
    int status = next(fd, value);
    if (getenv("AFTER") != NULL) {
        raise(SIGUSR1);
    }
    return status;
}
"""


@pytest.mark.parametrize("moment", ["BEFORE", "AFTER"])
def test_a_signal_in_the_middle_of_a_read(preload: Callable[[str], None], moment: str) -> None:
    """It is read at once, or the object is readable after it."""
    preload(SIGNAL_IN_READ)
    program = f"""
    import os, select, signal
    from pyepoll import Signals
    with Signals(signal.SIGUSR1) as signals:
        os.environ["{moment}"] = "1"
        seen = signals.read()
        del os.environ["{moment}"]
        if not seen:
            assert select.select([signals], [], [], 0)[0] == [signals]
            seen = signals.read()
        assert seen == [signal.SIGUSR1]
    """
    assert run(program) == ""


def test_the_thread_that_a_signal_goes_to_does_not_matter(
    ep: Epoll, pool: ThreadPoolExecutor, signals: Signals
) -> None:
    """Not the main thread, and not the one that waits: a Python handler would run too late."""
    ep.register(signals, Event.IN, "signals")
    asleep, go = threading.Event(), threading.Event()

    def sleep() -> int:
        asleep.set()
        go.wait(30)
        return threading.get_ident()

    sleeping = pool.submit(sleep)
    asleep.wait(10)
    thread = next(each for each in threading.enumerate() if each.name.startswith("ThreadPool"))
    assert thread.ident is not None
    for _ in range(100):
        signal.pthread_kill(thread.ident, USR1)
        assert ep.poll(10) == [("signals", Event.IN)]
        assert signals.read() == [USR1]
    go.set()
    assert sleeping.result() == thread.ident


def test_a_call_in_c_that_it_interrupts_goes_on(pool: ThreadPoolExecutor, signals: Signals) -> None:
    """SA_RESTART: no other code of the process sees EINTR."""
    read_end, write_end = os.pipe()
    libc = ctypes.CDLL(None, use_errno=True)
    ident: list[int] = []

    def work() -> tuple[int, int]:
        ident.append(threading.get_ident())
        return int(
            libc.read(read_end, ctypes.create_string_buffer(1), ctypes.c_size_t(1))
        ), ctypes.get_errno()

    reading = pool.submit(work)
    until(lambda: bool(ident))
    for _ in range(20):
        time.sleep(0.002)
        signal.pthread_kill(ident[0], USR2)
        until(lambda: signals.read() == [USR2])
    os.write(write_end, b"x")
    assert reading.result() == (1, 0)
    os.close(read_end)
    os.close(write_end)


# Before and after: the former actions.


def test_close_restores_a_handler(handled: list[int]) -> None:
    with Signals(HUP) as signals:
        send(HUP)
        assert (handled, signals.read()) == ([], [HUP])
        assert callable(signal.getsignal(HUP))
    send(HUP)
    assert handled == [HUP]


@pytest.mark.parametrize("action", [signal.SIG_DFL, signal.SIG_IGN])
@pytest.mark.parametrize("end", ["signals.close()", "del signals"])
def test_the_end_restores_an_action(action: signal.Handlers, end: str) -> None:
    program = f"""
import os, signal
from pyepoll import Signals
signal.signal(signal.SIGTERM, signal.Handlers({int(action)}))
signals = Signals(signal.SIGTERM)
os.kill(os.getpid(), signal.SIGTERM)
assert signals.read() == [signal.SIGTERM]
{end}
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
    )
    assert done.returncode == (-TERM if action == signal.SIG_DFL else 0)


def test_a_signal_that_was_not_read_goes_to_the_former_action(handled: list[int]) -> None:
    """As if it had come after the close."""
    with Signals(HUP, TERM) as signals:
        send(HUP)
        assert signals.read() == [HUP]
        send(TERM)
    assert handled == [TERM]


def test_an_action_that_was_set_meanwhile_stays() -> None:
    """The former one would end the program."""
    program = """
    import os, signal
    from pyepoll import Signals
    seen = []
    with Signals(signal.SIGHUP, signal.SIGTERM) as signals:
        signal.signal(signal.SIGHUP, lambda signum, _: seen.append(signum))
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (seen, signals.read()) == ([signal.SIGHUP], [signal.SIGTERM])
    os.kill(os.getpid(), signal.SIGHUP)
    assert seen == [signal.SIGHUP] * 2
    """
    assert run(program) == ""


def test_the_wakeup_fd_of_the_interpreter_is_not_used(signals: Signals) -> None:
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    before = signal.set_wakeup_fd(write_end)
    try:
        send(HUP)
        with pytest.raises(BlockingIOError):
            os.read(read_end, 1)
    finally:
        signal.set_wakeup_fd(before)
        os.close(read_end)
        os.close(write_end)


def test_a_signal_has_one_object() -> None:
    fds = open_fds()
    with Signals(HUP, USR1) as first, Signals(TERM) as other:
        with pytest.raises(OSError, match=r"signal 10 belongs to another Signals object") as caught:
            Signals(USR2, USR1)
        assert caught.value.errno == errno.EBUSY
        send(USR1, TERM)
        assert (first.read(), other.read()) == ([USR1], [TERM])
    assert open_fds() == fds
    with Signals(USR1, TERM) as again:
        send(TERM)
        assert again.read() == [TERM]


def test_a_refused_object_takes_no_signal(handled: list[int]) -> None:
    with Signals(USR1), pytest.raises(OSError, match="another"):
        Signals(HUP, USR1)
    send(HUP)
    assert handled == [HUP]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((), TypeError, "at least one signal"),
        ((signal.SIGKILL,), ValueError, "SIGKILL cannot be caught"),
        ((HUP, signal.SIGSTOP), ValueError, "SIGSTOP cannot be caught"),
        ((signal.SIGSEGV,), ValueError, "SIGSEGV reports a fault"),
        ((signal.SIGBUS,), ValueError, "SIGBUS reports a fault"),
        ((signal.SIGFPE,), ValueError, "SIGFPE reports a fault"),
        ((signal.SIGILL,), ValueError, "SIGILL reports a fault"),
        ((0,), ValueError, "signal number 0 is not one of"),
        ((65,), ValueError, "signal number 65 is not one of"),
        ((32,), ValueError, "signal number 32 is not one of"),
        ((-1,), ValueError, "signal number -1 is not one of"),
        ((2**31,), OverflowError, "32 bits"),
        (("HUP",), TypeError, "int"),
        (([HUP],), TypeError, "int"),
    ],
)
def test_what_cannot_be_watched(arguments: tuple[Any, ...], error: type[Exception], text: str) -> None:
    fds = open_fds()
    with pytest.raises(error, match=text):
        Signals(*arguments)
    assert open_fds() == fds


def test_no_keywords() -> None:
    with pytest.raises(TypeError, match="keyword"):
        Signals(HUP, fd=3)  # type: ignore[call-arg]


# Children.


def caught_and_blocked(status: str) -> tuple[int, int, int]:
    values = dict(
        line.split(":\t") for line in status.splitlines() if line.startswith("Sig") and ":\t" in line
    )
    return tuple(int(values[name], 16) for name in ("SigCgt", "SigBlk", "SigIgn"))  # type: ignore[return-value]


@pytest.mark.parametrize("way", ["subprocess", "preexec_fn", "posix_spawn"])
def test_a_program_that_is_started_inherits_nothing(signals: Signals, way: str, tmp_path: Path) -> None:
    """With signalfd it would have the signals blocked."""
    bits = sum(1 << (signum - 1) for signum in (HUP, USR1, USR2, TERM))
    caught, _, _ = caught_and_blocked(Path("/proc/self/status").read_text())
    assert caught & bits == bits
    out = tmp_path / "status"
    command = ["sh", "-c", f"cat /proc/self/status >{out}"]
    if way == "posix_spawn":
        os.waitpid(os.posix_spawnp("sh", command, os.environ), 0)
    else:
        subprocess.run(command, preexec_fn=(lambda: None) if way == "preexec_fn" else None, check=True)
    assert all(values & bits == 0 for values in caught_and_blocked(out.read_text()))


@pytest.mark.parametrize("public", [False, True], ids=["private", "fileno() was called"])
@pytest.mark.parametrize("first", ["poll", "read", "fileno"])
def test_a_child_hears_its_own_signals_only(ep: Epoll, signals: Signals, public: bool, first: str) -> None:
    ep.register(signals, Event.IN, "signals")
    if public:
        ep.fileno()
    send(USR1)  # the parent's, and not read yet
    number = signals.fileno()

    def child() -> None:
        use: dict[str, Callable[[], object]] = {
            "poll": lambda: ep.poll(0),
            "read": signals.read,
            "fileno": signals.fileno,
        }
        assert use[first]() == {"poll": [], "read": [], "fileno": number}[first]
        assert ep.poll(0) == []
        send(HUP, TERM)
        assert ep.poll(10) == [("signals", Event.IN)]
        assert signals.read() == [HUP, TERM]
        assert ep.poll(0) == []
        with pytest.raises(OSError, match="another"):
            Signals(HUP)
        signals.close()
        with Signals(HUP) as again:
            send(HUP)
            assert again.read() == [HUP]

    assert in_child(child) == ""
    assert ep.poll(0) == [("signals", Event.IN)]
    assert signals.read() == [USR1]
    assert ep.poll(0) == []
    send(HUP)
    assert ep.poll(0) == [("signals", Event.IN)]


def test_a_child_that_does_nothing_does_not_wake_its_parent(ep: Epoll, signals: Signals) -> None:
    ep.register(signals, Event.IN)
    child = fork()
    if child == 0:
        send(HUP, TERM)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert (ep.poll(0), signals.read()) == ([], [])


def test_a_child_and_a_grandchild(signals: Signals) -> None:
    """As a daemon is made."""

    def grandchild() -> None:
        send(TERM)
        assert signals.read() == [TERM]

    def child() -> None:
        send(HUP)
        assert in_child(grandchild) == ""
        assert signals.read() == [HUP]

    assert in_child(child) == ""
    assert signals.read() == []


def test_close_in_a_child_restores_the_action_there_alone(signals: Signals) -> None:
    child = fork()
    if child == 0:
        signals.close()
        send(TERM)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -TERM
    send(TERM)
    assert signals.read() == [TERM]


def test_a_child_gets_an_fd_where_none_is_left(ep: Epoll, signals: Signals) -> None:
    ep.register(signals, Event.IN, "signals")
    send(USR1)

    def child() -> None:
        send(HUP)
        assert signals.read() == [HUP]

    with no_fd_left(2):  # for the pipe to the test
        assert in_child(child) == ""
    assert signals.read() == [USR1]


def test_children_made_while_signals_arrive(
    pool: ThreadPoolExecutor, signals: Signals, fast_switching: None, effort: Effort
) -> None:
    """No handler of a thread that the child does not have is waited for."""
    done = threading.Event()

    def storm() -> None:
        while not done.is_set():
            signal.pthread_kill(threading.get_ident(), USR1)

    def child() -> None:
        send(TERM)
        assert TERM in signals.read()
        assert signals.read() == []
        signals.close()

    storms = [pool.submit(storm) for _ in range(3)]
    try:
        for _ in range(effort(20, 1000)):
            assert in_child(child) == ""
    finally:
        done.set()
    for each in storms:
        each.result(10)
    assert TERM not in signals.read()


def test_a_child_leaves_an_fd_that_it_did_not_inherit(signals: Signals) -> None:
    """A thread with an fd table of its own has another file under the fd, and its child gets that."""
    unshare, number = ctypes.CDLL(None).unshare, signals.fileno()

    def child() -> None:
        with pytest.raises(OSError, match="not its eventfd") as caught:
            signals.read()
        assert caught.value.errno == errno.EBADF
        signals.close()
        assert os.eventfd_read(number) == 7

    def work() -> str:
        assert unshare(0x400) == 0  # CLONE_FILES
        other = os.eventfd(7)
        os.dup2(other, number)
        return in_child(child)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result(60) == ""
    send(USR1)
    assert signals.read() == [USR1]


def test_a_thread_with_an_fd_table_of_its_own_writes_to_no_other_file(signals: Signals, ep: Epoll) -> None:
    """The thread that made the object makes it readable."""
    ep.register(signals, Event.IN, "signals")
    number = signals.fileno()

    def work() -> None:
        assert ctypes.CDLL(None).unshare(0x400) == 0  # CLONE_FILES
        other = os.eventfd(0, os.EFD_NONBLOCK)
        os.dup2(other, number)
        for _ in range(10):
            signal.pthread_kill(threading.get_ident(), USR1)
        with pytest.raises(BlockingIOError):
            os.eventfd_read(number)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(60)
    assert ep.poll(10) == [("signals", Event.IN)]
    assert signals.read() == [USR1]


# The end of an object.


@pytest.mark.lasts(240)
def test_close_against_a_storm(
    pool: ThreadPoolExecutor, fast_switching: None, effort: Effort, show: Show
) -> None:
    """Four threads send while it is closed, and an eventfd takes the fd at once: not one count in it."""
    before = signal.signal(USR1, signal.SIG_IGN)
    rounds, done = effort(40, 20_000), threading.Event()

    def storm() -> None:
        while not done.is_set():
            for _ in range(20):
                signal.pthread_kill(threading.get_ident(), USR1)

    storms = [pool.submit(storm) for _ in range(4)]
    try:
        for _ in range(rounds):
            signals = Signals(USR1)
            number = signals.fileno()
            until(lambda signals=signals: signals.read() == [USR1])  # type: ignore[misc]
            signals.close()
            unrelated = os.eventfd(0, os.EFD_NONBLOCK)
            assert unrelated == number
            time.sleep(0)
            with pytest.raises(BlockingIOError):
                os.eventfd_read(unrelated)
            os.close(unrelated)
    finally:
        done.set()
        for each in storms:
            each.result(10)
        signal.signal(USR1, before)
    show(f"strays 0 of {rounds}")


SLOW_WRITE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/eventfd.h>
#include <unistd.h>

int eventfd_write(int fd, eventfd_t value)
{
    int (*next)(int, eventfd_t) = dlsym(RTLD_NEXT, "eventfd_write");
    usleep(300000);
    return next(fd, value);
}
"""
"""The handler is interrupted for long between reading the fd and writing to it."""


def test_close_waits_for_a_handler_in_another_thread(preload: Callable[[str], None]) -> None:
    preload(SLOW_WRITE)
    program = """
    import os, signal, threading, time
    from pyepoll import Signals
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signals, done = Signals(signal.SIGUSR1), threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    number = signals.fileno()
    signal.pthread_kill(thread.ident, signal.SIGUSR1)
    time.sleep(0.1)
    signals.close()
    unrelated = os.eventfd(0, os.EFD_NONBLOCK)
    assert unrelated == number
    done.set()
    thread.join()
    try:
        print(os.eventfd_read(unrelated))
    except BlockingIOError:
        print("untouched")
    """
    assert run(program) == "untouched\n"


SLOW_SIGACTION = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

int sigaction(int signum, const struct sigaction *action, struct sigaction *former)
{
    int (*next)(int, const struct sigaction *, struct sigaction *) = dlsym(RTLD_NEXT, "sigaction");
    if (getenv("SLOW") != NULL) {
        usleep(300000);
    }
    return next(signum, action, former);
}
"""


def test_no_thread_finds_an_object_that_does_not_watch_yet(preload: Callable[[str], None]) -> None:
    """gc.get_objects() finds what the garbage collector tracks."""
    preload(SLOW_SIGACTION)
    program = """
    import gc, os, signal, threading
    from pyepoll import Signals
    made = []
    thread = threading.Thread(target=lambda: made.append(Signals(signal.SIGUSR1)))
    os.environ["SLOW"] = "1"
    thread.start()
    while thread.is_alive():
        for each in gc.get_objects():
            if type(each) is Signals:
                each.fileno(), each.read()
    del os.environ["SLOW"]
    os.kill(os.getpid(), signal.SIGUSR1)
    assert made[0].read() == [signal.SIGUSR1]
    """
    assert run(program) == ""


def test_a_thread_that_comes_late_to_the_handler_loses_nothing() -> None:
    """The kernel has chosen the handler, then another thread closes the object, then the handler runs."""
    program = """
    import ctypes, signal
    from pyepoll import Signals
    seen = []
    signal.signal(signal.SIGUSR1, lambda signum, _: seen.append(signum))
    for turn in 1, 2:
        signals = Signals(signal.SIGUSR1)
        action = (ctypes.c_void_p * 32)()  # struct sigaction, which begins with the handler
        assert ctypes.CDLL(None).sigaction(int(signal.SIGUSR1), None, action) == 0
        handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(action[0])
        signals.close()
        handler(signal.SIGUSR1)
        assert seen == [signal.SIGUSR1] * turn
        # Code that has kept the handler, and calls it for each signal, does not go on without end.
        handler(signal.SIGUSR1)
        assert seen == [signal.SIGUSR1] * turn
    with Signals(signal.SIGUSR1) as signals:
        assert signals.read() == []
        handler(signal.SIGUSR1)
        assert signals.read() == [signal.SIGUSR1]
    """
    assert run(program) == ""


def test_closed_touches_no_fd(handled: list[int]) -> None:
    signals = Signals(HUP)
    number = signals.fileno()
    signals.close()
    unrelated = os.eventfd(0, os.EFD_NONBLOCK)
    assert unrelated == number
    assert signals.closed
    for _ in range(3):
        send(HUP)
        signals.close()
    for call in signals.fileno, signals.read, signals.__enter__:
        with pytest.raises(ValueError, match="closed signals object"):
            call()
    del signals
    with pytest.raises(BlockingIOError):
        os.eventfd_read(unrelated)
    os.close(unrelated)


def test_an_fd_that_was_closed_elsewhere_is_an_error(handled: list[int]) -> None:
    signals = Signals(HUP)
    os.close(signals.fileno())
    send(HUP)
    with pytest.raises(OSError, match="read: eventfd"):
        signals.read()
    with pytest.raises(OSError, match="close eventfd"):
        signals.close()
    signals.close()
    assert handled == [HUP]  # not lost


def test_nothing_is_written_to_a_file_that_has_the_fd_now(signals: Signals, tmp_path: Path) -> None:
    """A daemon that closes all its fds, and then opens files of its own."""
    fd = signals.fileno()
    saved = os.dup(fd)
    with (tmp_path / "log").open("wb", buffering=0) as log:
        os.dup2(log.fileno(), fd)
        send(HUP)
    os.dup2(saved, fd, inheritable=False)
    os.close(saved)
    assert (tmp_path / "log").read_bytes() == b""
    send(USR1)
    assert signals.read() == [HUP, USR1]


def test_an_object_that_is_dropped_gives_the_signal_back(handled: list[int]) -> None:
    fds = open_fds()
    Signals(HUP)
    gc.collect()
    send(HUP)
    assert handled == [HUP]
    assert open_fds() == fds


def test_no_fd_left_takes_no_signal(handled: list[int]) -> None:
    with no_fd_left(), pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        Signals(HUP)
    send(HUP)
    assert handled == [HUP]


def test_close_and_read_in_many_threads(
    pool: ThreadPoolExecutor, fast_switching: None, handled: list[int]
) -> None:
    """Each signal goes to one reader, or to the former action if it is closed before one reads."""
    for _ in range(30):
        signals = Signals(HUP, TERM)

        def work(signals: Signals = signals) -> list[int]:
            seen = []
            try:
                while True:
                    seen += signals.read()
            except ValueError:
                return seen

        readers = [pool.submit(work) for _ in range(4)]
        send(HUP, TERM)
        signals.close()
        seen = [signum for each in readers for signum in each.result(10)]
        assert sorted([*seen, *handled]) == [HUP, TERM]
        handled.clear()


def test_a_rebuild_keeps_it(ep: Epoll, signals: Signals) -> None:
    ep.register(signals, Event.IN, "signals")
    rebuild(ep)
    send(HUP)
    assert ep.poll(0) == [("signals", Event.IN)]
