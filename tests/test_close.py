"""close() ends every wait, from anywhere, and no call ever acts on a file that took the number."""

import contextlib
import functools
import gc
import os
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import HANG, fdinfo, no_fd_left, open_fds, run, until, waiters

import pyepoll
from pyepoll import Event

Epoll = pyepoll.Epoll[Any]
Eventfd = Callable[..., int]

CLOSED = "I/O operation on closed epoll object"


def outcome(wait: Callable[[], object]) -> object:
    """What a wait returns, or the text of its ValueError."""
    try:
        return wait()
    except ValueError as error:
        return str(error)


WAITS: dict[str, Callable[[Any], object]] = {
    "poll": lambda ep: ep.poll(),
    "poll for long": lambda ep: ep.poll(3600),
    "wait": lambda ep: list(ep.wait()),
    "masked wait": lambda ep: list(ep.wait(3600, sigmask=[signal.SIGUSR1])),
    "iteration": lambda ep: list(ep),
}
ENDS = {name: [] if name == "iteration" else CLOSED for name in WAITS}


@pytest.mark.parametrize("name", WAITS)
@pytest.mark.parametrize("count", [1, 8])
def test_from_another_thread(
    ep: Epoll, pool: ThreadPoolExecutor, eventfd: Eventfd, name: str, count: int
) -> None:
    ep.register(eventfd(), Event.IN)
    number = ep.fileno()
    waits = [pool.submit(outcome, lambda: WAITS[name](ep)) for _ in range(count)]
    until(lambda: waiters() == count)
    ep.close()
    assert [wait.result(10) for wait in waits] == [ENDS[name]] * count
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


@pytest.mark.xfail(raises=TimeoutError, reason="stock leaves its waiters asleep")
def test_stock_from_another_thread(pool: ThreadPoolExecutor) -> None:
    ep = select.epoll()
    # What ends it here is kept open beside the epoll that is closed.
    wakes, keep = os.eventfd(0), os.dup(ep.fileno())
    ep.register(wakes, select.EPOLLIN)
    wait = pool.submit(ep.poll)
    until(lambda: waiters() == 1)
    ep.close()
    try:
        wait.result(0.2)
    finally:
        os.eventfd_write(wakes, 1)
        wait.exception(10)
        os.close(wakes)
        os.close(keep)


def test_every_kind_of_waiter_at_once(ep: Epoll, pool: ThreadPoolExecutor) -> None:
    waits = {name: pool.submit(outcome, functools.partial(wait, ep)) for name, wait in WAITS.items()}
    until(lambda: waiters() == len(waits))
    ep.close()
    assert {name: wait.result(10) for name, wait in waits.items()} == ENDS


def test_without_pwait2(ep: Epoll, pool: ThreadPoolExecutor) -> None:
    before = pyepoll._epoll._use_pwait2(False)
    try:
        test_every_kind_of_waiter_at_once(ep, pool)
    finally:
        pyepoll._epoll._use_pwait2(before)


def test_while_events_pour_in(ep: Epoll, pool: ThreadPoolExecutor, eventfd: Eventfd) -> None:
    """Waiters that find events all the time see the close too."""
    ep.register(eventfd(1), Event.IN)

    def forever() -> object:
        while True:
            ep.poll()

    waits = [pool.submit(outcome, forever) for _ in range(4)]
    iterations = [pool.submit(outcome, lambda: sum(1 for _ in ep) > 0) for _ in range(4)]
    time.sleep(0.05)
    ep.close()
    assert [wait.result(10) for wait in waits] == [CLOSED] * 4
    assert [each.result(10) for each in iterations] == [True] * 4


def test_within_an_iteration(ep: Epoll, eventfd: Eventfd) -> None:
    for _ in range(3):
        ep.register(eventfd(1), Event.IN | Event.ET)
    seen = []
    for data, _ in ep:
        seen.append(data)
        ep.close()
    assert len(seen) == 1


def test_from_a_signal_handler_that_interrupts_the_wait() -> None:
    for wait, end in zip(WAITS.values(), ENDS.values(), strict=True):
        ep = pyepoll.Epoll[Any]()
        number = ep.fileno()
        before = signal.signal(signal.SIGALRM, lambda *_, ep=ep: ep.close())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.03)
            assert outcome(functools.partial(wait, ep)) == end
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


class Closes:
    """An argument whose conversion closes the epoll, and lets a stranger take its number."""

    def __init__(self, ep: Epoll, value: int) -> None:
        self.ep, self.value = ep, value
        self.number = ep.fileno()
        self.stranger = select.epoll()

    def fileno(self) -> int:
        self.ep.close()
        os.dup2(self.stranger.fileno(), self.number)
        return self.value

    __index__ = fileno


@pytest.mark.parametrize(
    "call",
    [
        lambda ep, fd, closes: ep.register(closes(fd), Event.IN),
        lambda ep, fd, closes: ep.register(0, closes(1)),
        lambda ep, fd, closes: ep.modify(closes(fd), Event.OUT),
        lambda ep, fd, closes: ep.modify(fd, closes(4)),
        lambda ep, fd, closes: ep.unregister(closes(fd)),
        lambda ep, fd, closes: ep.rearm(closes(fd)),
        lambda ep, fd, closes: ep.poll(closes(0)),
        lambda ep, fd, closes: ep.poll(0, closes(1)),
        lambda ep, fd, closes: ep.wait(0, 1, [closes(int(signal.SIGUSR1))]),
    ],
    ids=["register", "mask", "modify", "new mask", "unregister", "rearm", "timeout", "maxevents", "sigmask"],
)
def test_from_the_conversion_of_an_argument(
    ep: Epoll, eventfd: Eventfd, call: Callable[[Epoll, int, Callable[[int], Any]], object]
) -> None:
    fd = eventfd(1)
    ep.register(fd, Event.IN)
    made: list[Closes] = []

    def closes(value: int) -> Closes:
        made.append(Closes(ep, value))
        return made[-1]

    with pytest.raises(ValueError, match=CLOSED):
        call(ep, fd, closes)
    (argument,) = made
    assert fdinfo(argument.stranger) == {}
    os.close(argument.number)
    argument.stranger.close()


@pytest.mark.parametrize("action", ["unregister", "modify", "replace", "collect"])
def test_from_the_finalizer_of_data(eventfd: Eventfd, action: str) -> None:
    ep, fd = pyepoll.Epoll[Any](), eventfd(1)
    number = ep.fileno()

    class Data:
        def __init__(self) -> None:
            self.ep = ep

        def __del__(self) -> None:
            self.ep.close()

    ep.register(fd, Event.IN, Data())
    ep.register(eventfd(), Event.IN, [Data()])
    assert len(ep.poll(0)) == 1
    if action == "unregister":
        ep.unregister(fd)
    elif action in ("modify", "replace"):
        ep.modify(fd, Event.OUT, None)
    closed = ep.closed
    if action == "collect":
        closed = True
        del ep, Data
    gc.collect()
    assert closed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_from_the_finalizer_of_data_while_a_waiter_leaves(ep: Epoll, eventfd: Eventfd, pool: Any) -> None:
    """Whoever leaves last releases the data, in its own thread; what runs there may use the epoll."""
    seen: list[object] = []

    class Data:
        def __del__(self) -> None:
            ep.close()
            seen.append((outcome(ep.poll), outcome(ep.fileno), len(ep), threading.get_ident()))

    ep.register(eventfd(), Event.IN, Data())
    wait = pool.submit(lambda: (outcome(ep.poll), threading.get_ident()))
    until(lambda: waiters() == 1)
    ep.close()
    text, thread = wait.result(10)
    assert text == CLOSED
    until(lambda: len(seen) == 1)
    # Without a GIL the one who closes may be the last to leave.
    assert seen in [[(CLOSED, CLOSED, 0, each)] for each in (thread, threading.get_ident())]


def test_twice(ep: Epoll, pool: ThreadPoolExecutor) -> None:
    for _ in range(3):
        ep.close()
        assert ep.closed
    with pyepoll.Epoll[int]() as other:
        assert list(pool.map(lambda _: other.close(), range(8))) == [None] * 8
        assert other.closed


def test_twice_closes_no_stranger(ep: Epoll) -> None:
    number = ep.fileno()
    ep.close()
    stranger = os.open(os.devnull, os.O_RDONLY)
    os.dup2(stranger, number)
    ep.close()
    ep.__exit__(None, None, None)
    del ep
    gc.collect()
    os.fstat(number)
    for fd in {stranger, number}:
        os.close(fd)


def test_all_methods_after_close(ep: Epoll, eventfd: Eventfd) -> None:
    fd = eventfd(1)
    ep.register(fd, Event.IN)
    waited, endless = ep.wait(0), iter(ep)
    ep.close()
    calls: list[Callable[[], object]] = [
        ep.fileno,
        ep.poll,
        ep.wait,
        ep.__enter__,
        lambda: iter(ep),
        lambda: ep.register(fd),
        lambda: ep.modify(fd, 1),
        lambda: ep.unregister(fd),
        lambda: ep.rearm(fd),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=CLOSED):
            call()
    assert list(waited) == list(endless) == []
    assert len(ep) == 0
    assert ep.stats()["waits"] == 1


@pytest.mark.parametrize("how", ["ctl", "poll", "wait"])
def test_no_call_acts_on_a_stranger(pool: ThreadPoolExecutor, how: str) -> None:
    """While the epoll is closed, a stranger's epoll takes its number over and over; nothing gets into it, and
    what is ready there does not come out of ours."""
    fd, bait = os.eventfd(1), os.eventfd(1)
    strays: list[object] = []
    for _ in range(100):
        ep = pyepoll.Epoll[Any]()
        number = ep.fileno()
        started = threading.Event()

        def work(ep: Epoll = ep, started: threading.Event = started) -> list[Any]:
            started.set()
            with contextlib.suppress(ValueError):
                while True:
                    if how == "ctl":
                        ep.register(fd, Event.IN)
                        ep.unregister(fd)
                    elif events := ep.poll(0) if how == "poll" else list(ep.wait(0.001)):
                        return events
            return []

        working = pool.submit(work)
        started.wait(10)
        ep.close()
        deadline = time.monotonic() + 10
        while (stranger := select.epoll()).fileno() != number and not working.done():
            stranger.close()
            assert time.monotonic() < deadline
        stranger.register(bait, select.EPOLLIN)
        strays += working.result(10)
        strays += [each for each in fdinfo(stranger) if each != bait]
        stranger.close()
    os.close(fd)
    os.close(bait)
    assert strays == []


def test_no_fd_is_left_behind(eventfd: Eventfd, pool: ThreadPoolExecutor) -> None:
    fd = eventfd(1)
    list(pool.map(lambda _: time.sleep(0.001), range(32)))
    before = open_fds()
    for _ in range(50):
        ep = pyepoll.Epoll[int]()
        ep.register(fd, Event.IN)
        ep.poll(0)
        wait = pool.submit(outcome, functools.partial(list, iter(ep)))
        ep.close()
        wait.result(10)
    assert open_fds().keys() == before.keys()


def test_when_no_fd_is_left(ep: Epoll) -> None:
    with no_fd_left():
        ep.close()
        freed = os.dup(0)
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(0)
    os.close(freed)


@pytest.mark.parametrize("count", [1, 8])
def test_waiters_are_woken_when_no_fd_is_left(ep: Epoll, pool: ThreadPoolExecutor, count: int) -> None:
    waits = [pool.submit(outcome, ep.poll) for _ in range(count)]
    until(lambda: waiters() == count)
    with no_fd_left():
        ep.close()
        assert [wait.result(10) for wait in waits] == [CLOSED] * count


def test_between_two_events_of_a_list(ep: Epoll, eventfd: Eventfd, make_events: Any) -> None:
    """poll() without a timeout does not return an empty list."""
    ep.register(eventfd(1), Event.IN)

    def make(mask: int) -> Event:
        ep.close()
        return Event(mask)

    make_events(make)
    with pytest.raises(ValueError, match=CLOSED):
        ep.poll()


def test_a_foreign_instance_is_left_as_it_was(pool: ThreadPoolExecutor) -> None:
    """What wakes the waiters does not stay in it."""
    with select.epoll() as stock:
        ep = pyepoll.Epoll[Any].fromfd(os.dup(stock.fileno()))
        wait = pool.submit(outcome, ep.poll)
        until(lambda: waiters() == 1)
        ep.close()
        assert wait.result(10) == CLOSED
        assert fdinfo(stock) == {}
        assert stock.poll(0) == []


# The end of the interpreter.

AT_EXIT = """
    import atexit, contextlib, os, sys, threading, time
    import pyepoll
    from pyepoll import Event

    ep, waker, fds = pyepoll.Epoll(), pyepoll.Waker(), [os.eventfd(1) for _ in range(4)]
    ep.register(waker, Event.IN | Event.ET)

    def poll():
        # Closed at exit, it would be a matter of time whether a thread gets to print its traceback.
        with contextlib.suppress(ValueError):
            while True:
                ep.poll()

    def iterate():
        for _ in ep:
            pass

    for target in [poll, iterate] * 4:
        threading.Thread(target=target, daemon=True).start()
    time.sleep(0.02)
    for fd in fds[1:]:
        ep.register(fd, Event.IN | Event.ET)
    held = ep.wait(0)
    if "close" in sys.argv:
        atexit.register(ep.close)
    if "raise" in sys.argv:
        sys.exit("the end")
"""


@pytest.mark.parametrize("how", ["", "close", "raise"])
def test_exit_while_daemon_threads_wait(how: str) -> None:
    """No crash, no hang, nothing printed."""
    program = [sys.executable, "-P", "-W", "error", "-c", textwrap.dedent(AT_EXIT), *how.split()]
    for _ in range(3):
        done = subprocess.run(program, capture_output=True, text=True, timeout=HANG / 2)
        assert (done.returncode, done.stderr) == ((1, "the end\n") if how == "raise" else (0, ""))


def test_exit_while_daemon_threads_register() -> None:
    """One that ended with the ctl lock never lets go of it, and what is finalized then needs it."""
    out = run("""
        import os, sys, threading, time
        import pyepoll
        from pyepoll import Event

        ep, fds = pyepoll.Epoll(), [os.eventfd(0) for _ in range(300)]
        for fd in fds:
            ep.register(fd, Event.IN)

        def modify():
            while True:
                ep.modify(fds[0], Event.IN)

        for _ in range(4):
            threading.Thread(target=modify, daemon=True).start()

        class Last:
            def __init__(self):
                self.ep, self.fds, self.write = ep, fds, os.write

            def __del__(self):
                for fd in self.fds:
                    self.ep.unregister(fd)
                self.write(1, b"fine")

        sys.last = Last()
        time.sleep(0.05)
    """)
    assert out == "fine"


# Each step at the worst moment: a system call that is entered late.

DELAY = """
    import os, select, sys, threading, time
    import pyepoll
    from pyepoll import Event

    ep, fd = pyepoll.Epoll(), os.eventfd(1)
    number = ep.fileno()
    out = []

    def work():
        try:
            out.append({work})
        except ValueError as error:
            out.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.1)
    start = time.monotonic()
    ep.close()
    assert time.monotonic() - start < {within}, "close waits"
    strangers, deadline = [], time.monotonic() + 10
    while thread.is_alive():
        # A stranger may have the number once the call is over, though its thread is not. If it has it before,
        # what is registered shows up there, and a wait on it does not end.
        strangers.append(select.epoll())
        thread.join(0.01)
        assert time.monotonic() < deadline, "it waits on a stranger"
    strangers.append(select.epoll())
    assert number in [each.fileno() for each in strangers], "nobody has closed it"
    for each in strangers:
        with open(f"/proc/self/fdinfo/{{each.fileno()}}") as file:
            assert "tfd" not in file.read()
    print(*out)
"""


def can_trace() -> bool:
    """Whether strace is here, and allowed to trace."""
    if shutil.which("strace") is None:
        return False
    inject = ["strace", "-f", "-qq", "-e", "trace=getppid", "-e", "inject=getppid:delay_enter=1"]
    return subprocess.run([*inject, "true"], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("syscall", "work", "within", "printed"),
    [
        ("epoll_ctl", "ep.register(fd, Event.IN)", 0.5, "None"),
        ("epoll_ctl", "ep.unregister(fd)", 0.5, None),
        # The call that wakes the waiters is late as well.
        ("epoll_wait,epoll_pwait", "ep.poll()", 0.5, CLOSED),
        ("epoll_wait,epoll_pwait", "list(ep)", 0.5, "[]"),
        ("epoll_pwait2", "ep.poll(3600)", 0.5, CLOSED),
    ],
)
def test_a_delayed_call(syscall: str, work: str, within: float, printed: str | None) -> None:
    if not can_trace():
        pytest.skip("no strace that may trace")
    done = subprocess.run(
        [
            *("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={syscall}"),
            *("-e", f"inject={syscall}:delay_enter=1000000", sys.executable, "-P", "-W", "error", "-c"),
            textwrap.dedent(DELAY).format(work=work, within=within),
        ],
        capture_output=True,
        text=True,
        timeout=HANG / 2,
    )
    if printed is None:
        assert "FileNotFoundError" in done.stderr
    else:
        assert (done.stderr, done.stdout) == ("", f"{printed}\n")


EXIT_IN_CTL = """
    import os, threading, time
    import pyepoll
    from pyepoll import Event

    ep, fds = pyepoll.Epoll(), [os.eventfd(1) for _ in range(2)]
    for fd in fds:
        ep.register(fd, Event.IN | Event.ET)
    # Dropped at the end, it gives back what it holds, under the ctl lock that the thread has.
    events = ep.wait(0)
    threading.Thread(target=ep.modify, args=(fds[0], Event.IN), daemon=True).start()
    time.sleep(0.2)
"""


def test_exit_while_a_daemon_thread_is_in_epoll_ctl() -> None:
    if not can_trace():
        pytest.skip("no strace that may trace")
    process = subprocess.Popen(
        [
            *("strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=epoll_ctl"),
            *("-e", "inject=epoll_ctl:delay_enter=1000000", sys.executable, "-P", "-W", "error", "-c"),
            textwrap.dedent(EXIT_IN_CTL),
        ],
        start_new_session=True,
    )
    try:
        assert process.wait(HANG / 2) == 0
    finally:
        # Killing strace alone would leave what it traces.
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
