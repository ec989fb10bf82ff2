"""Any argument to any public callable: no crash, only documented errors, and no fd or object is leaked.

Also objects that run Python code in the middle of a call: a fileno(), __index__, __float__, __hash__, __eq__,
… that raises, returns nonsense, closes the epoll or changes the registrations.
"""

import contextlib
import dataclasses
import decimal
import enum
import errno
import fractions
import functools
import gc
import itertools
import os
import re
import signal
from collections.abc import Callable, Mapping
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.effort import Effort
from support.kernel import agree

import pyepoll
from pyepoll import Event, raw

CLOSED = 701
"""No file has this fd while these tests run."""


class Odd(BaseException):
    """The exception of a hostile method."""


@functools.cache
def ended_process() -> int:
    """A process that takes every signal without an effect: it has ended, and is not reaped."""
    pid = os.posix_spawnp("true", ["true"], os.environ)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


class World:
    """The objects for a call. A wait always has an event: the anchor is ready, and no trick touches it."""

    def __init__(self) -> None:
        self.anchor, self.target, self.spare, self.lonely = (os.eventfd(1, os.EFD_NONBLOCK) for _ in range(4))
        self.file = os.open(os.devnull, os.O_RDONLY)
        self.path = os.open("/", os.O_PATH)
        self.raw = raw.epoll_create1(raw.EPOLL_CLOEXEC)
        self.ep, self.other = pyepoll.Epoll[Any](), pyepoll.Epoll[Any]()
        self.number = self.ep.fileno()
        raw.epoll_ctl(self.raw, raw.EPOLL_CTL_ADD, self.anchor, raw.EPOLLIN)
        self.other.register(self.anchor, Event.IN)
        self.ep.register(self.anchor, Event.IN, "anchor")
        self.ep.register(self.target, Event.OUT, "target")
        self.ep.register(self.lonely, Event.OUT | Event.EXCLUSIVE, "lonely")
        self.sel = pyepoll.EpollSelector()
        self.sel.register(self.anchor, EVENT_READ, "anchor")
        self.sel.register(self.target, EVENT_WRITE, "target")
        self.sel.register(self.lonely, EVENT_WRITE, "lonely", Event.EXCLUSIVE)
        self.waker = pyepoll.Waker()
        self.timer = pyepoll.Timer(100)
        self.signals = pyepoll.Signals(signal.SIGRTMIN + 7)
        self.child = pyepoll.Child(ended_process(), reap=False)
        self.buffer = raw.EventBuffer(8)
        self.closed = CLOSED

    def check(self) -> None:
        """The lists agree, and no unrelated fd was closed."""
        for ep in (self.ep, self.other):
            assert ep.closed or agree(ep)
        core: pyepoll.Epoll[Any] = self.sel._selector
        assert core.closed or agree(core)
        assert {fd: data for fd, (_, data) in core.registrations.items()} == self.sel._fd_to_key
        for fd in (self.anchor, self.target, self.spare, self.lonely, self.file, self.path, self.raw):
            os.fstat(fd)

    def close(self) -> None:
        self.ep.close()
        self.other.close()
        self.sel.close()
        for each in (self.waker, self.timer, self.signals, self.child):
            each.close()
        for fd in (self.anchor, self.target, self.spare, self.lonely, self.file, self.path, self.raw):
            os.close(fd)


ACTIONS: dict[str, Callable[[World], object]] = {
    "nothing": lambda w: None,
    "close": lambda w: w.ep.close(),
    "close other": lambda w: w.other.close(),
    "close selector": lambda w: w.sel.close(),
    "close waker": lambda w: w.waker.close(),
    "close objects": lambda w: [each.close() for each in (w.timer, w.signals, w.child)],
    "register": lambda w: w.ep.register(w.spare, Event.OUT, []),
    "register lonely": lambda w: w.ep.register(w.lonely, Event.IN),
    "modify": lambda w: w.ep.modify(w.target, Event.IN, []),
    "unregister": lambda w: w.ep.unregister(w.target),
    "unregister lonely": lambda w: w.ep.unregister(w.lonely),
    "rearm": lambda w: w.ep.rearm(w.target),
    "poll": lambda w: w.ep.poll(0),
    "wait": lambda w: next(w.ep.wait()),
    "iterate": lambda w: next(iter(w.ep)),
    "register key": lambda w: w.sel.register(w.spare, EVENT_WRITE, []),
    "modify key": lambda w: w.sel.modify(w.target, EVENT_READ, []),
    "replace key": lambda w: w.sel.modify(w.target, EVENT_WRITE, []),
    "unregister key": lambda w: w.sel.unregister(w.target),
    "select": lambda w: w.sel.select(),
    "raw wait": lambda w: raw.epoll_wait(w.raw, w.buffer, 0),
    "share": lambda w: pyepoll.Epoll[Any].fromfd(w.ep.fileno()).poll(0),
    "collect": lambda w: gc.collect(0),
}


class Hostile:
    """Every method that a call may run acts first, three times at most, or it might loop indefinitely."""

    def __init__(self, world: World, trick: "Trick") -> None:
        self.world, self.trick, self.left = world, trick, 3

    def act(self, *_: object) -> Any:
        if self.left:
            self.left -= 1
            if self.trick.action == "raise":
                raise Odd
            with contextlib.suppress(Exception):
                ACTIONS[self.trick.action](self.world)
        return resolve(self.world, self.trick.value)

    fileno = __index__ = __float__ = __int__ = __hash__ = __eq__ = __bool__ = __len__ = __repr__ = act
    __complex__ = __getitem__ = __contains__ = __lt__ = __and__ = __or__ = __ror__ = __rand__ = act

    def __iter__(self) -> Any:
        return itertools.repeat(self.act(), 2)


class Dying:
    """Data whose finalizer acts."""

    def __init__(self, world: World, trick: "Trick") -> None:
        self.hostile = Hostile(world, trick)

    def __del__(self) -> None:
        with contextlib.suppress(BaseException):
            self.hostile.act()


@dataclasses.dataclass(frozen=True)
class Own:
    """Stands for the object that the world has under this name."""

    name: str


@dataclasses.dataclass(frozen=True)
class Trick:
    """Stands for a hostile object, or for one that is hostile when it ends."""

    action: str
    value: Any
    dies: bool = False


def resolve(world: World, value: Any) -> Any:
    if isinstance(value, Own):
        return getattr(world, value.name)
    if isinstance(value, Trick):
        return Dying(world, value) if value.dies else Hostile(world, value)
    if type(value) in (list, tuple):
        return type(value)(resolve(world, each) for each in value)
    return value


class Index(enum.Enum):
    """Numbers at which something overflows."""

    numbers = tuple(
        sign * (2**bits + more) for bits in (7, 15, 16, 31, 32, 53, 63, 64, 100) for more in (-1, 0, 1)
        for sign in (1, -1)
    )  # fmt: skip


numbers = st.one_of(st.integers(), st.sampled_from(Index.numbers.value), st.integers(-2, 70))
strange = st.one_of(
    st.none(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.complex_numbers(),
    st.sampled_from(
        [decimal.Decimal("0.5"), fractions.Fraction(1, 2), object(), int, Event.IN, ..., len, [], (), {}]
    ),
    st.lists(st.integers(0, 70), max_size=3),
)
actions = st.sampled_from(["raise", *ACTIONS])


def tricks(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Hostile objects which return one of these, or nonsense."""
    return st.builds(Trick, actions, st.one_of(values, values, strange))


def mixed(*good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Valid arguments, twice as often as each kind of invalid ones."""
    return st.one_of(*good, *good, strange, tricks(st.one_of(good)))


# A drawn number is not an open fd: no fd is as large, and none is negative. Nor is True an fd here.
unrelated_fds = numbers.filter(lambda number: not 0 <= number < 2**20) | st.just(Own("closed"))
owned = st.sampled_from(["anchor", "target", "spare", "lonely", "file", "path", "raw"]).map(Own)
objects = st.sampled_from(["ep", "other", "waker"]).map(Own)

fds = mixed(owned, owned, objects, unrelated_fds)
masks = mixed(
    st.sampled_from(list(Event)),
    st.builds(lambda a, b: a | b, *[st.sampled_from(list(Event))] * 2),
    numbers,
    st.integers(0, 2**32 - 1),
)
events = mixed(st.sampled_from([EVENT_READ, EVENT_WRITE, EVENT_READ | EVENT_WRITE]), numbers)
timeouts = mixed(numbers, st.floats(), st.floats(-2, 2), st.booleans(), st.none())
counts = mixed(numbers, st.integers(-1, 5), st.booleans())
signals = st.one_of(
    st.lists(st.one_of(st.integers(-1, 66), numbers, strange), max_size=3),
    st.sets(st.integers(1, 31), max_size=3),
    tricks(st.integers(1, 64)),
    st.lists(tricks(st.integers(1, 31)), max_size=2),
    strange,
)
data = st.one_of(strange, tricks(strange), st.builds(Trick, actions, st.none(), st.just(True)))
finite = st.one_of(strange, numbers, st.booleans(), owned, data)
anything = st.one_of(finite, objects)
epfds = mixed(st.just(Own("raw")), st.just(Own("raw")), owned, unrelated_fds)
watched = mixed(owned, unrelated_fds)
buffers = st.one_of(st.just(Own("buffer")), st.just(Own("buffer")), st.just(Own("buffer")), anything)
operations = mixed(st.integers(0, 4), numbers)
milliseconds = mixed(numbers, st.integers(-1, 5))
words = mixed(numbers, st.integers(0, 2**64 - 1))
keys = mixed(owned, unrelated_fds)


@dataclasses.dataclass(frozen=True)
class Target:
    """How to get one public callable, its arguments, and the errors that it documents besides TypeError."""

    get: Callable[[World], Callable[..., Any]]
    params: dict[str, st.SearchStrategy[Any]] = dataclasses.field(default_factory=dict)
    required: int = 0
    errors: tuple[type[Exception], ...] = ()
    errnos: str = ""
    by_name: bool = True
    """Whether the arguments have names."""
    doc: Any = None
    """The object whose docstring documents them."""


def opened(make: Callable[..., int]) -> Callable[..., None]:
    """Close an fd that it opens."""
    return lambda *args, **kwargs: os.close(make(*args, **kwargs))


def made(*args: Any, **kwargs: Any) -> None:
    pyepoll.Epoll[Any](*args, **kwargs).close()


def borrowed(world: World) -> Callable[..., None]:
    """Neither handle may close its borrowed fd: the world's epolls outlive this, and detect it."""

    def call(*args: Any) -> None:
        handle = pyepoll.Epoll[Any].fromfd(*args)
        if handle.fileno() == world.raw:
            # The fd would be closed with it; a duplicate takes its place.
            keep = os.dup(world.raw)
            del handle
            os.dup2(keep, world.raw, inheritable=False)
            os.close(keep)

    return call


def listed(wait: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: list(wait(*args, **kwargs))


def of_event(operation: Callable[[Event, Any], object]) -> Callable[[World], Callable[..., object]]:
    return lambda world: lambda other: operation(Event.IN | Event.ET, other)


def predicate(name: str) -> Target:
    def check(mask: int) -> None:
        assert getattr(Event(mask), name) in (True, False)

    return Target(lambda w: check, {"mask": numbers}, 1, by_name=False)


FD_ERRORS = (ValueError, OverflowError)
CTL = "EBADF EPERM EINVAL"
PARAMS = "EBADF ENOTTY EOPNOTSUPP"
BUSY_POLL = "EBADF ENOTTY EOPNOTSUPP"

TARGETS: dict[str, Target] = {
    "Epoll": Target(
        lambda w: made,
        {
            "sizehint": mixed(numbers), "flags": mixed(numbers, st.sampled_from([0, 2**19])),
            "always_ready": anything,
        },
        0,
        FD_ERRORS, "EINVAL", doc=pyepoll.Epoll,
    ),
    "Epoll.fromfd": Target(
        borrowed, {"fd": mixed(owned, st.just(Own("number")), unrelated_fds)}, 1,
        (OverflowError,), "EBADF EINVAL", False, pyepoll.Epoll.fromfd,
    ),
    "Epoll.register": Target(
        lambda w: w.ep.register, {"fd": fds, "eventmask": masks, "data": data}, 1,
        FD_ERRORS, CTL + " EEXIST ELOOP", doc=pyepoll.Epoll.register,
    ),
    "Epoll.modify": Target(
        lambda w: w.ep.modify, {"fd": fds, "eventmask": masks, "data": data}, 2,
        FD_ERRORS, CTL + " ENOENT", doc=pyepoll.Epoll.modify,
    ),
    "Epoll.unregister": Target(
        lambda w: w.ep.unregister, {"fd": fds}, 1, FD_ERRORS, CTL + " ENOENT", doc=pyepoll.Epoll.unregister,
    ),
    "Epoll.rearm": Target(
        lambda w: w.ep.rearm, {"fd": fds}, 1, FD_ERRORS, CTL + " ENOENT", doc=pyepoll.Epoll.rearm
    ),
    "Epoll.poll": Target(
        lambda w: w.ep.poll, {"timeout": timeouts, "maxevents": counts}, 0,
        (ValueError,), doc=pyepoll.Epoll.poll,
    ),
    "Epoll.wait": Target(
        lambda w: listed(w.ep.wait), {"timeout": timeouts, "maxevents": counts, "sigmask": signals}, 0,
        FD_ERRORS, doc=pyepoll.Epoll.wait,
    ),
    "Epoll.get_busy_poll": Target(
        lambda w: w.ep.get_busy_poll, {}, 0, (ValueError,), BUSY_POLL, doc=pyepoll.Epoll.get_busy_poll
    ),
    "Epoll.set_busy_poll": Target(
        lambda w: w.ep.set_busy_poll, {"usecs": words, "budget": words, "prefer": anything}, 1,
        FD_ERRORS, BUSY_POLL + " EPERM EINVAL", doc=pyepoll.Epoll.set_busy_poll,
    ),
    "Epoll.close": Target(lambda w: w.ep.close),
    "Epoll.closed": Target(lambda w: lambda: w.ep.closed),
    "Epoll.fileno": Target(lambda w: w.ep.fileno),
    "Epoll.registrations": Target(lambda w: lambda: dict(w.ep.registrations)),
    "Epoll.stats": Target(lambda w: w.ep.stats),
    "Epoll.__bool__": Target(lambda w: w.ep.__bool__),
    "Epoll.__class_getitem__": Target(
        lambda w: pyepoll.Epoll.__class_getitem__, {"item": anything}, 1, by_name=False
    ),
    "Epoll.__contains__": Target(lambda w: w.ep.__contains__, {"fd": fds}, 1, FD_ERRORS, by_name=False),
    "Epoll.__enter__": Target(lambda w: w.ep.__enter__),
    "Epoll.__exit__": Target(
        lambda w: w.ep.__exit__, {"kind": anything, "error": anything, "trace": anything}, by_name=False
    ),
    "Epoll.__iter__": Target(lambda w: lambda: next(iter(w.ep))),
    "Epoll.__len__": Target(lambda w: w.ep.__len__),
    "Epoll.__reduce_ex__": Target(lambda w: w.ep.__reduce_ex__, {"protocol": anything}, 1),
    "Epoll.__repr__": Target(lambda w: w.ep.__repr__),
    "Stats": Target(
        lambda w: pyepoll.Stats, dict.fromkeys(pyepoll.Stats._fields, anything), len(pyepoll.Stats._fields)
    ),
    "BusyPoll": Target(
        lambda w: pyepoll.BusyPoll, {"usecs": anything, "budget": anything, "prefer": anything}, 1
    ),
    "Registrations": Target(lambda w: lambda ep: dict(pyepoll.Registrations(ep)), {"ep": objects}, 1,
                            (AttributeError,), by_name=False),
    "Registrations.__getitem__": Target(
        lambda w: w.ep.registrations.__getitem__, {"fd": keys}, 1, (KeyError, *FD_ERRORS), by_name=False
    ),
    "Registrations.__contains__": Target(
        lambda w: w.ep.registrations.__contains__, {"fd": keys}, 1, FD_ERRORS, by_name=False
    ),
    "Registrations.__eq__": Target(
        lambda w: lambda other: w.ep.registrations == other, {"other": anything}, 1, by_name=False
    ),
    "Registrations.get": Target(
        lambda w: w.ep.registrations.get, {"key": keys, "default": anything}, 1, FD_ERRORS
    ),
    "Registrations.items": Target(lambda w: listed(w.ep.registrations.items)),
    "Registrations.keys": Target(lambda w: listed(w.ep.registrations.keys)),
    "Registrations.values": Target(lambda w: listed(w.ep.registrations.values)),
    "Registrations.__iter__": Target(lambda w: lambda: list(w.ep.registrations)),
    "Registrations.__len__": Target(lambda w: w.ep.registrations.__len__),
    "Registrations.__repr__": Target(lambda w: w.ep.registrations.__repr__),
    "Registrations.__reduce_ex__": Target(
        lambda w: w.ep.registrations.__reduce_ex__, {"protocol": anything}, 1
    ),
    "Event": Target(lambda w: Event, {"value": st.one_of(anything, masks)}, 1, (ValueError,), by_name=False),
    "Event.readable": predicate("readable"),
    "Event.writable": predicate("writable"),
    "Event.hangup": predicate("hangup"),
    "Event.error": predicate("error"),
    "Event.__str__": Target(lambda w: lambda mask: str(Event(mask)), {"mask": numbers}, 1, by_name=False),
    "Event.__and__": Target(of_event(lambda event, other: event & other), {"other": anything}, 1,
                            by_name=False),
    "Event.__rand__": Target(of_event(lambda event, other: other & event), {"other": anything}, 1,
                             by_name=False),
    "EpollSelector": Target(lambda w: lambda *args, **kwargs: pyepoll.EpollSelector(*args, **kwargs).close()),
    "EpollSelector.register": Target(
        lambda w: w.sel.register, {"fileobj": fds, "events": events, "data": data, "flags": masks}, 2,
        (KeyError, *FD_ERRORS), CTL + " ELOOP", doc=pyepoll.EpollSelector.register,
    ),
    "EpollSelector.modify": Target(
        lambda w: w.sel.modify, {"fileobj": fds, "events": events, "data": data, "flags": masks}, 2,
        (KeyError, *FD_ERRORS), "EBADF ENOENT EINVAL", doc=pyepoll.EpollSelector.modify,
    ),
    "EpollSelector.unregister": Target(
        lambda w: w.sel.unregister, {"fileobj": fds}, 1, (KeyError, *FD_ERRORS),
        doc=pyepoll.EpollSelector.unregister,
    ),
    "EpollSelector.select": Target(
        lambda w: w.sel.select, {"timeout": timeouts}, 0, FD_ERRORS, doc=pyepoll.EpollSelector.select
    ),
    "EpollSelector.get_key": Target(
        lambda w: w.sel.get_key, {"fileobj": fds}, 1, (KeyError, RuntimeError, *FD_ERRORS),
        doc=pyepoll.EpollSelector.get_key,
    ),
    "EpollSelector.get_map": Target(lambda w: lambda: dict(w.sel.get_map())),
    "EpollSelector.close": Target(lambda w: w.sel.close),
    "EpollSelector.__reduce_ex__": Target(lambda w: w.sel.__reduce_ex__, {"protocol": anything}, 1),
    "EpollSelector.fileno": Target(lambda w: w.sel.fileno),
    "Waker": Target(lambda w: lambda *args, **kwargs: pyepoll.Waker(*args, **kwargs).close()),
    "Waker.wake": Target(lambda w: w.waker.wake),
    "Waker.clear": Target(lambda w: w.waker.clear),
    "Waker.close": Target(lambda w: w.waker.close),
    "Waker.closed": Target(lambda w: lambda: w.waker.closed),
    "Waker.fileno": Target(lambda w: w.waker.fileno),
    "Waker.__enter__": Target(lambda w: w.waker.__enter__),
    "Waker.__exit__": Target(
        lambda w: w.waker.__exit__, {"kind": anything, "error": anything, "trace": anything}, by_name=False
    ),
    "Waker.__repr__": Target(lambda w: w.waker.__repr__),
    "Timer": Target(
        lambda w: lambda *args, **kwargs: pyepoll.Timer(*args, **kwargs).close(),
        {"delay": timeouts, "interval": timeouts, "clock": mixed(numbers, st.integers(0, 12))}, 0,
        FD_ERRORS, "EINVAL EPERM", doc=pyepoll.Timer,
    ),
    "Timer.set": Target(
        lambda w: w.timer.set, {"delay": timeouts, "interval": timeouts}, 1,
        (ValueError,), doc=pyepoll.Timer.set,
    ),
    "Timer.set_at": Target(
        lambda w: w.timer.set_at, {"when": timeouts, "interval": timeouts, "cancel_on_set": anything}, 1,
        (ValueError,), doc=pyepoll.Timer.set_at,
    ),
    "Timer.cancel": Target(lambda w: w.timer.cancel),
    "Timer.read": Target(lambda w: w.timer.read),
    "Timer.remaining": Target(lambda w: w.timer.remaining),
    "Timer.interval": Target(lambda w: w.timer.interval),
    "Timer.clock": Target(lambda w: lambda: w.timer.clock),
    "Timer.close": Target(lambda w: w.timer.close),
    "Timer.closed": Target(lambda w: lambda: w.timer.closed),
    "Timer.fileno": Target(lambda w: w.timer.fileno),
    "Timer.__enter__": Target(lambda w: w.timer.__enter__),
    "Timer.__exit__": Target(
        lambda w: w.timer.__exit__, {"kind": anything, "error": anything, "trace": anything}, by_name=False
    ),
    "Timer.__repr__": Target(lambda w: w.timer.__repr__),
    "Signals": Target(
        lambda w: lambda *args: pyepoll.Signals(*args).close(),
        {"first": mixed(numbers, st.integers(1, 64)), "second": mixed(numbers, st.integers(1, 64))}, 1,
        FD_ERRORS, "EBUSY", False, pyepoll.Signals,
    ),
    "Signals.read": Target(lambda w: w.signals.read),
    "Signals.signals": Target(lambda w: lambda: w.signals.signals),
    "Signals.close": Target(lambda w: w.signals.close),
    "Signals.closed": Target(lambda w: lambda: w.signals.closed),
    "Signals.fileno": Target(lambda w: w.signals.fileno),
    "Signals.__enter__": Target(lambda w: w.signals.__enter__),
    "Signals.__exit__": Target(
        lambda w: w.signals.__exit__, {"kind": anything, "error": anything, "trace": anything}, by_name=False
    ),
    "Signals.__repr__": Target(lambda w: w.signals.__repr__),
    "Child": Target(
        lambda w: lambda pid: pyepoll.Child(pid).close(), {"pid": mixed(numbers)}, 1,
        (*FD_ERRORS, ProcessLookupError, FileNotFoundError), "ESRCH EINVAL ENOENT", False,
    ),
    "Child.read": Target(lambda w: w.child.read),
    "Child.send_signal": Target(
        lambda w: w.child.send_signal, {"signum": mixed(st.integers(65, 2**40), st.just(0))}, 1,
        FD_ERRORS, "EINVAL", False, pyepoll.Child.send_signal,
    ),
    "Child.pid": Target(lambda w: lambda: w.child.pid),
    "Child.returncode": Target(lambda w: lambda: w.child.returncode),
    "Child.close": Target(lambda w: w.child.close),
    "Child.closed": Target(lambda w: lambda: w.child.closed),
    "Child.fileno": Target(lambda w: w.child.fileno),
    "Child.__enter__": Target(lambda w: w.child.__enter__),
    "Child.__exit__": Target(
        lambda w: w.child.__exit__, {"kind": anything, "error": anything, "trace": anything}, by_name=False
    ),
    "Child.__repr__": Target(lambda w: w.child.__repr__),
    "raw.epoll_create": Target(
        lambda w: opened(raw.epoll_create), {"size": mixed(numbers)}, 1,
        (OverflowError,), "EINVAL", False, raw.epoll_create,
    ),
    "raw.epoll_create1": Target(
        lambda w: opened(raw.epoll_create1), {"flags": mixed(numbers, st.sampled_from([0, 2**19]))}, 1,
        (OverflowError,), "EINVAL", False, raw.epoll_create1,
    ),
    "raw.epoll_ctl": Target(
        lambda w: raw.epoll_ctl,
        {"epfd": epfds, "op": operations, "fd": watched, "events": masks, "data": words}, 3,
        FD_ERRORS, CTL + " EEXIST ELOOP ENOENT", doc=raw.epoll_ctl,
    ),
    "raw.epoll_wait": Target(
        lambda w: raw.epoll_wait, {"epfd": epfds, "buffer": buffers, "timeout_ms": milliseconds}, 3,
        (OverflowError,), "EBADF EINVAL", doc=raw.epoll_wait,
    ),
    "raw.epoll_pwait": Target(
        lambda w: raw.epoll_pwait,
        {"epfd": epfds, "buffer": buffers, "timeout_ms": milliseconds, "sigmask": signals}, 3,
        FD_ERRORS, "EBADF EINVAL", doc=raw.epoll_pwait,
    ),
    "raw.epoll_pwait2": Target(
        lambda w: raw.epoll_pwait2,
        {"epfd": epfds, "buffer": buffers, "timeout_ns": mixed(numbers, st.none()), "sigmask": signals}, 2,
        FD_ERRORS, "EBADF EINVAL ENOSYS EPERM", doc=raw.epoll_pwait2,
    ),
    "use_pwait2": Target(
        lambda w: lambda use: pyepoll.use_pwait2(bool(use)), {"use": anything}, 1, by_name=False,
        doc=pyepoll.use_pwait2,
    ),
    "raw.uses_pwait2": Target(lambda w: raw.uses_pwait2),
    "raw.epoll_get_params": Target(
        lambda w: raw.epoll_get_params, {"epfd": epfds}, 1,
        (OverflowError,), PARAMS, False, raw.epoll_get_params,
    ),
    "raw.epoll_set_params": Target(
        lambda w: raw.epoll_set_params,
        {"epfd": epfds, "busy_poll_usecs": words, "busy_poll_budget": words, "prefer_busy_poll": anything}, 4,
        (OverflowError,), PARAMS + " EINVAL EPERM", doc=raw.epoll_set_params,
    ),
    "raw.EventBuffer": Target(
        lambda w: raw.EventBuffer, {"capacity": mixed(numbers)}, 1,
        (*FD_ERRORS, MemoryError), doc=raw.EventBuffer,
    ),
    "raw.EventBuffer.__getitem__": Target(
        lambda w: lambda index: w.buffer[index], {"index": mixed(numbers)}, 1, (IndexError,), by_name=False,
        doc=raw.EventBuffer,
    ),
    "raw.EventBuffer.__iter__": Target(lambda w: lambda: list(w.buffer)),
    "raw.EventBuffer.__len__": Target(lambda w: w.buffer.__len__),
}  # fmt: skip


@st.composite
def calls(draw: st.DrawFn, target: Target) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by position and by name; now and then one too few, too many, or of an unknown name."""
    given = draw(st.integers(target.required, len(target.params)))
    by_position = draw(st.integers(0, given)) if target.by_name else given
    wrong = draw(st.sampled_from([None, None, None, None, None, None, None, None, "fewer", "more", "name"]))
    names = list(target.params)
    values = [draw(target.params[name]) for name in names[:given]]
    args = values[:by_position]
    kwargs = dict(zip(names[by_position:given], values[by_position:], strict=True))
    if wrong == "fewer":
        args = args[:-1]
    elif wrong == "more":
        args = [*values, *(draw(strange) for _ in range(len(names) + 1 - given))]
        kwargs = {}
    elif wrong == "name":
        kwargs[draw(st.sampled_from(["", "nobody", "fd", "data", "é", *names]))] = draw(strange)
    return tuple(args), kwargs


def mentions(value: Any, action: str) -> bool:
    if isinstance(value, Trick):
        return value.action == action or mentions(value.value, action)
    return isinstance(value, (list, tuple)) and any(mentions(each, action) for each in value)


def errnos(target: Target) -> set[int]:
    return {getattr(errno, name) for name in target.errnos.split()}


def attempt(target: Target, world: World, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Make the call, and raise every error that is not documented."""
    hostile = [*args, *kwargs.values()]
    # Python's own: __index__ returned an int of a subclass.
    errors: list[type[BaseException]] = [TypeError, DeprecationWarning, *target.errors]
    if any(mentions(each, "raise") for each in hostile):
        errors.append(Odd)
    if any(mentions(each, "close") for each in hostile):
        errors.append(ValueError)
    try:
        target.get(world)(*resolve(world, args), **{name: resolve(world, kwargs[name]) for name in kwargs})
    except OSError as error:
        if error.errno not in errnos(target):
            raise
        assert type(error) is type(OSError(error.errno, ""))
        assert error.strerror
    except tuple(errors):
        pass


def numbers_open() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.lasts(120)
def test_any_argument_raises_only_documented_errors(name: str, effort: Effort) -> None:
    target = TARGETS[name]

    @settings(
        max_examples=effort(15, 400) if target.params else 5,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(calls(target))
    def attack(call: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        before = numbers_open()
        with contextlib.closing(World()) as world:
            attempt(target, world, *call)
            world.check()
        assert numbers_open() == before

    gc.collect()
    attack()


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.doc is not None])
def test_the_docstring_names_the_errors(name: str) -> None:
    target = TARGETS[name]
    text = with_references(target.doc)
    missing = [error.__name__ for error in target.errors if error is not MemoryError]
    missing = [word for word in [*missing, *target.errnos.split()] if not re.search(rf"\b{word}\b", text)]
    assert not missing, f"{name} does not say that it raises {missing}"


def with_references(documented: Any) -> str:
    """A docstring, and those of the functions that raise the same."""
    text = documented.__doc__ or ""
    owner = raw if documented in [getattr(raw, name) for name in raw.__all__] else pyepoll.Epoll
    for name in set(re.findall(r"(?:what|as|as in) (\w+)", text)) & set(dir(owner)):
        if getattr(owner, name) is not documented:
            text += with_references(getattr(owner, name))
    return text


def test_every_public_name_has_a_strategy() -> None:
    """A new public name needs a strategy here."""
    assert set(TARGETS) == set(public_names())


SPECIAL = {
    *(
        "__and__",
        "__bool__",
        "__class_getitem__",
        "__contains__",
        "__enter__",
        "__eq__",
        "__exit__",
        "__getitem__",
    ),
    *("__iter__", "__len__", "__rand__", "__reduce_ex__", "__repr__", "__str__"),
}


def methods(kind: type) -> set[str]:
    """The public methods and properties of a class, and the special ones that are its own."""
    own = {name for base in kind.__mro__ if base.__module__.startswith("pyepoll") for name in vars(base)}
    if issubclass(kind, Mapping):
        own |= {"get", "items", "keys", "values", "__contains__", "__eq__"}
    special = {name for name in own if name.startswith("__")} & SPECIAL
    return {name for name in own if not name.startswith("_")} | special


def public_names() -> set[str]:
    names = set()
    for module, prefix in ((pyepoll, ""), (raw, "raw.")):
        for name in set(module.__all__) - {"epoll", "error", "raw"}:
            value = getattr(module, name)
            if isinstance(value, int):
                continue
            names.add(prefix + name)
            if isinstance(value, type) and value not in (pyepoll.BusyPoll, pyepoll.Stats):
                members = getattr(value, "__members__", {})
                names |= {f"{prefix}{name}.{method}" for method in methods(value) if method not in members}
    return names
