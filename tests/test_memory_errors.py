"""Every allocation of every public function fails in turn: nothing is leaked, nothing half-registered."""

import gc
import os
import select
import sys
import sysconfig
from collections.abc import Callable
from typing import Any

import pytest
from conftest import agree, fdinfo_lines, open_fds

import pyepoll
from pyepoll import Event, raw

if sysconfig.get_config_var("Py_GIL_DISABLED") and sys.version_info < (3, 14):
    pytest.skip("its own lists crash when they have no memory", allow_module_level=True)

_testcapi = pytest.importorskip("_testcapi", reason="a CPython without its test modules")
set_nomemory, remove_mem_hooks = _testcapi.set_nomemory, _testcapi.remove_mem_hooks

Epoll = pyepoll.Epoll[Any]

MOST_ALLOCATIONS = 200

Call = Callable[[], object]


def failing_in_turn(prepare: Callable[[], Call], check: Callable[[bool], None]) -> int:
    """Run what `prepare` returns with its first, second, … allocation failing, until one run has none that
    fails; after each, tell `check` whether it succeeded. Returns how many failed."""
    gc.disable()
    try:
        for start in range(MOST_ALLOCATIONS):
            call = prepare()
            done = False
            # Kept, for it is a pair, and let go it would be the first to be reused.
            window = (start, start + 1)
            set_nomemory(*window)
            try:
                call()
                done = True
            except MemoryError:
                pass
            finally:
                remove_mem_hooks()
            del call
            check(done)
            if done:
                # An allocation of the interpreter's own may fail unnoticed: twice in a row is the end.
                call = prepare()
                window = (start + 1, start + 2)
                set_nomemory(*window)
                try:
                    call()
                except MemoryError:
                    done = False
                finally:
                    remove_mem_hooks()
                del call
                check(done)
                if done:
                    return start
    finally:
        gc.enable()
    raise AssertionError("it allocates without end")


def use_up_free_pairs() -> object:
    """The interpreter keeps tuples for reuse, and what it gives out of these cannot fail."""
    return [(number, None) for number in range(5000)]


class Data:
    """What is registered: its reference count shows what is leaked."""


@pytest.fixture
def fd() -> Any:
    # Far from all others: its page of the interest list is not there yet.
    first = os.eventfd(1, os.EFD_NONBLOCK)
    fd = os.dup2(first, 600)
    os.close(first)
    yield fd
    os.close(fd)


def test_the_attack_attacks() -> None:
    """A call that does allocate is seen to fail."""
    assert failing_in_turn(lambda: lambda: [object()], lambda done: None) > 0


def test_epoll() -> None:
    before = open_fds()
    made: list[Epoll] = []

    def check(done: bool) -> None:
        assert len(made) == done
        for ep in made:
            ep.close()
        made.clear()
        gc.collect()
        assert open_fds() == before

    def make() -> None:
        made[:] = [pyepoll.Epoll[Any]()]

    made.append(pyepoll.Epoll())  # A list that has room allocates nothing.
    made.pop().close()
    assert failing_in_turn(lambda: make, check) > 0


def test_register(fd: int) -> None:
    data = Data()
    references = sys.getrefcount(data)
    eps: list[Epoll] = []

    def prepare() -> Call:
        eps.append(pyepoll.Epoll())
        return lambda: eps[0].register(fd, Event.IN, data)

    def check(done: bool) -> None:
        (ep,) = eps
        assert agree(ep)
        assert (fd in ep) is done
        assert sys.getrefcount(data) == references + done
        assert ep.poll(0) == ([(data, Event.IN)] if done else [])
        ep.close()
        eps.clear()
        assert sys.getrefcount(data) == references

    assert failing_in_turn(prepare, check) > 0


def test_register_with_the_number_as_data(fd: int) -> None:
    eps: list[Epoll] = []

    class File:
        def fileno(self) -> int:
            return fd

    file = File()

    def prepare() -> Call:
        eps.append(pyepoll.Epoll())
        return lambda: eps[0].register(file)

    def check(done: bool) -> None:
        (ep,) = eps
        assert agree(ep)
        assert (fd in ep) is done
        ep.close()
        eps.clear()

    assert failing_in_turn(prepare, check) > 0


@pytest.mark.parametrize("reported", [True, False])
def test_modify(ep: Epoll, fd: int, reported: bool) -> None:
    old, new = Data(), Data()
    references = sys.getrefcount(old), sys.getrefcount(new)
    ep.register(fd, Event.IN, old)

    def prepare() -> Call:
        ep.modify(fd, Event.IN, old)
        if reported:
            assert len(ep.poll(0)) == 1
        return lambda: ep.modify(fd, Event.OUT, new)

    def check(done: bool) -> None:
        assert agree(ep)
        assert ep.registrations[fd] == ((Event.OUT, new) if done else (Event.IN, old))
        assert [data for data, _ in ep.poll(0)] == [new if done else old]

    failing_in_turn(prepare, check)
    ep.close()
    assert (sys.getrefcount(old), sys.getrefcount(new)) == references


@pytest.mark.parametrize("method", ["unregister", "rearm", "modify"])
def test_what_is_refused(ep: Epoll, closed_fd: int, method: str) -> None:
    """The making of the error itself has no memory."""

    def call() -> None:
        try:
            getattr(ep, method)(closed_fd, *([1] if method == "modify" else []))
        except OSError:
            pass

    failing_in_turn(lambda: call, lambda done: None)
    assert agree(ep)


def test_unregister(ep: Epoll, fd: int) -> None:
    data = Data()
    references = sys.getrefcount(data)

    def prepare() -> Call:
        if fd not in ep:
            ep.register(fd, Event.IN, data)
        return lambda: ep.unregister(fd)

    def check(done: bool) -> None:
        assert agree(ep)
        assert (fd in ep) is not done
        assert sys.getrefcount(data) == references + (not done)

    failing_in_turn(prepare, check)


@pytest.mark.parametrize("mask", [Event.IN, Event.IN | Event.ET, Event.IN | Event.ONESHOT], ids=str)
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "again"])
def test_poll(fd: int, mask: Event, fresh: bool) -> None:
    """What a poll fetched and could not hand out comes with the next."""
    data = Data()
    references = sys.getrefcount(data)
    eps: list[Epoll] = []

    def prepare() -> Call:
        eps.append(pyepoll.Epoll())
        eps[0].register(fd, mask, data)
        if not fresh:
            assert len(eps[0].poll(0)) == 1
            eps[0].rearm(fd)
        return lambda: eps[0].poll(0)

    def check(done: bool) -> None:
        (ep,) = eps
        assert ep.poll(0) == ([] if done and mask != Event.IN else [(data, Event.IN)])
        ep.close()
        eps.clear()
        gc.collect()
        assert sys.getrefcount(data) == references

    assert failing_in_turn(prepare, check) > 0


def test_wait(fd: int) -> None:
    """The call itself; the steps of its iterator are another test's."""
    data = Data()
    references = sys.getrefcount(data)
    with pyepoll.Epoll[Any]() as ep:
        ep.register(fd, Event.IN | Event.ET, data)

        def prepare() -> Call:
            ep.rearm(fd)
            return lambda: ep.wait(0, sigmask=[1, 2])

        def check(done: bool) -> None:
            gc.collect()
            assert ep.poll(0) == [(data, Event.IN)], "dropped before it was handed out"

        assert failing_in_turn(prepare, check) > 0
    assert sys.getrefcount(data) == references


@pytest.mark.parametrize("way", ["wait", "endless"])
def test_steps_of_an_iterator(fd: int, way: str) -> None:
    data = Data()
    references = sys.getrefcount(data)
    eps: list[Epoll] = []
    pairs: list[object] = []

    def prepare() -> Call:
        eps.append(pyepoll.Epoll())
        eps[0].register(fd, Event.IN, data)
        events = iter(eps[0]) if way == "endless" else eps[0].wait(0)
        pairs.append(use_up_free_pairs())
        return lambda: next(events)

    def check(done: bool) -> None:
        (ep,) = eps
        assert ep.poll(0) == [(data, Event.IN)]
        ep.close()
        eps.clear()
        pairs.clear()
        gc.collect()
        assert sys.getrefcount(data) == references

    assert failing_in_turn(prepare, check) > 0


def test_many_events(ep: Epoll, eventfd: Callable[..., int]) -> None:
    """A list with some of them made, and an array for the kernel that must grow."""
    fds = [eventfd(1) for _ in range(100)]
    pairs: list[object] = []
    for fd in fds:
        ep.register(fd, Event.IN | Event.ET, (fd,))

    def prepare() -> Call:
        for fd in fds:
            ep.modify(fd, Event.IN | Event.ET, (fd,))
        pairs[:] = [use_up_free_pairs()]
        return lambda: ep.poll(0)

    def check(done: bool) -> None:
        pairs.clear()
        assert len(ep.poll(0)) == (0 if done else 100)

    assert failing_in_turn(prepare, check) >= len(fds)


def test_a_cure_puts_itself_off() -> None:
    """A wait without memory for the cure fails, or does without; the next one cures."""
    fd = os.eventfd(1)
    keep, live = os.dup(fd), os.eventfd(1)
    os.close(fd)
    eps: list[Epoll] = []

    def prepare() -> Call:
        eps.append(pyepoll.Epoll())
        ep = eps[0]
        ghost = os.dup(keep)
        ep.register(live, Event.IN, "live")
        ep.register(ghost, Event.IN, "ghost")
        os.close(ghost)
        with pytest.raises(OSError, match="Bad file descriptor"):
            ep.unregister(ghost)
        return lambda: [ep.poll(0) for _ in range(10)]

    def check(done: bool) -> None:
        (ep,) = eps
        for _ in range(10):
            assert ep.poll(0) == [("live", Event.IN)]
        assert [fd for fd, _, _ in fdinfo_lines(ep)] == [live]
        ep.close()
        eps.clear()

    assert failing_in_turn(prepare, check) > 0
    os.close(keep)
    os.close(live)


def test_a_failing_fromfd_leaves_the_number_open() -> None:
    stock = select.epoll()
    number = stock.fileno()
    ep: Epoll | None = None

    def make() -> None:
        nonlocal ep
        ep = pyepoll.Epoll[Any].fromfd(number)

    def check(done: bool) -> None:
        # What was made is kept: the number would go with it.
        assert (ep is not None) is done
        os.fstat(number)

    assert failing_in_turn(lambda: make, check) > 0
    assert ep is not None
    ep.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    stock.close()


OTHERS: dict[str, Callable[[Epoll, int], object]] = {
    "_fds": lambda ep, fd: ep._fds(),
    "_registration": lambda ep, fd: ep._registration(fd),
    "registrations": lambda ep, fd: dict(ep.registrations),
    "stats": lambda ep, fd: ep.stats(),
    "repr": lambda ep, fd: repr(ep),
    "iter": lambda ep, fd: iter(ep),
    "contains": lambda ep, fd: fd in ep,
    "fromfd of ours": lambda ep, fd: pyepoll.Epoll[Any].fromfd(ep.fileno()),
    "Waker": lambda ep, fd: pyepoll.Waker(),
    "EventBuffer": lambda ep, fd: raw.EventBuffer(1000),
    "raw wait": lambda ep, fd: list(wait_raw(ep)),
    "raw create": lambda ep, fd: os.close(raw.epoll_create1(0)),
    "Event": lambda ep, fd: Event(5) | Event.ET,
}


def wait_raw(ep: Epoll) -> raw.EventBuffer:
    buffer = raw.EventBuffer(10)
    raw.epoll_wait(ep.fileno(), buffer, 0)
    return buffer


@pytest.mark.parametrize("name", OTHERS)
def test_other_calls(ep: Epoll, fd: int, name: str) -> None:
    data = Data()
    ep.register(fd, Event.IN, data)
    call = OTHERS[name]
    call(ep, fd)
    gc.collect()
    before, references = open_fds(), sys.getrefcount(data)

    def check(done: bool) -> None:
        if name != "raw create":
            assert open_fds() == before

    failing_in_turn(lambda: lambda: call(ep, fd) and None, check)
    gc.collect()
    assert sys.getrefcount(data) == references
    assert agree(ep)
    assert ep.poll(0) == [(data, Event.IN)]
