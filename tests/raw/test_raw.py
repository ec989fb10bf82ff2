"""pyepoll.raw is the kernel's: every errno, every bit of the data word, nothing retried."""

import contextlib
import errno
import itertools
import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.fds import Pipe
from support.kernel import IMPLIED, fdinfo
from support.processes import run
from support.threads import lets_go_of_the_gil, until, waiters

import pyepoll
from pyepoll import raw
from pyepoll.raw import EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLEXCLUSIVE, EPOLLIN, EPOLLOUT

U64 = 2**64 - 1
HEADER = Path("/usr/include/linux/eventpoll.h")

Eventfd = Callable[..., int]
Wait = Callable[[int, raw.EventBuffer, float | None], int]


def wait_ms(epfd: int, buffer: raw.EventBuffer, seconds: float | None) -> int:
    return raw.epoll_wait(epfd, buffer, -1 if seconds is None else round(seconds * 1000))


def pwait_ms(epfd: int, buffer: raw.EventBuffer, seconds: float | None) -> int:
    return raw.epoll_pwait(epfd, buffer, -1 if seconds is None else round(seconds * 1000))


def pwait2_ns(epfd: int, buffer: raw.EventBuffer, seconds: float | None) -> int:
    return raw.epoll_pwait2(epfd, buffer, None if seconds is None else round(seconds * 10**9))


each_wait = pytest.mark.parametrize("wait", [wait_ms, pwait_ms, pwait2_ns])


@pytest.fixture
def epfd() -> Iterator[int]:
    fd = raw.epoll_create1(raw.EPOLL_CLOEXEC)
    yield fd
    os.close(fd)


@contextlib.contextmanager
def refused(error: int) -> Iterator[None]:
    with pytest.raises(OSError, match=r"[a-z]") as caught:
        yield
    assert caught.value.errno == error
    assert type(caught.value) is type(OSError(error, ""))


# Constants.


@pytest.mark.skipif(not HEADER.exists(), reason="the kernel's headers are not installed")
def test_constants_equal_those_of_the_header() -> None:
    defines = dict(re.findall(r"#define\s+(EP(?:OLL|IOC)\w+)\s+(.*)", HEADER.read_text()))
    # The definitions that the header needs for its struct, and from Linux 6.9 on for its ioctls.
    del defines["EPOLL_PACKED"]
    names = {
        "O_CLOEXEC": os.O_CLOEXEC,
        "EPOLL_IOC_TYPE": int(defines.get("EPOLL_IOC_TYPE", "0"), 16),
        "struct_epoll_params": 8,
        "_IOW": lambda kind, number, size: 1 << 30 | size << 16 | kind << 8 | number,
        "_IOR": lambda kind, number, size: 2 << 30 | size << 16 | kind << 8 | number,
    }
    values = {
        # eval of a C constant expression: casts and suffixes off, the names that it uses put in.
        name: eval(re.sub(r"\(__poll_t\)|(?<=\d)U", "", text).replace("struct ", "struct_"), dict(names))
        for name, text in defines.items()
    }
    assert len(values) > 15
    assert {name: getattr(raw, name, None) for name in values} == values


def test_constants_of_linux_6_9_exist() -> None:
    assert raw.EPOLL_IOC_TYPE == 0x8A
    assert raw.EPIOCSPARAMS == 1 << 30 | 8 << 16 | 0x8A << 8 | 1
    assert raw.EPIOCGPARAMS == 2 << 30 | 8 << 16 | 0x8A << 8 | 2


def test_constants_equal_those_of_select() -> None:
    values = {name: getattr(select, name) for name in dir(select) if name.startswith("EPOLL")}
    assert len(values) > 10
    assert {name: getattr(raw, name) for name in values} == values
    assert {name: getattr(pyepoll, name) for name in values} == values


# epoll_create and epoll_create1.


@pytest.mark.parametrize(("flags", "inheritable"), [(raw.EPOLL_CLOEXEC, False), (0, True)])
def test_create1_is_inheritable_unless_cloexec(flags: int, inheritable: bool) -> None:
    fd = raw.epoll_create1(flags)
    assert fdinfo(fd) == {}
    assert os.get_inheritable(fd) is inheritable
    os.close(fd)


def test_create_makes_an_empty_epoll() -> None:
    fd = raw.epoll_create(1)
    assert fdinfo(fd) == {}
    os.close(fd)


@pytest.mark.parametrize("size", [0, -1])
def test_create_refuses_sizes_below_one(size: int) -> None:
    with refused(errno.EINVAL):
        raw.epoll_create(size)


@pytest.mark.parametrize("flags", [1, -1, ~raw.EPOLL_CLOEXEC])
def test_create1_refuses_unknown_flags(flags: int) -> None:
    with refused(errno.EINVAL):
        raw.epoll_create1(flags)


def test_create_without_free_fds_raises_emfile() -> None:
    printed = run(
        """
        import os, resource
        from pyepoll import raw
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        fds = []
        for create in (lambda: raw.epoll_create1(0), lambda: raw.epoll_create(1)):
            try:
                while True:
                    fds.append(create())
            except OSError as error:
                print(error.errno)
        """
    )
    assert printed.split() == [str(errno.EMFILE)] * 2


@pytest.mark.parametrize("error", ["ENOMEM", "ENFILE"])
def test_create1_short_of_memory_or_files(error: str) -> None:
    printed = run(
        f"""
        import errno
        from support.seccomp import deny
        from pyepoll import raw
        deny("epoll_create1", errno.{error})
        try:
            raw.epoll_create1(0)
        except OSError as error:
            print(errno.errorcode[error.errno])
        """
    )
    assert printed.strip() == error


# epoll_ctl.


def test_ctl_adds_modifies_and_deletes(epfd: int, eventfd: Eventfd) -> None:
    fd = eventfd()
    raw.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, EPOLLIN, 7)
    assert fdinfo(epfd) == {fd: (EPOLLIN | IMPLIED, 7)}
    raw.epoll_ctl(epfd=epfd, op=EPOLL_CTL_MOD, fd=fd, events=EPOLLOUT, data=8)
    assert fdinfo(epfd) == {fd: (EPOLLOUT | IMPLIED, 8)}
    raw.epoll_ctl(epfd, EPOLL_CTL_MOD, fd)
    assert fdinfo(epfd) == {fd: (IMPLIED, 0)}
    raw.epoll_ctl(epfd, EPOLL_CTL_DEL, fd)
    assert fdinfo(epfd) == {}


def test_ctl_of_a_closed_fd_raises_ebadf(epfd: int, eventfd: Eventfd, closed_fd: int) -> None:
    fd = eventfd()
    for op in (EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL):
        with refused(errno.EBADF):
            raw.epoll_ctl(closed_fd, op, fd, EPOLLIN)
        with refused(errno.EBADF):
            raw.epoll_ctl(epfd, op, closed_fd, EPOLLIN)
    assert fdinfo(epfd) == {}


def test_ctl_raises_eexist_and_enoent(epfd: int, eventfd: Eventfd) -> None:
    fd = eventfd()
    for op in (EPOLL_CTL_MOD, EPOLL_CTL_DEL):
        with refused(errno.ENOENT):
            raw.epoll_ctl(epfd, op, fd, EPOLLIN)
    raw.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, EPOLLIN, 1)
    with refused(errno.EEXIST):
        raw.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, EPOLLOUT, 2)
    assert fdinfo(epfd) == {fd: (EPOLLIN | IMPLIED, 1)}


def test_ctl_of_invalid_arguments_raises_einval(epfd: int, eventfd: Eventfd) -> None:
    fd = eventfd()
    exclusive = eventfd()
    inner = raw.epoll_create1(raw.EPOLL_CLOEXEC)
    raw.epoll_ctl(epfd, EPOLL_CTL_ADD, exclusive, EPOLLIN | EPOLLEXCLUSIVE)
    before = fdinfo(epfd)
    for args in (
        (epfd, EPOLL_CTL_ADD, epfd, EPOLLIN),
        (fd, EPOLL_CTL_ADD, exclusive, EPOLLIN),
        (epfd, 0, fd, EPOLLIN),
        (epfd, 4, fd, EPOLLIN),
        (epfd, -1, fd, EPOLLIN),
        (epfd, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLEXCLUSIVE | raw.EPOLLONESHOT),
        (epfd, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLEXCLUSIVE | raw.EPOLLRDHUP),
        (epfd, EPOLL_CTL_ADD, inner, EPOLLIN | EPOLLEXCLUSIVE),
        (epfd, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLEXCLUSIVE),
        (epfd, EPOLL_CTL_MOD, exclusive, EPOLLIN),
    ):
        with refused(errno.EINVAL):
            raw.epoll_ctl(*args)
        assert fdinfo(epfd) == before
    os.close(inner)


def test_ctl_of_a_cycle_raises_eloop(epfd: int) -> None:
    # A circle of two, then one epoll inside another, deeper than five.
    chain = [epfd] + [raw.epoll_create1(raw.EPOLL_CLOEXEC) for _ in range(6)]
    raw.epoll_ctl(chain[0], EPOLL_CTL_ADD, chain[1], EPOLLIN)
    with refused(errno.ELOOP):
        raw.epoll_ctl(chain[1], EPOLL_CTL_ADD, chain[0], EPOLLIN)
    with refused(errno.ELOOP):
        for outer, inner in itertools.pairwise(chain[1:]):
            raw.epoll_ctl(outer, EPOLL_CTL_ADD, inner, EPOLLIN)
    for fd in chain[1:]:
        os.close(fd)


@pytest.mark.parametrize("path", [__file__, "/", os.devnull])
def test_ctl_of_a_file_that_cannot_be_polled_raises_eperm(epfd: int, path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    with refused(errno.EPERM):
        raw.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, EPOLLIN)
    os.close(fd)


@pytest.mark.parametrize("error", ["ENOSPC", "ENOMEM"])
def test_ctl_short_of_watches_or_memory(error: str) -> None:
    printed = run(
        f"""
        import errno, os
        from support.seccomp import deny
        from pyepoll import raw
        epfd = raw.epoll_create1(0)
        deny("epoll_ctl", errno.{error})
        try:
            raw.epoll_ctl(epfd, raw.EPOLL_CTL_ADD, os.eventfd(0), raw.EPOLLIN)
        except OSError as error:
            print(errno.errorcode[error.errno])
        """
    )
    assert printed.strip() == error


@pytest.mark.parametrize("data", [0, 1, 2**31, 2**32, 2**63 - 1, 2**63, U64 - 1, U64])
def test_the_epoll_data_is_returned_unchanged(epfd: int, eventfd: Eventfd, data: int) -> None:
    fd = eventfd(1)
    buffer = raw.EventBuffer(1)
    raw.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, EPOLLIN, data)
    assert fdinfo(epfd)[fd][1] == data
    assert raw.epoll_wait(epfd, buffer, 0) == 1
    assert buffer[0] == (EPOLLIN, data)


@pytest.mark.parametrize("data", [-1, 2**64, 2**100])
def test_data_out_of_range_is_refused(epfd: int, eventfd: Eventfd, data: int) -> None:
    with pytest.raises((OverflowError, ValueError)):
        raw.epoll_ctl(epfd, EPOLL_CTL_ADD, eventfd(), EPOLLIN, data)
    assert fdinfo(epfd) == {}


@pytest.mark.parametrize("events", [-1, 2**32, 2**100])
def test_events_out_of_range_are_refused(epfd: int, eventfd: Eventfd, events: int) -> None:
    with pytest.raises((OverflowError, ValueError)):
        raw.epoll_ctl(epfd, EPOLL_CTL_ADD, eventfd(), events)
    assert fdinfo(epfd) == {}


@pytest.mark.parametrize("position", range(5))
def test_ctl_takes_ints_only(epfd: int, eventfd: Eventfd, position: int) -> None:
    args: list[object] = [epfd, EPOLL_CTL_ADD, eventfd(), EPOLLIN, 0]
    for wrong in ("1", 1.0, None):
        args[position] = wrong
        with pytest.raises(TypeError):
            raw.epoll_ctl(*args)  # type: ignore[arg-type]
    assert fdinfo(epfd) == {}


# EventBuffer.


@pytest.mark.parametrize("capacity", [0, -1, -(2**63), -(2**100)])
def test_capacity_is_positive(capacity: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        raw.EventBuffer(capacity)


@pytest.mark.parametrize("capacity", [2**31, 2**60, 2**63 - 1, 2**63, 2**100])
def test_capacity_has_the_kernels_limit(capacity: int) -> None:
    with pytest.raises((ValueError, OverflowError, MemoryError)):
        raw.EventBuffer(capacity)


@pytest.mark.parametrize("capacity", ["1", 1.0, None])
def test_capacity_is_an_int(capacity: object) -> None:
    with pytest.raises(TypeError):
        raw.EventBuffer(capacity)  # type: ignore[arg-type]


def test_buffer_holds_the_last_wait(epfd: int, eventfd: Eventfd) -> None:
    fds = [eventfd(1) for _ in range(3)]
    buffer = raw.EventBuffer(4)
    assert len(buffer) == 4
    assert list(buffer) == []
    for index in (0, 3, 4, -1, 2**40):
        with pytest.raises(IndexError, match="is out of range: the last wait filled in none$"):
            buffer[index]
    for fd in fds:
        raw.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, EPOLLIN, fd)
    assert raw.epoll_wait(epfd, buffer, 0) == 3
    assert len(buffer) == 4
    assert list(buffer) == [buffer[i] for i in range(3)] == [(EPOLLIN, fd) for fd in fds]
    with pytest.raises(IndexError, match="^event 3 is out of range: the last wait filled in 0 to 2$"):
        buffer[3]
    for fd in fds[1:]:
        os.read(fd, 8)
    assert raw.epoll_wait(epfd, buffer, 0) == 1
    assert list(buffer) == [(EPOLLIN, fds[0])]
    with pytest.raises(IndexError, match="^event 1 is out of range: the last wait filled in 0 to 0$"):
        buffer[1]
    os.read(fds[0], 8)
    assert raw.epoll_wait(epfd, buffer, 0) == 0
    assert list(buffer) == []
    with pytest.raises(TypeError):
        buffer["0"]  # type: ignore[index]


@each_wait
def test_capacity_limits_the_events_of_a_wait(epfd: int, eventfd: Eventfd, wait: Wait) -> None:
    fds = {eventfd(1) for _ in range(5)}
    for fd in fds:
        raw.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, EPOLLIN, fd)
    buffer = raw.EventBuffer(2)
    seen = set()
    for _ in range(3):
        assert wait(epfd, buffer, 0) == 2
        seen |= {data for _, data in buffer}
    assert seen == fds


@each_wait
def test_a_buffer_in_use_is_refused(
    pool: ThreadPoolExecutor, epfd: int, eventfd: Eventfd, wait: Wait
) -> None:
    fd = eventfd()
    raw.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, EPOLLIN, 3)
    buffer = raw.EventBuffer(2)
    waiting = pool.submit(wait, epfd, buffer, None)
    until(lambda: waiters() == 1)
    try:
        for use in (lambda: wait(epfd, buffer, 0), lambda: buffer[0], lambda: list(buffer)):
            with pytest.raises(BufferError):
                use()
        assert len(buffer) == 2
        assert not waiting.done()
    finally:
        os.eventfd_write(fd, 1)
    assert waiting.result(10) == 1
    assert list(buffer) == [(EPOLLIN, 3)]
    assert wait(epfd, buffer, 0) == 1


# The waits.


@each_wait
def test_wait_raises_ebadf_and_einval(epfd: int, eventfd: Eventfd, closed_fd: int, wait: Wait) -> None:
    buffer = raw.EventBuffer(1)
    with refused(errno.EBADF):
        wait(closed_fd, buffer, 0)
    with refused(errno.EINVAL):
        wait(eventfd(), buffer, 0)
    with pytest.raises(TypeError):
        wait(epfd, [], 0)  # type: ignore[arg-type]
    assert wait(epfd, buffer, 0) == 0


def test_pwait2_refuses_negative_timeouts(epfd: int) -> None:
    for timeout in (-2, -(10**9), -(2**62)):
        with refused(errno.EINVAL):
            raw.epoll_pwait2(epfd, raw.EventBuffer(1), timeout)


@pytest.mark.parametrize("timeout", [2**31, 2**63, -(2**31) - 1, 2**100])
def test_milliseconds_must_fit_a_c_int(epfd: int, timeout: int) -> None:
    for wait in (raw.epoll_wait, raw.epoll_pwait):
        with pytest.raises(OverflowError):
            wait(epfd, raw.EventBuffer(1), timeout)


def test_timeouts_must_be_ints(epfd: int) -> None:
    buffer = raw.EventBuffer(1)
    for timeout in (0.5, "0"):
        for wait in (raw.epoll_wait, raw.epoll_pwait, raw.epoll_pwait2):
            with pytest.raises(TypeError):
                wait(epfd, buffer, timeout)  # type: ignore[arg-type]
    for wait_ms in (raw.epoll_wait, raw.epoll_pwait):
        with pytest.raises(TypeError):
            wait_ms(epfd, buffer, None)  # type: ignore[arg-type]


@each_wait
@pytest.mark.parametrize("seconds", [0, 0.001, 0.02])
def test_timeout_is_never_early(epfd: int, wait: Wait, seconds: float) -> None:
    start = time.monotonic()
    assert wait(epfd, raw.EventBuffer(1), seconds) == 0
    assert time.monotonic() - start >= seconds


def test_pwait2_waits_for_nanoseconds(epfd: int) -> None:
    for nanoseconds in (1, 200_000, 10**9 // 1000 * 3 + 1):
        start = time.monotonic_ns()
        assert raw.epoll_pwait2(epfd, raw.EventBuffer(1), nanoseconds) == 0
        assert time.monotonic_ns() - start >= nanoseconds


@each_wait
@pytest.mark.parametrize("seconds", [None, 10])
def test_wait_releases_the_gil(
    pool: ThreadPoolExecutor, epfd: int, eventfd: Eventfd, wait: Wait, seconds: float | None
) -> None:
    fd = eventfd()
    raw.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, EPOLLIN, 9)
    buffer = raw.EventBuffer(1)
    waiting = pool.submit(wait, epfd, buffer, seconds)
    until(lambda: waiters() == 1)
    os.eventfd_write(fd, 1)
    assert waiting.result(10) == 1


@each_wait
def test_wait_releases_the_gil_when_it_does_not_block(epfd: int, wait: Wait) -> None:
    buffer = raw.EventBuffer(1)
    assert lets_go_of_the_gil(lambda: wait(epfd, buffer, 0))


# Signals.


@pytest.fixture
def alarms() -> Iterator[list[int]]:
    """The SIGALRMs that were handled."""
    handled: list[int] = []
    old = signal.signal(signal.SIGALRM, lambda number, frame: handled.append(number))
    yield handled
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


@each_wait
@pytest.mark.parametrize("seconds", [None, 30])
def test_eintr_is_raised_after_the_handler(
    epfd: int, alarms: list[int], wait: Wait, seconds: float | None
) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    with pytest.raises(InterruptedError) as caught:
        wait(epfd, raw.EventBuffer(1), seconds)
    assert caught.value.errno == errno.EINTR
    assert alarms


@each_wait
def test_an_exception_of_a_handler_replaces_eintr(epfd: int, alarms: list[int], wait: Wait) -> None:
    def handler(number: int, frame: object) -> None:
        raise ZeroDivisionError

    signal.signal(signal.SIGALRM, handler)
    buffer = raw.EventBuffer(1)
    # On a busy machine the signal may come before the wait.
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        wait(epfd, buffer, None)
    assert wait(epfd, buffer, 0) == 0


@pytest.mark.parametrize("pwait", [raw.epoll_pwait, raw.epoll_pwait2])
def test_sigmask_blocks_while_it_waits(epfd: int, alarms: list[int], pwait: Callable[..., int]) -> None:
    milliseconds = 100 if pwait is raw.epoll_pwait else 100_000_000
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    start = time.monotonic()
    assert pwait(epfd, raw.EventBuffer(1), milliseconds, {signal.SIGALRM}) == 0
    assert time.monotonic() - start >= 0.1
    assert alarms == [signal.SIGALRM]


@pytest.mark.parametrize("pwait", [raw.epoll_pwait, raw.epoll_pwait2])
@pytest.mark.parametrize(
    "sigmask", [list, tuple, set, lambda: iter([signal.SIGUSR1]), lambda: {signal.SIGUSR1, 64}]
)
def test_sigmask_is_applied_atomically(
    epfd: int, alarms: list[int], pwait: Callable[..., int], sigmask: Callable[[], object]
) -> None:
    """A signal that was blocked before and is let through by the mask ends the wait at once."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        signal.raise_signal(signal.SIGALRM)
        forever = -1 if pwait is raw.epoll_pwait else None
        with pytest.raises(InterruptedError):
            pwait(epfd, raw.EventBuffer(1), forever, sigmask())
        assert alarms == [signal.SIGALRM]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == old | {signal.SIGALRM}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


@pytest.mark.parametrize("pwait", [raw.epoll_pwait, raw.epoll_pwait2])
def test_an_invalid_sigmask_is_refused(epfd: int, pwait: Callable[..., int]) -> None:
    buffer = raw.EventBuffer(1)
    for out_of_range in ([0], [-1], [65], [2**31], [2**100]):
        with pytest.raises((ValueError, OverflowError)):
            pwait(epfd, buffer, 0, out_of_range)
    for wrong in (1, ["1"], [1.0], "x"):
        with pytest.raises(TypeError):
            pwait(epfd, buffer, 0, wrong)
    assert pwait(epfd, buffer, 0, None) == 0


# Parameters (Linux 6.9).


def test_params_are_set_and_read_back(epfd: int) -> None:
    try:
        assert raw.epoll_get_params(epfd) == (0, 0, False)
    except OSError as error:
        # Before Linux 6.9, or a kernel without CONFIG_NET_RX_BUSY_POLL.
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP):
            raise
        with refused(error.errno):
            raw.epoll_set_params(epfd, 1, 8, False)
        return
    raw.epoll_set_params(epfd, 200, 16, True)
    assert raw.epoll_get_params(epfd) == (200, 16, True)
    raw.epoll_set_params(epfd=epfd, busy_poll_usecs=0, busy_poll_budget=8, prefer_busy_poll=False)
    assert raw.epoll_get_params(epfd) == (0, 8, False)
    for usecs in (2**31, 2**32 - 1):
        with refused(errno.EINVAL):
            raw.epoll_set_params(epfd, usecs, 8, False)
    for usecs, budget in ((-1, 8), (2**32, 8), (1, -1), (1, 2**16), (2**100, 8), (1, 2**100)):
        with pytest.raises((ValueError, OverflowError)):
            raw.epoll_set_params(epfd, usecs, budget, False)
    assert raw.epoll_get_params(epfd) == (0, 8, False)


def test_params_of_what_is_no_epoll(pipe: Pipe, closed_fd: int) -> None:
    for fd, error in ((closed_fd, errno.EBADF), (pipe.read, errno.ENOTTY)):
        with refused(error):
            raw.epoll_get_params(fd)
        with refused(error):
            raw.epoll_set_params(fd, 1, 8, False)


def test_every_public_name_is_tested_here() -> None:
    """A new function needs a test: the list of names is the checklist."""
    functions = {name for name in raw.__all__ if not name.startswith(("EPOLL", "EPIOC"))}
    assert functions == {
        "EventBuffer",
        "epoll_create",
        "epoll_create1",
        "epoll_ctl",
        "epoll_pwait",
        "epoll_pwait2",
        "epoll_wait",
        "epoll_get_params",
        "epoll_set_params",
        "uses_pwait2",
    }
