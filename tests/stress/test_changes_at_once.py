"""Changes of several threads at once: while one is in epoll_ctl, others change, repair, fork, close and end.

A library that is loaded before all others holds a call of epoll_ctl with the mask `HELD`, just before the
kernel makes the change, until it is released.
"""

import errno
import functools
import random
from collections.abc import Callable
from typing import Any

import pytest
from support.effort import Effort
from support.kernel import agree, fdinfo_lines, rebuild
from support.processes import run
from support.threads import together

import pyepoll
from pyepoll import Event

WRAPPER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/epoll.h>
#include <unistd.h>

static volatile int held_op;
static volatile unsigned held_mask;
static volatile int inside;

void hold(int op, unsigned mask) { held_mask = mask; inside = 0; held_op = op; }
int is_held(void) { return inside; }
void release(void) { held_op = 0; }

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    int (*real)(int, int, int, struct epoll_event *) = (__typeof__(real))dlsym(RTLD_NEXT, "epoll_ctl");
    while (op == held_op && event->events == held_mask) {
        inside = 1;
        usleep(1000);
    }
    return real(epfd, op, fd, event);
}
"""

PRELUDE = """
import contextlib, ctypes, os, select, sys, threading, time
from support.kernel import agree, fdinfo_lines, instance_fd, rebuild
from support.processes import fork
from support.threads import until
import pyepoll
from pyepoll import Event
library = ctypes.CDLL(None)
HELD = Event.IN | Event.RDHUP
EPOLL_CTL_ADD, EPOLL_CTL_MOD = 1, 3

def epolls(*registrations):
    # One without a front and one with a front. Each has these (mask, data) and comes with their fds.
    for public in (False, True):
        with pyepoll.Epoll() as ep:
            fds = [os.eventfd(1) for _ in registrations]
            for fd, registration in zip(fds, registrations):
                ep.register(fd, *registration)
            if public:
                ep.fileno()
            yield public, ep, *fds

def start(call):
    # Begin a call in a thread, which is a daemon: it may never return.
    complaints = []
    def work():
        try:
            call()
        except Exception as error:
            complaints.append(error)
    thread = threading.Thread(target=work, daemon=True)
    thread.complaints = complaints
    thread.start()
    return thread

def hold(op, call):
    library.hold(op, HELD)
    thread = start(call)
    until(library.is_held)
    return thread

def hold_modify(ep, fd):
    return hold(EPOLL_CTL_MOD, lambda: ep.modify(fd, HELD, "held"))

def release(*threads):
    # The other calls have had the time to do what they must not do meanwhile.
    time.sleep(0.02)
    library.release()
    complaints = []
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
        complaints += thread.complaints
    return complaints
"""


@pytest.fixture
def holding(preload: Callable[[str], None]) -> None:
    preload(WRAPPER)


@pytest.mark.usefixtures("holding")
def test_changes_agree_with_the_kernel_after_they_met() -> None:
    """The second call comes while the kernel has not yet made the first."""
    run(
        PRELUDE
        + """
def modify(ep, fd):
    ep.modify(fd, Event.OUT, "second")
    return "second"

def modify_twice(ep, fd):
    ep.modify(fd, Event.OUT, "second")
    ep.modify(fd, Event.IN, "third")
    return "third"

def rearm(ep, fd):
    ep.rearm(fd)
    return "held"

def register_again(ep, fd):
    ep.unregister(fd)
    ep.register(fd, Event.IN, "again")
    return "again"

def register_another_file(ep, fd):
    other = os.eventfd(1)
    os.dup2(other, fd)
    os.close(other)
    with contextlib.suppress(FileExistsError):
        ep.register(fd, Event.IN, "another")
    return "another"

def unregister(ep, fd):
    ep.unregister(fd)

def close_and_modify(ep, fd):
    other = os.eventfd(1)
    os.dup2(other, fd)
    os.close(other)
    with contextlib.suppress(FileNotFoundError):
        ep.modify(fd, Event.IN, "unknown")

def repair(ep, fd):
    rebuild(ep)
    return "held"

def move(ep, fd):
    ep.fileno()
    return "held"

def change_others(ep, fd):
    other = os.eventfd(1)
    ep.register(other, Event.IN, "other")
    ep.modify(other, Event.OUT)
    ep.unregister(other)
    os.close(other)
    return "held"

for second in (modify, modify_twice, rearm, register_again, register_another_file, unregister,
               close_and_modify, repair, move, change_others):
    for public, ep, fd in epolls((Event.IN, "first")):
        results = []
        held = hold_modify(ep, fd)
        complaints = release(held, start(lambda: results.append(second(ep, fd))))
        allowed = FileNotFoundError if results != ["held"] else ()
        assert all(isinstance(error, allowed) for error in complaints), (second, complaints)
        assert agree(ep), (second, public, fdinfo_lines(ep), dict(ep.registrations))
        # What the kernel reports has the data of the present registration, or there is none.
        if results == [None]:
            assert fd not in ep, second
        else:
            ep.modify(fd, Event.OUT)
            assert ep.poll(0) == [(ep.registrations[fd][1], Event.OUT)], (second, public)
            assert ep.registrations[fd][1] in (*results, "held"), (second, public, ep.registrations[fd])
        assert ep.stats().stale_events == (second is repair), (second, public, ep.stats())
        os.close(fd)
"""
    )


@pytest.mark.usefixtures("holding")
def test_changes_wait_for_a_rebuild() -> None:
    """They would be made in the instance that it replaces."""
    run(
        PRELUDE
        + """
for public, ep, first, last in epolls((HELD, "first"), (Event.IN, "last")):
    held = hold(EPOLL_CTL_ADD, lambda: rebuild(ep))
    one = start(lambda: ep.modify(first, Event.OUT))
    two = start(lambda: ep.modify(last, Event.OUT, "changed"))
    assert release(held, one, two) == []
    assert agree(ep), (public, fdinfo_lines(ep), dict(ep.registrations))
    assert sorted(ep.poll(0)) == [("changed", Event.OUT), ("first", Event.OUT)]
"""
    )


@pytest.mark.usefixtures("holding")
def test_close_and_waits_do_not_wait_for_a_change() -> None:
    run(
        PRELUDE
        + """
ep = pyepoll.Epoll()
fd, other = os.eventfd(1), os.eventfd(1)
ep.register(fd, Event.IN, "first")
ep.register(other, Event.IN | Event.ET, "other")
held = hold_modify(ep, fd)
assert sorted(ep.poll(0)) == [("held", Event.IN), ("other", Event.IN)]
assert len(ep) == 2 and fd in ep
number = instance_fd(ep)
ep.close()
assert ep.closed and held.is_alive() and os.path.exists(f"/proc/self/fd/{number}")
assert release(held) == []
# It was the last user, and has closed the fd.
assert not os.path.exists(f"/proc/self/fd/{number}")
"""
    )


@pytest.mark.usefixtures("holding")
def test_a_child_changes_its_copy_though_a_thread_of_the_parent_was_in_a_change() -> None:
    run(
        PRELUDE
        + """
other = os.eventfd(1)
for _, ep, fd in epolls((Event.IN, "first")):
    held = hold_modify(ep, fd)
    child = fork(20)
    if child == 0:
        library.release()
        ep.register(other, Event.IN, "child")
        ep.modify(fd, Event.OUT, "changed")
        ep.rearm(fd)
        assert agree(ep)
        assert dict(ep.registrations) == {fd: (Event.OUT, "changed"), other: (Event.IN, "child")}
        ep.unregister(fd)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert release(held) == []
    assert agree(ep) and dict(ep.registrations) == {fd: (HELD, "held")}
"""
    )


@pytest.mark.usefixtures("holding")
def test_the_interpreter_ends_while_a_daemon_is_in_a_change() -> None:
    """Finalizers change registrations although that thread never comes back."""
    output = run(
        PRELUDE
        + """
class Owner:
    def __init__(self):
        self.ep = pyepoll.Epoll()
        self.fd, self.other = os.eventfd(1), os.eventfd(1)
        self.ep.register(self.fd, Event.IN)

    def __del__(self, say=os.write):
        self.ep.register(self.other, 1)
        self.ep.modify(self.fd, 1)
        self.ep.unregister(self.fd)
        say(1, b"changed")

sys.owner = Owner()
hold_modify(sys.owner.ep, sys.owner.fd)
"""
    )
    assert output == "changed"


def test_changes_of_few_fds_agree_with_the_kernel(
    ep: pyepoll.Epoll[Any], eventfd: Callable[..., int], fast_switching: None, effort: Effort
) -> None:
    """As above, with calls that nothing holds, some of which the kernel refuses."""
    fds = [eventfd(1) for _ in range(2)]
    masks = [Event.IN, Event.OUT, Event.IN | Event.OUT, Event.IN | Event.ET, Event(0)]
    for fd in fds:
        ep.register(fd, Event.IN, Event.IN)

    def change(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(20):
            fd, mask = dice.choice(fds), dice.choice(masks)
            ep.modify(fd, mask, mask)
            ep.rearm(dice.choice(fds))
            with pytest.raises(OSError) as caught:
                ep.modify(fd, mask | Event.EXCLUSIVE, "refused")
            assert caught.value.errno == errno.EINVAL

    for seed in range(0, 4 * effort(15, 1500), 4):
        assert together(*(functools.partial(change, seed + part) for part in range(4))) == []
        present = dict(ep.registrations)
        assert agree(ep), (fdinfo_lines(ep), present)
        assert all(data == mask for mask, data in present.values())
        if seed % 20 == 0:
            rebuild(ep)
