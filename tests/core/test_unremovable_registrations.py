"""Where a stale registration cannot be removed, a wait neither spins nor delays anything that is live.

Each program has its own reason for the failing rebuild, for the main thread and from one moment on. The
wake-ups come from a thread that was started before.
"""

from collections.abc import Callable

import pytest
from support.processes import run

PRELUDE = """
import contextlib, errno, itertools, os, queue, select, signal, threading, time
from support.kernel import fdinfo_lines
from support.seccomp import deny
from support.threads import until
import pyepoll
from pyepoll import Event

base = select.epoll()
ep = pyepoll.Epoll.fromfd(base.fileno()) if {cause!r} == "foreign instance" else pyepoll.Epoll()
files = []

def leave_stale(count=1):
    for _ in range(count):
        reader, writer = os.pipe()
        ep.register(reader, Event.IN, data="stale")
        files.append((os.dup(reader), writer))
        os.close(reader)
        with contextlib.suppress(OSError):
            ep.unregister(reader)
        os.write(writer, b"x")

live = os.eventfd(0, os.EFD_NONBLOCK)
ep.register(live, Event.IN, data="live")
waker = pyepoll.Waker()
ep.register(waker, Event.IN, data="waker")

actions = queue.SimpleQueue()
def act():
    while action := actions.get():
        time.sleep(0.1)
        action()
actor = threading.Thread(target=act, daemon=True)
actor.start()

leave_stale({stale})
{begin}
before = ep.stats()
used, start = time.process_time(), time.monotonic()
"""

CAUSES = {
    "foreign instance": "",
    "fdinfo without tfd lines": "os.environ['FDINFO'] = 'empty'",
    "unreadable fdinfo": "os.environ['FDINFO'] = 'denied'",
    "no fd left": "deny('epoll_create1', errno.EMFILE)",
    "no watch left": "os.environ['NO_WATCH_LEFT'] = '1'",
}
"""Why the rebuild fails; the last two deny a guard epoll as well."""

PRELOADED = {"fdinfo without tfd lines", "unreadable fdinfo", "no watch left"}

WRAPPER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* What a sandbox shows of an epoll that imitates /proc, or a process that has dropped its privileges. */
static FILE *
open_instead(const char *name, const char *path, const char *mode)
{
    const char *how = strstr(path, "/fdinfo/") != NULL ? getenv("FDINFO") : NULL;
    if (how != NULL && strcmp(how, "denied") == 0) {
        errno = EACCES;
        return NULL;
    }
    if (how != NULL && strcmp(how, "empty") == 0) {
        path = "/dev/null";
    }
    FILE *(*real)(const char *, const char *) = (FILE *(*)(const char *, const char *))dlsym(RTLD_NEXT, name);
    return real(path, mode);
}

FILE *fopen(const char *path, const char *mode) { return open_instead("fopen", path, mode); }
FILE *fopen64(const char *path, const char *mode) { return open_instead("fopen64", path, mode); }

/* The user may watch no more files, as far as the main thread is concerned. */
int
epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    if (op == EPOLL_CTL_ADD && gettid() == getpid() && epfd != fd && getenv("NO_WATCH_LEFT") != NULL) {
        errno = ENOSPC;
        return -1;
    }
    int (*real)(int, int, int, struct epoll_event *) =
        (int (*)(int, int, int, struct epoll_event *))dlsym(RTLD_NEXT, "epoll_ctl");
    return real(epfd, op, fd, event);
}
"""


Program = Callable[..., None]


@pytest.fixture(params=CAUSES)
def program(request: pytest.FixtureRequest, preload: Callable[[str], None]) -> Program:
    """Run a program that has this many stale registrations."""
    cause: str = request.param
    if cause in PRELOADED:
        preload(WRAPPER)

    def run_it(body: str, stale: int = 1) -> None:
        # The end of the process closes the fds that the prelude leaves open.
        run(PRELUDE.format(cause=cause, begin=CAUSES[cause], stale=stale) + body + "\nos._exit(0)")

    return run_it


def test_a_wait_takes_little_of_the_cpu(program: Program) -> None:
    program("""
assert ep.poll(1) == []
assert time.monotonic() - start >= 1
assert time.process_time() - used < 0.1
stats = ep.stats()
assert stats.waits - before.waits < 300, stats
assert 1 <= stats.failed_rebuilds < 300, stats
assert stats.rebuilds == 0
""")


def test_a_live_event_is_reported_at_once(program: Program) -> None:
    program("""
for timeout in (10, None):
    actions.put(lambda: os.eventfd_write(live, 1))
    assert ep.poll(timeout) == [("live", Event.IN)]
    os.eventfd_read(live)
    actions.put(lambda: os.eventfd_write(live, 1))
    assert list(ep.wait(timeout)) == [("live", Event.IN)]
    os.eventfd_read(live)
actions.put(lambda: os.eventfd_write(live, 1))
assert next(iter(ep)) == ("live", Event.IN)
assert time.process_time() - used < 0.3
""")


def test_a_wake_is_reported_at_once(program: Program) -> None:
    program("""
actions.put(waker.wake)
assert ep.poll() == [("waker", Event.IN)]
""")


@pytest.mark.parametrize("wait", ["ep.poll()", "list(ep.wait())", "list(ep)"])
def test_close_ends_the_wait_at_once(program: Program, wait: str) -> None:
    program(f"""
actions.put(ep.close)
try:
    assert {wait} == []
    assert {wait!r} == "list(ep)"
except ValueError as error:
    assert "closed" in str(error), error
assert ep.closed
""")


def test_a_signal_handler_runs_at_once(program: Program) -> None:
    program("""
def handler(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, handler)
for seconds in (0.001, 0.003, 0.01, 0.03, 0.1):
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        ep.poll()
        raise SystemExit("it ended by itself")
    except KeyboardInterrupt:
        pass
""")


def test_a_signal_mask_holds_for_the_whole_wait(program: Program) -> None:
    program("""
handled = []
signal.signal(signal.SIGALRM, lambda *_: handled.append(time.monotonic()))
signal.setitimer(signal.ITIMER_REAL, 0.05)
assert list(ep.wait(0.3, -1, {signal.SIGALRM})) == []
assert time.monotonic() - start >= 0.3
assert len(handled) == 1
""")


def test_a_new_registration_is_reported_at_once(program: Program) -> None:
    program("""
other = os.eventfd(1)
actions.put(lambda: ep.register(other, Event.IN, "other"))
assert ep.poll() == [("other", Event.IN)]
""")


@pytest.mark.parametrize("stale", [5, 70, 300])
def test_stale_events_take_no_room_from_a_live_one(program: Program, stale: int) -> None:
    program(
        """
for maxevents in (-1, 1, 2):
    os.eventfd_write(live, 1)
    assert ep.poll(10, maxevents) == [("live", Event.IN)]
    assert ep.poll(0, maxevents) == [("live", Event.IN)]
    assert list(ep.wait(0, maxevents)) == [("live", Event.IN)]
    os.eventfd_read(live)
    assert ep.poll(0, maxevents) == []
    actions.put(lambda: os.eventfd_write(live, 1))
    assert ep.poll(None, maxevents) == [("live", Event.IN)]
    os.eventfd_read(live)
""",
        stale,
    )


@pytest.mark.parametrize("stale", [1, 300])
def test_the_first_zero_timeout_wait_finds_a_live_event(program: Program, stale: int) -> None:
    program(
        """
os.eventfd_write(live, 1)
assert ep.poll(0) == [("live", Event.IN)]
""",
        stale,
    )


def test_live_edges_beyond_maxevents_are_reported_later(program: Program) -> None:
    """A wait fetches more than it may hand out, and gives the rest back."""
    program(
        """
kinds = [Event.IN, Event.IN | Event.ET, Event.IN | Event.ONESHOT]
fds = {os.eventfd(0): kind for kind in kinds * 6}
registered = threading.Event()
def register():
    for fd, kind in fds.items():
        ep.register(fd, kind, fd)
    registered.set()
actions.put(register)
registered.wait()
ep.poll(0)
for fd in fds:
    os.eventfd_write(fd, 1)
got = []
while set(got) != set(fds):
    events = ep.poll(5, 2)
    assert 1 <= len(events) <= 2
    got += [fd for fd, _ in events]
assert all(got.count(fd) == 1 for fd, kind in fds.items() if kind != Event.IN), got
""",
        5,
    )


@pytest.mark.parametrize("timeout", [0, 0.001])
def test_a_short_wait_makes_few_calls(program: Program, timeout: float) -> None:
    program(f"""
for _ in range(50):
    assert ep.poll({timeout}) == []
assert ep.stats().waits - before.waits < 50 * 16
assert ep.stats().failed_rebuilds >= 1
""")


def test_a_stale_registration_is_removed_once_it_can_be(program: Program) -> None:
    program("""
ep.poll(0.1)
assert ep.stats().failed_rebuilds
if os.environ.keys() & {"FDINFO", "NO_WATCH_LEFT"}:
    os.environ.pop("FDINFO", None)
    os.environ.pop("NO_WATCH_LEFT", None)
    polls = lambda: ep.poll(0.01) == [] and len(fdinfo_lines(ep)) == len(ep)
    until(polls)
    assert ep.stats().rebuilds == 1
else:
    # The last duplicates are closed: then the kernel itself removes the registration.
    for fds in files:
        for fd in fds:
            os.close(fd)
    until(lambda: ep.poll(0.01) == [] and len(fdinfo_lines(ep)) == len(ep))
waits = ep.stats().waits
assert ep.poll(0.2) == []
assert ep.stats().waits - waits < 10
""")
