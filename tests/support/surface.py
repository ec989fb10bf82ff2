"""Every public name of the package, and calls of each that leave all as it was: a property of every call is
tested over these, and a name without one is a failure."""

import contextlib
import gc
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

import pyepoll
from pyepoll import BusyPoll, Event, raw
from support.kernel import instance_fd

Epoll = pyepoll.Epoll[Any]

SIGNAL, SPARE_SIGNAL = signal.SIGRTMIN + 7, signal.SIGRTMIN + 8
"""Nothing else uses them."""

PROTOCOLS = (
    "and bool class_getitem contains enter eq exit getitem iter len next rand reduce_ex repr str".split()
)


def members(type: type) -> Iterator[str]:
    """The name of a class and of the attributes that it adds to object, int, tuple and enum."""
    yield type.__name__
    for base in type.__mro__:
        if base.__module__.partition(".")[0] in ("pyepoll", "collections"):
            for name, value in vars(base).items():
                public = name[2:-2] in PROTOCOLS if name.startswith("_") else not isinstance(value, int)
                if public and value is not None:
                    yield f"{type.__name__}.{name}"


def surface() -> set[str]:
    """Every public name that can be called or looked up; the constants can be neither."""
    with pyepoll.Epoll[int]() as ep:
        iterator = type(ep.wait(0))
    names = set(members(iterator))
    names.remove(iterator.__name__)  # It is not constructed directly.
    for prefix, module in ("", pyepoll), ("raw.", raw):
        for name in module.__all__:
            thing = getattr(module, name)
            if thing is pyepoll.error:
                continue  # OSError itself
            if isinstance(thing, type):
                names.update(members(thing))
            elif not isinstance(thing, int | types.ModuleType):
                names.add(prefix + name)
    return names


class Data:
    """Data to register: its reference count shows leaks."""


class Broken:
    def fileno(self) -> int:
        raise ZeroDivisionError

    def __index__(self) -> int:
        raise ZeroDivisionError


class File:
    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number


class Bench:
    """The objects for the calls."""

    def __init__(self) -> None:
        # The fds are far from all others: above those of CPython's small ints, on pages of their own.
        self.fd, self.idle, self.other, self.keep = (
            self.move(os.eventfd(count, os.EFD_NONBLOCK), 600 + i) for i, count in enumerate((1, 0, 1, 1))
        )
        self.file = self.move(os.open(__file__, os.O_RDONLY), 604)
        self.spare, self.never = 1000, 1001
        self.data, self.broken = Data(), Broken()
        self.ep: Epoll = pyepoll.Epoll()
        self.ep.register(self.fd, Event.IN, self.data)
        self.ep.register(self.idle, Event.IN)
        self.shut: Epoll = pyepoll.Epoll()
        self.shut_batch = self.shut.wait(0)
        self.shut.close()
        self.sel, self.shut_sel = pyepoll.EpollSelector(), pyepoll.EpollSelector()
        self.register_keys()
        for epoll in self.ep, self.sel:
            epoll.fileno()  # the first call makes its front
        self.shut_sel.close()
        self.waker, self.shut_waker = pyepoll.Waker(), pyepoll.Waker()
        self.shut_waker.close()
        self.timer, self.shut_timer = pyepoll.Timer(100, 50), pyepoll.Timer()
        self.signals, self.shut_signals = pyepoll.Signals(SIGNAL), pyepoll.Signals(SPARE_SIGNAL)
        self.child, self.shut_child = pyepoll.Child(os.getpid()), pyepoll.Child(os.getpid())
        for each in self.shut_timer, self.shut_signals, self.shut_child:
            each.close()
        self.epfd = raw.epoll_create1(raw.EPOLL_CLOEXEC)
        raw.epoll_ctl(self.epfd, raw.EPOLL_CTL_ADD, self.fd, Event.IN, 7)
        self.buffer, self.filled = raw.EventBuffer(4), raw.EventBuffer(4)
        raw.epoll_wait(self.epfd, self.filled, 0)

    def register_keys(self) -> None:
        self.key = self.sel.register(self.fd, EVENT_READ, self.data)
        self.sel.register(self.idle, EVENT_READ)

    @staticmethod
    def move(fd: int, to: int) -> int:
        os.dup2(fd, to, inheritable=False)
        os.close(fd)
        return to

    def reset(self) -> None:
        """Undo the changes of a call that failed half-way."""
        with contextlib.suppress(OSError):
            os.close(self.spare)
        for epoll in instance_fd(self.ep), instance_fd(self.sel), self.epfd:
            with contextlib.suppress(FileNotFoundError):
                raw.epoll_ctl(epoll, raw.EPOLL_CTL_DEL, self.other)
        with contextlib.suppress(OSError):
            self.ep.unregister(self.other)
        self.ep.modify(self.fd, Event.IN, self.data)
        for number in list(self.sel.get_map()):
            self.sel.unregister(number)
        self.register_keys()
        self.waker.clear()
        self.signals.read()
        self.timer.set(100, 50)
        for _ in range(10):
            self.ep.poll(0)
            self.sel.select(0)

    def close(self) -> None:
        self.ep.close()
        self.sel.close()
        for each in self.waker, self.timer, self.signals, self.child:
            each.close()
        for fd in self.fd, self.idle, self.other, self.keep, self.file, self.epfd:
            os.close(fd)


def refused(error: type[Exception], call: Callable[..., object], *arguments: object) -> None:
    sys._getframe()  # The objects of a traceback are there: CPython cannot do without the memory for it.
    try:
        call(*arguments)
    except error:
        return
    raise AssertionError(f"{call} did not raise {error}")


def with_and_without(call: Callable[..., object], *arguments: object) -> None:
    """Calls that some kernels do not have."""
    sys._getframe()
    try:
        call(*arguments)
    except OSError:
        pass


def cycle(bench: Bench) -> None:
    ep: Epoll = pyepoll.Epoll()
    ep.register(bench.fd, Event.IN, ep)
    ep.poll(0)
    del ep
    gc.collect(0)


def close(bench: Bench) -> None:
    ep: Epoll = pyepoll.Epoll()
    ep.register(bench.fd, Event.IN, Data())
    ep.poll(0)
    ep.close()
    ep.close()


def always_ready(bench: Bench) -> None:
    """A file that cannot be polled, whose fd is then that of another, and closed."""
    ep: Epoll = pyepoll.Epoll(always_ready=True)
    os.dup2(bench.file, bench.spare)
    ep.register(bench.spare, Event.IN | Event.ET, Data())
    ep.modify(bench.spare, Event.IN | Event.ONESHOT, Data())
    next(ep.wait(0))
    ep.rearm(bench.spare)
    assert len(ep.poll(0)) == 1
    os.dup2(bench.keep, bench.spare)
    ep.register(bench.spare, Event.IN, Data())
    os.dup2(bench.file, bench.spare)
    ep.register(bench.spare, Event.IN, Data())
    os.close(bench.spare)
    assert ep.poll(0) == []
    ep.register(bench.file, Event.IN, ep)
    ep.unregister(bench.file)
    ep.register(bench.file, Event.IN, ep)
    ep.close()  # so that the spare fd is never one of its own


def from_foreign(bench: Bench) -> None:
    """It goes with the object."""
    os.dup2(bench.epfd, bench.spare)
    ep: Epoll = pyepoll.Epoll.fromfd(bench.spare)
    assert [data for data, _ in ep.poll(0)] == [7]


def register(bench: Bench, *arguments: object) -> None:
    register: Callable[..., None] = bench.ep.register
    register(bench.other, *arguments)
    bench.ep.unregister(bench.other)


def replace_number(bench: Bench) -> None:
    """The fd is reused, then closed for good."""
    for keep in bench.keep, bench.idle:
        os.dup2(keep, bench.spare)
        bench.ep.register(bench.spare, Event.IN, Data())
        os.close(bench.spare)
    refused(OSError, bench.ep.unregister, bench.spare)
    for _ in range(10):
        bench.ep.poll(0)


def modify_unknown(bench: Bench) -> None:
    """Registrations made by others."""
    raw.epoll_ctl(instance_fd(bench.ep), raw.EPOLL_CTL_ADD, bench.other, Event.IN)
    bench.ep.modify(bench.other, Event.IN, Data())
    bench.ep.unregister(bench.other)


def modify(bench: Bench) -> None:
    bench.ep.modify(bench.fd, Event.OUT, Data())
    bench.ep.modify(bench.fd, Event.IN)
    bench.ep.poll(0)
    bench.ep.modify(bench.fd, Event.IN, bench.data)


def modify_exclusive(bench: Bench) -> None:
    bench.ep.register(bench.other, Event.IN | Event.EXCLUSIVE)
    refused(OSError, bench.ep.modify, bench.other, Event.IN, Data())
    refused(OSError, bench.ep.rearm, bench.other)
    bench.ep.unregister(bench.other)


def rebuild(bench: Bench) -> None:
    os.dup2(bench.keep, bench.spare)
    bench.ep.register(bench.spare, Event.IN, Data())
    os.close(bench.spare)
    refused(OSError, bench.ep.unregister, bench.spare)
    before, end = bench.ep.stats().rebuilds, time.monotonic() + 0.1
    while bench.ep.stats().rebuilds == before and time.monotonic() < end:
        bench.ep.poll(0)


def edges(bench: Bench) -> None:
    """Fetched, and not all handed out."""
    for fd in bench.fd, bench.other:
        ep: Epoll = pyepoll.Epoll()
        ep.register(fd, Event.IN | Event.ET, Data())
        ep.register(bench.keep, Event.IN | Event.ONESHOT, Data())
        next(iter(ep))
        ep.wait(0)
        assert ep.poll(0)


def rearm(bench: Bench) -> None:
    bench.ep.register(bench.other, Event.IN | Event.ONESHOT)
    bench.ep.poll(0)
    bench.ep.rearm(bench.other)
    bench.ep.unregister(bench.other)


def select(bench: Bench, *arguments: object) -> None:
    select: Callable[..., object] = bench.sel.select
    assert select(*arguments) == [(bench.key, EVENT_READ)]


def register_key(bench: Bench, *arguments: Any) -> None:
    bench.sel.register(bench.other, EVENT_READ, Data(), *arguments)
    bench.sel.select(0)
    bench.sel.unregister(bench.other)


def replace_key(bench: Bench) -> None:
    """The fd is reused, and its file object is closed for good."""
    os.dup2(bench.keep, bench.spare)
    bench.sel.register(bench.spare, EVENT_READ, Data())
    os.close(bench.spare)
    os.dup2(bench.idle, bench.spare)
    file = File(bench.spare)
    bench.sel.register(file, EVENT_READ, Data())
    os.close(bench.spare)
    file.number = -1
    bench.sel.unregister(file)
    for _ in range(10):
        bench.sel.select(0)


def modify_key(bench: Bench) -> None:
    bench.sel.modify(bench.fd, EVENT_READ | EVENT_WRITE, Data())
    bench.sel.modify(bench.fd, EVENT_READ, Data(), Event.ONESHOT)
    bench.sel.select(0)
    bench.sel.modify(bench.fd, EVENT_READ, Data(), flags=0)
    bench.sel.modify(bench.fd, EVENT_READ, bench.data)
    bench.key = bench.sel.modify(bench.fd, EVENT_READ, bench.data)


def modify_refused(bench: Bench) -> None:
    """Then it is registered no more."""
    bench.sel.register(bench.other, EVENT_READ, Data(), Event.EXCLUSIVE)
    refused(OSError, bench.sel.modify, bench.other, EVENT_WRITE, Data())
    refused(KeyError, bench.sel.unregister, bench.other)


class Stand:
    """In the place of an Epoll."""

    def register(self, fd: int, mask: int, key: object) -> None:
        pass

    modify = register

    def unregister(self, fd: int) -> None:
        pass

    def poll(self, timeout: float | None) -> list[tuple[object, int]]:
        return []


def stand_in(bench: Bench) -> None:
    """Calls that go to something else, and a core that is replaced."""
    selector = pyepoll.EpollSelector()
    selector._selector = Stand()
    selector.register(bench.fd, EVENT_READ, Data())
    selector.modify(bench.fd, EVENT_WRITE, Data())
    selector.modify(bench.fd, EVENT_WRITE, Data())
    selector.unregister(bench.fd)
    assert selector.select(0) == selector.select(0.5) == []


def key_cycle(bench: Bench) -> None:
    selector = pyepoll.EpollSelector()
    selector.register(bench.fd, EVENT_READ, selector)
    selector.select(0)
    del selector
    gc.collect(0)


def close_selector(bench: Bench) -> None:
    selector = pyepoll.EpollSelector()
    selector.register(bench.fd, EVENT_READ, Data())
    selector.select(0)
    selector.close()
    selector.close()


def raw_ctl(bench: Bench) -> None:
    raw.epoll_ctl(bench.epfd, raw.EPOLL_CTL_ADD, bench.other, Event.IN, 2**64 - 1)
    raw.epoll_ctl(bench.epfd, raw.EPOLL_CTL_MOD, bench.other, Event.OUT, data=1)
    raw.epoll_ctl(bench.epfd, raw.EPOLL_CTL_DEL, bench.other)


def read_signal(bench: Bench) -> None:
    """What has arrived is not lost where it cannot be handed out."""
    os.kill(os.getpid(), SIGNAL)
    read: list[int] = []
    try:
        read = bench.signals.read()
    except MemoryError:
        read = bench.signals.read()
        raise
    finally:
        assert read == [SIGNAL]


def read_child(bench: Bench) -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    child = None
    try:
        child = pyepoll.Child(pid, reap=False)
    finally:
        os.waitpid(pid, 0)
    assert child.read()
    child.close()


CALLS: dict[str, Callable[[Bench], object]] = {
    "Epoll": lambda b: pyepoll.Epoll(4, flags=pyepoll.EPOLL_CLOEXEC),
    "Epoll (a cycle)": cycle,
    "Epoll.fromfd": lambda b: pyepoll.Epoll.fromfd(b.ep.fileno()),
    "Epoll.fromfd (foreign)": from_foreign,
    "Epoll.closed": lambda b: (b.ep.closed, b.shut.closed),
    "Epoll.close": close,
    "Epoll (always_ready)": always_ready,
    "Epoll.fileno": lambda b: b.ep.fileno(),
    "Epoll.register": lambda b: register(b, Event.IN, Data()),
    "Epoll.register (the fd as data)": register,
    "Epoll.register (a number that comes back)": replace_number,
    "Epoll.modify": modify,
    "Epoll.modify (unknown)": modify_unknown,
    "Epoll.modify (exclusive)": modify_exclusive,
    "Epoll.unregister": register,
    "Epoll.rearm": rearm,
    "Epoll.poll": lambda b: b.ep.poll(0),
    "Epoll.poll (a timeout)": lambda b: b.ep.poll(0.1, maxevents=1),
    "Epoll.poll (a rebuild)": rebuild,
    "Epoll.wait": lambda b: list(b.ep.wait(0)),
    "Epoll.wait (dropped)": edges,
    "Epoll.wait (a sigmask)": lambda b: b.ep.wait(0, sigmask=[1, 2]),
    "Epoll.stats": lambda b: b.ep.stats(),
    "Epoll.registrations": lambda b: b.ep.registrations,
    "Epoll.get_busy_poll": lambda b: with_and_without(b.ep.get_busy_poll),
    "Epoll.set_busy_poll": lambda b: with_and_without(b.ep.set_busy_poll, *BusyPoll(0)),
    "Epoll.__bool__": lambda b: bool(b.ep),
    "Epoll.__class_getitem__": lambda b: pyepoll.Epoll[object],
    "Epoll.__contains__": lambda b: (b.fd in b.ep, b.other in b.ep),
    "Epoll.__enter__": lambda b: b.ep.__enter__(),
    "Epoll.__exit__": lambda b: pyepoll.Epoll().__exit__(None, None, None),
    "Epoll.__iter__": lambda b: iter(b.ep),
    "Epoll.__len__": lambda b: len(b.ep),
    "Epoll.__repr__": lambda b: (repr(b.ep), repr(b.shut)),
    "Ready.__iter__": lambda b: iter(b.ep.wait(0)),
    "Ready.__next__": lambda b: next(b.ep.wait(0)),
    "Ready.__next__ (endless)": lambda b: next(iter(b.ep)),
    "Registrations": lambda b: pyepoll.Registrations(b.ep),
    "Registrations.__class_getitem__": lambda b: pyepoll.Registrations[object],
    "Registrations.__contains__": lambda b: b.fd in b.ep.registrations,
    "Registrations.__eq__": lambda b: b.ep.registrations == {},
    "Registrations.__getitem__": lambda b: b.ep.registrations[b.fd],
    "Registrations.__iter__": lambda b: list(b.ep.registrations),
    "Registrations.__len__": lambda b: len(b.ep.registrations),
    "Registrations.__repr__": lambda b: repr(b.ep.registrations),
    "Registrations.get": lambda b: b.ep.registrations.get(b.fd),
    "Registrations.items": lambda b: list(b.ep.registrations.items()),
    "Registrations.keys": lambda b: list(b.ep.registrations.keys()),
    "Registrations.values": lambda b: list(b.ep.registrations.values()),
    "BusyPoll": lambda b: BusyPoll(0, 8, True),
    "Stats": lambda b: pyepoll.Stats(*range(6)),
    "Stats.__repr__": lambda b: repr(b.ep.stats()),
    "Stats.waits": lambda b: b.ep.stats().waits,
    "Stats.events": lambda b: b.ep.stats().events,
    "Stats.stale_events": lambda b: b.ep.stats().stale_events,
    "Stats.rebuilds": lambda b: b.ep.stats().rebuilds,
    "Stats.failed_rebuilds": lambda b: b.ep.stats().failed_rebuilds,
    "Stats.lost_registrations": lambda b: b.ep.stats().lost_registrations,
    "BusyPoll.__repr__": lambda b: repr(BusyPoll(0)),
    "BusyPoll.usecs": lambda b: BusyPoll(1).usecs,
    "BusyPoll.budget": lambda b: BusyPoll(1).budget,
    "BusyPoll.prefer": lambda b: BusyPoll(1).prefer,
    "Event": lambda b: Event(5) | Event.ET,
    "Event.__and__": lambda b: Event(5) & Event.IN,
    "Event.__rand__": lambda b: 1 & Event.IN,
    "Event.__str__": lambda b: str(Event(5)),
    "Event.error": lambda b: Event.ERR.error,
    "Event.hangup": lambda b: Event.HUP.hangup,
    "Event.readable": lambda b: Event.IN.readable,
    "Event.writable": lambda b: Event.OUT.writable,
    "EpollSelector": lambda b: pyepoll.EpollSelector(),
    "EpollSelector (a cycle)": key_cycle,
    "EpollSelector (a stand-in)": stand_in,
    "EpollSelector.close": close_selector,
    "EpollSelector.fileno": lambda b: b.sel.fileno(),
    "EpollSelector.get_key": lambda b: b.sel.get_key(b.fd),
    "EpollSelector.get_map": lambda b: (
        b.sel.get_map()[b.fd],
        b.sel.get_map().get(b.other),
        b.shut_sel.get_map(),
    ),
    "EpollSelector.register": register_key,
    "EpollSelector.register (flags)": lambda b: register_key(b, Event.EXCLUSIVE),
    "EpollSelector.register (a number that comes back)": replace_key,
    "EpollSelector.modify": modify_key,
    "EpollSelector.modify (refused)": modify_refused,
    "EpollSelector.unregister": register_key,
    "EpollSelector.select": lambda b: select(b, 0),
    "EpollSelector.select (no timeout)": select,
    "EpollSelector.select (a timeout)": lambda b: select(b, 0.1),
    "EpollSelector.select (a fraction)": lambda b: select(b, Fraction(1, 10)),
    "Waker": lambda b: pyepoll.Waker(),
    "Waker.__enter__": lambda b: b.waker.__enter__(),
    "Waker.__exit__": lambda b: pyepoll.Waker().__exit__(None, None, None),
    "Waker.__repr__": lambda b: repr(b.waker),
    "Waker.clear": lambda b: b.waker.clear(),
    "Waker.close": lambda b: pyepoll.Waker().close(),
    "Waker.closed": lambda b: (b.waker.closed, b.shut_waker.closed),
    "Waker.fileno": lambda b: b.waker.fileno(),
    "Waker.wake": lambda b: b.waker.wake(),
    "Waker.wake (closed)": lambda b: b.shut_waker.wake(),
    "Timer": lambda b: pyepoll.Timer(1, 2, clock=time.CLOCK_BOOTTIME),
    "Timer.__enter__": lambda b: b.timer.__enter__(),
    "Timer.__exit__": lambda b: pyepoll.Timer().__exit__(None, None, None),
    "Timer.__repr__": lambda b: (repr(b.timer), repr(b.shut_timer)),
    "Timer.cancel": lambda b: b.timer.cancel(),
    "Timer.clock": lambda b: b.timer.clock,
    "Timer.close": lambda b: pyepoll.Timer().close(),
    "Timer.closed": lambda b: (b.timer.closed, b.shut_timer.closed),
    "Timer.fileno": lambda b: b.timer.fileno(),
    "Timer.interval": lambda b: b.timer.interval(),
    "Timer.read": lambda b: b.timer.read(),
    "Timer.remaining": lambda b: b.timer.remaining(),
    "Timer.set": lambda b: b.timer.set(100.5, interval=Fraction(1, 3)),
    "Timer.set_at": lambda b: b.timer.set_at(2**40, 7),
    "Signals": lambda b: pyepoll.Signals(SPARE_SIGNAL, signal.SIGUSR1),
    "Signals.__enter__": lambda b: b.signals.__enter__(),
    "Signals.__exit__": lambda b: pyepoll.Signals(SPARE_SIGNAL).__exit__(None, None, None),
    "Signals.__repr__": lambda b: (repr(b.signals), repr(b.shut_signals)),
    "Signals.close": lambda b: pyepoll.Signals(SPARE_SIGNAL).close(),
    "Signals.closed": lambda b: (b.signals.closed, b.shut_signals.closed),
    "Signals.fileno": lambda b: b.signals.fileno(),
    "Signals.read": read_signal,
    "Signals.signals": lambda b: b.signals.signals,
    "Child": lambda b: pyepoll.Child(os.getpid(), reap=False),
    "Child.__enter__": lambda b: b.child.__enter__(),
    "Child.__exit__": lambda b: pyepoll.Child(os.getpid()).__exit__(None, None, None),
    "Child.__repr__": lambda b: (repr(b.child), repr(b.shut_child)),
    "Child.close": lambda b: pyepoll.Child(os.getpid()).close(),
    "Child.closed": lambda b: (b.child.closed, b.shut_child.closed),
    "Child.fileno": lambda b: b.child.fileno(),
    "Child.pid": lambda b: b.child.pid,
    "Child.read": read_child,
    "Child.returncode": lambda b: b.child.returncode,
    "Child.send_signal": lambda b: b.child.send_signal(0),
    "raw.epoll_create": lambda b: os.close(raw.epoll_create(1)),
    "raw.epoll_create1": lambda b: os.close(raw.epoll_create1(0)),
    "raw.epoll_ctl": raw_ctl,
    "raw.epoll_wait": lambda b: raw.epoll_wait(b.epfd, b.buffer, 0),
    "raw.epoll_pwait": lambda b: raw.epoll_pwait(b.epfd, b.buffer, 0, [1, 2]),
    "raw.epoll_pwait2": lambda b: with_and_without(raw.epoll_pwait2, b.epfd, b.buffer, 0, [1, 2]),
    "raw.epoll_get_params": lambda b: with_and_without(raw.epoll_get_params, b.epfd),
    "raw.epoll_set_params": lambda b: with_and_without(raw.epoll_set_params, b.epfd, 0, 8, False),
    "raw.uses_pwait2": lambda b: raw.uses_pwait2(),
    "use_pwait2": lambda b: pyepoll.use_pwait2(pyepoll.use_pwait2(True)),
    "EventBuffer": lambda b: raw.EventBuffer(1000),
    "EventBuffer.__getitem__": lambda b: b.filled[0],
    "EventBuffer.__iter__": lambda b: list(b.filled),
    "EventBuffer.__len__": lambda b: len(b.buffer),
}
"""By the name that is called, and in which case."""

REFUSALS: dict[str, Callable[[Bench], tuple[Any, ...]]] = {
    "Epoll (bad size)": lambda b: (ValueError, pyepoll.Epoll, 0),
    "Epoll (bad flags)": lambda b: (OSError, pyepoll.Epoll, -1, 4),
    "Epoll (bad argument)": lambda b: (TypeError, pyepoll.Epoll, "1"),
    "Epoll.fromfd (no epoll)": lambda b: (OSError, pyepoll.Epoll.fromfd, b.fd),
    "Epoll.fromfd (not open)": lambda b: (OSError, pyepoll.Epoll.fromfd, b.never),
    "Epoll.fromfd (bad argument)": lambda b: (TypeError, pyepoll.Epoll.fromfd, "1"),
    "Epoll.fileno (closed)": lambda b: (ValueError, b.shut.fileno),
    "Epoll.register (refused)": lambda b: (FileExistsError, b.ep.register, b.fd, Event.IN, Data()),
    "Epoll.register (not open)": lambda b: (OSError, b.ep.register, b.never, Event.IN, Data()),
    "Epoll.register (a regular file)": lambda b: (OSError, b.ep.register, b.file, Event.IN, Data()),
    "Epoll.register (flags)": lambda b: (OSError, b.ep.register, b.other, Event.EXCLUSIVE | Event.PRI, 1),
    "Epoll.register (bad mask)": lambda b: (ValueError, b.ep.register, b.other, 2**40, Data()),
    "Epoll.register (bad argument)": lambda b: (TypeError, b.ep.register, b.other, "1", Data()),
    "Epoll.register (an argument too many)": lambda b: (TypeError, b.ep.register, b.other, 1, Data(), 2),
    "Epoll.register (broken fileno)": lambda b: (ZeroDivisionError, b.ep.register, b.broken),
    "Epoll.register (broken mask)": lambda b: (ZeroDivisionError, b.ep.register, b.other, b.broken, Data()),
    "Epoll.register (closed)": lambda b: (ValueError, b.shut.register, b.fd, 1, Data()),
    "Epoll.modify (not registered)": lambda b: (OSError, b.ep.modify, b.other, 1, Data()),
    "Epoll.modify (not open)": lambda b: (OSError, b.ep.modify, b.never, 1, Data()),
    "Epoll.modify (bad mask)": lambda b: (ValueError, b.ep.modify, b.fd, 2**40, Data()),
    "Epoll.modify (bad argument)": lambda b: (TypeError, b.ep.modify, b.fd, "1", Data()),
    "Epoll.modify (closed)": lambda b: (ValueError, b.shut.modify, b.fd, 1, Data()),
    "Epoll.unregister (not registered)": lambda b: (OSError, b.ep.unregister, b.other),
    "Epoll.unregister (not open)": lambda b: (OSError, b.ep.unregister, b.never),
    "Epoll.unregister (bad argument)": lambda b: (TypeError, b.ep.unregister, "1"),
    "Epoll.unregister (closed)": lambda b: (ValueError, b.shut.unregister, b.fd),
    "Epoll.rearm (not registered)": lambda b: (OSError, b.ep.rearm, b.other),
    "Epoll.rearm (not open)": lambda b: (OSError, b.ep.rearm, b.never),
    "Epoll.rearm (bad argument)": lambda b: (TypeError, b.ep.rearm, "1"),
    "Epoll.rearm (closed)": lambda b: (ValueError, b.shut.rearm, b.fd),
    "Epoll.poll (bad timeout)": lambda b: (ValueError, b.ep.poll, float("nan")),
    "Epoll.poll (bad argument)": lambda b: (TypeError, b.ep.poll, "1"),
    "Epoll.poll (bad maxevents)": lambda b: (ValueError, b.ep.poll, 0, 0),
    "Epoll.poll (closed)": lambda b: (ValueError, b.shut.poll, 0),
    "Epoll.wait (bad sigmask)": lambda b: (ValueError, b.ep.wait, 0, -1, [1, 2000]),
    "Epoll.wait (bad argument)": lambda b: (TypeError, b.ep.wait, "1"),
    "Epoll.wait (closed)": lambda b: (ValueError, b.shut.wait, 0),
    "Epoll.get_busy_poll (closed)": lambda b: (ValueError, b.shut.get_busy_poll),
    "Epoll.set_busy_poll (closed)": lambda b: (ValueError, b.shut.set_busy_poll, 0),
    "Epoll.__contains__ (bad argument)": lambda b: (TypeError, b.ep.__contains__, "1"),
    "Epoll.__enter__ (closed)": lambda b: (ValueError, b.shut.__enter__),
    "Epoll.__iter__ (closed)": lambda b: (ValueError, iter, b.shut),
    "Epoll.__reduce_ex__": lambda b: (TypeError, b.ep.__reduce_ex__, 4),
    "Registrations.__reduce_ex__": lambda b: (TypeError, b.ep.registrations.__reduce_ex__, 4),
    "EpollSelector.__reduce_ex__": lambda b: (TypeError, b.sel.__reduce_ex__, 4),
    "Ready.__next__ (ended)": lambda b: (StopIteration, b.shut_batch.__next__),
    "Registrations.__getitem__ (missing)": lambda b: (KeyError, b.ep.registrations.__getitem__, b.other),
    "EpollSelector.close (a number)": lambda b: (TypeError, b.sel.close, 1),
    "EpollSelector.fileno (closed)": lambda b: (ValueError, b.shut_sel.fileno),
    "EpollSelector.get_key (unknown)": lambda b: (KeyError, b.sel.get_key, b.other),
    "EpollSelector.get_key (closed)": lambda b: (RuntimeError, b.shut_sel.get_key, b.fd),
    "EpollSelector.get_map (unknown)": lambda b: (KeyError, b.sel.get_map().__getitem__, b.other),
    "EpollSelector.register (refused)": lambda b: (KeyError, b.sel.register, b.fd, EVENT_WRITE, Data()),
    "EpollSelector.register (not open)": lambda b: (OSError, b.sel.register, b.never, EVENT_READ, Data()),
    "EpollSelector.register (a regular file)": lambda b: (
        OSError,
        b.sel.register,
        b.file,
        EVENT_READ,
        Data(),
    ),
    "EpollSelector.register (bad events)": lambda b: (ValueError, b.sel.register, b.other, 4, Data()),
    "EpollSelector.register (bad flags)": lambda b: (
        ValueError,
        b.sel.register,
        b.other,
        1,
        Data(),
        Event.IN,
    ),
    "EpollSelector.register (no file)": lambda b: (ValueError, b.sel.register, b.data, EVENT_READ, Data()),
    "EpollSelector.register (broken fileno)": lambda b: (ZeroDivisionError, b.sel.register, b.broken, 1),
    "EpollSelector.register (closed)": lambda b: (ValueError, b.shut_sel.register, b.fd, EVENT_READ, Data()),
    "EpollSelector.modify (unknown)": lambda b: (KeyError, b.sel.modify, b.other, EVENT_READ, Data()),
    "EpollSelector.modify (bad events)": lambda b: (ValueError, b.sel.modify, b.fd, 4, Data()),
    "EpollSelector.unregister (unknown)": lambda b: (KeyError, b.sel.unregister, b.other),
    "EpollSelector.unregister (no file)": lambda b: (ValueError, b.sel.unregister, b.data),
    "EpollSelector.select (bad timeout)": lambda b: (ValueError, b.sel.select, float("nan")),
    "EpollSelector.select (bad argument)": lambda b: (TypeError, b.sel.select, "1"),
    "EpollSelector.select (closed)": lambda b: (ValueError, b.shut_sel.select, 0),
    "Event (bad mask)": lambda b: (ValueError, Event, "1"),
    "Waker (bad argument)": lambda b: (TypeError, pyepoll.Waker, 1),
    "Waker.__enter__ (closed)": lambda b: (ValueError, b.shut_waker.__enter__),
    "Waker.clear (closed)": lambda b: (ValueError, b.shut_waker.clear),
    "Waker.fileno (closed)": lambda b: (ValueError, b.shut_waker.fileno),
    "Timer (bad argument)": lambda b: (TypeError, pyepoll.Timer, "1"),
    "Timer (bad delay)": lambda b: (ValueError, pyepoll.Timer, float("nan")),
    "Timer (bad clock)": lambda b: (OSError, partial(pyepoll.Timer, clock=99)),
    "Timer.__enter__ (closed)": lambda b: (ValueError, b.shut_timer.__enter__),
    "Timer.cancel (closed)": lambda b: (ValueError, b.shut_timer.cancel),
    "Timer.fileno (closed)": lambda b: (ValueError, b.shut_timer.fileno),
    "Timer.interval (closed)": lambda b: (ValueError, b.shut_timer.interval),
    "Timer.read (closed)": lambda b: (ValueError, b.shut_timer.read),
    "Timer.remaining (closed)": lambda b: (ValueError, b.shut_timer.remaining),
    "Timer.set (closed)": lambda b: (ValueError, b.shut_timer.set, 1),
    "Timer.set (bad argument)": lambda b: (TypeError, b.timer.set, "1"),
    "Timer.set (bad interval)": lambda b: (ValueError, b.timer.set, 1, -1),
    "Timer.set_at (bad argument)": lambda b: (ZeroDivisionError, b.timer.set_at, b.broken),
    "Timer.set_at (bad flag)": lambda b: (ValueError, b.timer.set_at, 1, 1, True),
    "Signals (bad signal)": lambda b: (ValueError, pyepoll.Signals, signal.SIGKILL),
    "Signals (bad argument)": lambda b: (TypeError, pyepoll.Signals, "1"),
    "Signals (taken)": lambda b: (OSError, pyepoll.Signals, SPARE_SIGNAL, SIGNAL),
    "Signals.__enter__ (closed)": lambda b: (ValueError, b.shut_signals.__enter__),
    "Signals.fileno (closed)": lambda b: (ValueError, b.shut_signals.fileno),
    "Signals.read (closed)": lambda b: (ValueError, b.shut_signals.read),
    "Child (no process)": lambda b: (ProcessLookupError, pyepoll.Child, 2**31 - 1),
    "Child (bad pid)": lambda b: (ValueError, pyepoll.Child, 0),
    "Child (bad argument)": lambda b: (TypeError, pyepoll.Child, "1"),
    "Child.__enter__ (closed)": lambda b: (ValueError, b.shut_child.__enter__),
    "Child.fileno (closed)": lambda b: (ValueError, b.shut_child.fileno),
    "Child.read (closed)": lambda b: (ValueError, b.shut_child.read),
    "Child.send_signal (bad signal)": lambda b: (OSError, b.child.send_signal, 1000),
    "Child.send_signal (bad argument)": lambda b: (TypeError, b.child.send_signal, "1"),
    "Child.send_signal (closed)": lambda b: (ValueError, b.shut_child.send_signal, 0),
    "raw.epoll_create (refused)": lambda b: (OSError, raw.epoll_create, 0),
    "raw.epoll_create (bad argument)": lambda b: (TypeError, raw.epoll_create, "1"),
    "raw.epoll_create1 (refused)": lambda b: (OSError, raw.epoll_create1, 1),
    "raw.epoll_create1 (bad argument)": lambda b: (OverflowError, raw.epoll_create1, 2**40),
    "raw.epoll_ctl (refused)": lambda b: (OSError, raw.epoll_ctl, b.epfd, 1, b.fd),
    "raw.epoll_ctl (bad argument)": lambda b: (OverflowError, raw.epoll_ctl, 0, 1, 2, 3, 2**64),
    "raw.epoll_wait (refused)": lambda b: (OSError, raw.epoll_wait, b.fd, b.buffer, 0),
    "raw.epoll_wait (bad argument)": lambda b: (TypeError, raw.epoll_wait, b.epfd, b.data, 0),
    "raw.epoll_pwait (refused)": lambda b: (OSError, raw.epoll_pwait, b.fd, b.buffer, 0, [1]),
    "raw.epoll_pwait (bad argument)": lambda b: (TypeError, raw.epoll_pwait, b.epfd, b.buffer, 0, 1),
    "raw.epoll_pwait2 (refused)": lambda b: (OSError, raw.epoll_pwait2, b.fd, b.buffer, 0),
    "raw.epoll_pwait2 (bad argument)": lambda b: (TypeError, raw.epoll_pwait2, b.epfd, b.buffer, "1"),
    "raw.epoll_get_params (refused)": lambda b: (OSError, raw.epoll_get_params, b.never),
    "raw.epoll_set_params (refused)": lambda b: (OSError, raw.epoll_set_params, b.never, 0, 8, False),
    "raw.epoll_set_params (bad argument)": lambda b: (
        OverflowError,
        raw.epoll_set_params,
        b.epfd,
        2**40,
        8,
        True,
    ),
    "EventBuffer (bad capacity)": lambda b: (ValueError, raw.EventBuffer, 0),
    "EventBuffer (bad argument)": lambda b: (TypeError, raw.EventBuffer, "1"),
    "EventBuffer.__getitem__ (missing)": lambda b: (IndexError, b.filled.__getitem__, 3),
}
"""The same for refused calls: the exception, and the function and arguments that raise it."""


def missing_and_unknown() -> set[str]:
    """The public names that no call is of, and the calls that are of no public name."""
    return surface() ^ {call.partition(" (")[0] for call in (*CALLS, *REFUSALS)}
