"""Each system call of a rebuild and of fileno() may fail once: nothing is lost, and it is tried again.

A library that is loaded before all others lets the nth call of a function fail.
"""

from collections.abc import Callable

import pytest
from support.processes import run
from support.thirds import thirds

WRAPPER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

static char armed[32];
static int calls_left, error_of_it, fired;

void fault_arm(const char *name, int nth, int error)
{
    strncpy(armed, name, sizeof(armed) - 1);
    calls_left = nth;
    error_of_it = error;
    fired = 0;
}

int fault_fired(void)
{
    armed[0] = '\0';
    return fired;
}

static int fails(const char *name)
{
    if (strcmp(armed, name) != 0 || --calls_left != 0) {
        return 0;
    }
    fired = 1;
    errno = error_of_it;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int epoll_create1(int flags) { return fails("epoll_create1") ? -1 : REAL(epoll_create1)(flags); }
int eventfd(unsigned count, int flags) { return fails("eventfd") ? -1 : REAL(eventfd)(count, flags); }
int dup3(int from, int to, int flags) { return fails("dup3") ? -1 : REAL(dup3)(from, to, flags); }
FILE *fopen(const char *path, const char *mode) { return fails("fopen") ? NULL : REAL(fopen)(path, mode); }
FILE *fopen64(const char *path, const char *mode)
{
    return fails("fopen") ? NULL : REAL(fopen64)(path, mode);
}

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    return fails("epoll_ctl") ? -1 : REAL(epoll_ctl)(epfd, op, fd, event);
}

ssize_t readlink(const char *path, char *buffer, size_t size)
{
    return fails("readlink") ? -1 : REAL(readlink)(path, buffer, size);
}

/* The fd is closed even then. */
int close(int fd)
{
    int failing = fails("close");
    int result = REAL(close)(fd);
    errno = failing ? error_of_it : errno;
    return failing ? -1 : result;
}

int fcntl(int fd, int command, ...)
{
    va_list rest;
    va_start(rest, command);
    long argument = va_arg(rest, long);
    va_end(rest);
    return fails("fcntl") ? -1 : REAL(fcntl)(fd, command, argument);
}

int fcntl64(int fd, int command, ...)
{
    va_list rest;
    va_start(rest, command);
    long argument = va_arg(rest, long);
    va_end(rest);
    return fails("fcntl") ? -1 : REAL(fcntl64)(fd, command, argument);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list rest;
    va_start(rest, request);
    long argument = va_arg(rest, long);
    va_end(rest);
    int (*real)(int, unsigned long, ...) = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
    return fails("ioctl") ? -1 : real(fd, request, argument);
}

long syscall(long number, ...)
{
    va_list rest;
    va_start(rest, number);
    long a = va_arg(rest, long), b = va_arg(rest, long), c = va_arg(rest, long);
    long d = va_arg(rest, long), e = va_arg(rest, long), f = va_arg(rest, long);
    va_end(rest);
    return number == SYS_kcmp && fails("kcmp") ? -1 : REAL(syscall)(number, a, b, c, d, e, f);
}
"""

FAULTS = {
    "epoll_create1": ["EMFILE", "ENOMEM"],
    "epoll_ctl": ["ENOSPC", "ENOMEM"],
    "dup3": ["EMFILE", "EBUSY"],
    "fcntl": ["EMFILE"],
    "fopen": ["EMFILE", "EACCES"],
    "readlink": ["EACCES"],
    "kcmp": ["EPERM", "ENOSYS"],
    "ioctl": ["ENOTTY"],
    "eventfd": ["EMFILE"],
    "close": ["EINTR", "EIO"],
}
"""Functions, and errors that the kernel or a sandbox may answer."""

PRELUDE = """
import contextlib, ctypes, errno, os, select, sys, time, traceback
from support.fds import open_fds
from support.kernel import agree, fdinfo_lines
from support.threads import until
import pyepoll
from pyepoll import Event
library = ctypes.CDLL(None)
name, error = {name!r}, {error!r}
pyepoll.Epoll().poll(0)

def each_fault():
    # Yields before each call that is to fail, until there is none left that did.
    for nth in range(1, 100):
        fault = lambda: library.fault_arm(name.encode(), nth, getattr(errno, error))
        yield fault
        if not finished.pop():
            return
    raise AssertionError("it never ends")
finished = []
"""


@pytest.fixture
def preloaded(preload: Callable[[str], None]) -> None:
    preload(WRAPPER)


faults = pytest.mark.parametrize(
    ("name", "error"), thirds((name, error) for name, errors in FAULTS.items() for error in errors)
)


@faults
@pytest.mark.parametrize("waits", [False, True], ids=["", "with a waiter"])
@pytest.mark.parametrize("public", [False, True], ids=["private", "watched"])
@pytest.mark.usefixtures("preloaded")
def test_a_rebuild_loses_nothing(name: str, error: str, public: bool, waits: bool) -> None:
    body = f"""
import threading
for fault in each_fault():
    before = open_fds()
    ep, inner, outer = pyepoll.Epoll(), pyepoll.Epoll(), select.epoll()
    live, edge, shot, deep, reader = [os.eventfd(1, os.EFD_NONBLOCK) for _ in range(5)]
    ep.register(edge, Event.IN | Event.ET, "edge")
    ep.register(shot, Event.IN | Event.ONESHOT, "shot")
    assert len(ep.poll(0)) == 2
    inner.register(deep, Event.IN)
    ep.register(live, Event.IN, "live")
    ep.register(inner, Event.IN, "inner")
    if {public}:
        outer.register(ep.fileno(), select.EPOLLIN)
    watched = fdinfo_lines(outer)
    if {waits}:
        events = []
        def wait():
            while not events:
                with contextlib.suppress(ValueError):
                    events.extend(data for data, _ in ep.poll() if data == "last")
                time.sleep(0.005)
        ep.modify(live, 0)
        ep.modify(inner, 0)
        waiter = threading.Thread(target=wait)
        waiter.start()
        until(lambda: ep.stats().waits >= 2)
        ep.modify(live, Event.IN)
        ep.modify(inner, Event.IN)
    ep.register(reader, Event.IN, "stale")
    duplicate = os.dup(reader)
    os.close(reader)
    with contextlib.suppress(OSError):
        ep.unregister(reader)
    fault()
    got = []
    for _ in range(4):
        got = ep.poll(0)
        assert {{"live", "inner"}} <= {{data for data, _ in got}} <= {{"live", "inner", "edge"}}, got
    finished.append(library.fault_fired())
    until(lambda: ep.poll(0) and ep.stats().rebuilds == 1 and len(fdinfo_lines(ep)) == len(ep))
    assert ep.stats().failed_rebuilds <= 1
    assert ep.stats().lost_registrations == 0
    assert {{data for data, _ in ep.poll(0)}} == {{"live", "inner"}}
    if {waits}:
        last = os.eventfd(1)
        ep.register(last, Event.IN, "last")
        waiter.join(10)
        assert not waiter.is_alive()
        ep.unregister(last)
        os.close(last)
    os.eventfd_write(edge, 1)
    assert "edge" in [data for data, _ in ep.poll(0)]
    ep.rearm(shot)
    assert "shot" in [data for data, _ in ep.poll(0)]
    os.eventfd_read(deep)
    os.eventfd_read(live)
    assert ep.poll(0) == []
    if {public}:
        assert fdinfo_lines(outer) == watched
        assert outer.poll(0) == []
        os.eventfd_write(deep, 1)
        assert outer.poll(5) == [(ep.fileno(), select.EPOLLIN)]
    for each in ep, inner, outer:
        each.close()
    for fd in live, edge, shot, deep, duplicate:
        os.close(fd)
    assert open_fds() == before, (before, open_fds())
"""
    run(PRELUDE.format(name=name, error=error) + body)


@faults
@pytest.mark.usefixtures("preloaded")
def test_fileno_makes_a_front_or_raises(name: str, error: str) -> None:
    body = """
for fault in each_fault():
    before = open_fds()
    ep, outer = pyepoll.Epoll(), select.epoll()
    live, edge = [os.eventfd(1, os.EFD_NONBLOCK) for _ in range(2)]
    ep.register(live, Event.IN, "live")
    ep.register(edge, Event.IN | Event.ET, "edge")
    assert len(ep.poll(0)) == 2
    fds = open_fds()
    fault()
    try:
        fd = ep.fileno()
    except OSError as exception:
        assert exception.errno == getattr(errno, error)
        finished.append(library.fault_fired())
        assert finished == [1]
        assert open_fds() == fds
    else:
        finished.append(library.fault_fired())
        assert len(open_fds()) == len(fds) + 1
    assert ep.poll(0) == [("live", Event.IN)]
    outer.register(ep.fileno(), select.EPOLLIN)
    assert outer.poll(0) == [(ep.fileno(), select.EPOLLIN)]
    os.eventfd_read(live)
    assert outer.poll(0) == ep.poll(0) == []
    os.eventfd_write(edge, 1)
    assert outer.poll(0) == [(ep.fileno(), select.EPOLLIN)]
    assert agree(ep)
    ep.close()
    outer.close()
    os.close(live)
    os.close(edge)
    assert open_fds() == before
"""
    run(PRELUDE.format(name=name, error=error) + body)


@faults
@pytest.mark.parametrize("public", [False, True], ids=["private", "watched"])
@pytest.mark.usefixtures("preloaded")
def test_a_forked_copy_gets_its_instance_at_the_next_use(name: str, error: str, public: bool) -> None:
    body = f"""
ep = pyepoll.Epoll()
live, shot = [os.eventfd(1, os.EFD_NONBLOCK) for _ in range(2)]
ep.register(live, Event.IN, "live")
ep.register(shot, Event.IN | Event.ONESHOT, "shot")
assert len(ep.poll(0)) == 2
if {public}:
    ep.fileno()
watched = fdinfo_lines(ep)
for fault in each_fault():
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        status = 1
        try:
            before = sorted(open_fds().values())
            fault()
            try:
                events = ep.poll(0)
            except OSError as exception:
                assert exception.errno == getattr(errno, error), exception
            else:
                assert events == [("live", Event.IN)]
            fired = library.fault_fired()
            assert ep.poll(0) == [("live", Event.IN)]
            ep.rearm(shot)
            assert len(ep.poll(0)) == 2
            assert agree(ep) or ep.rearm(shot) is None and agree(ep)
            assert len(ep) == 2
            assert sorted(open_fds().values()) == before
            ep.close()
            status = 10 + fired
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (10, 11), status
    finished.append(status - 10)
    assert fdinfo_lines(ep) == watched
    os.close(reader)
    os.close(writer)
"""
    run(PRELUDE.format(name=name, error=error) + body)
