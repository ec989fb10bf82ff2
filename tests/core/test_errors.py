"""An error names the operation, the fd and the cause, and leaves object and kernel in agreement."""

import contextlib
import ctypes
import errno
import os
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.fds import Pipe
from support.kernel import agree, fdinfo, fdinfo_lines
from support.processes import run

import pyepoll
from pyepoll import Event, raw

CLOSED = re.escape("I/O operation on closed epoll object")

Epoll = pyepoll.Epoll[Any]
Step = Callable[[Epoll, int], object]


@pytest.fixture
def busy(ep: Epoll, make_pipe: Callable[[], Pipe]) -> Iterator[Epoll]:
    """An epoll with an edge, a one-shot and an exclusive ready, none of which an error may change or eat."""
    masks = (Event.IN | Event.ET, Event.IN | Event.ONESHOT, Event.IN | Event.EXCLUSIVE)
    for mask in masks:
        pipe = make_pipe()
        os.write(pipe.write, b"x")
        ep.register(pipe.read, mask, data=mask)
    kernel, believed = fdinfo_lines(ep), dict(ep.registrations)
    yield ep
    assert fdinfo_lines(ep) == kernel
    assert dict(ep.registrations) == believed
    assert sorted(ep.poll(0)) == sorted((mask, Event.IN) for mask in masks)


@pytest.fixture
def opened() -> Iterator[Callable[[str, int], int]]:
    """Open a file, until the end of the test."""
    with contextlib.ExitStack() as stack:

        def make(path: str, flags: int) -> int:
            fd = os.open(path, flags)
            stack.callback(os.close, fd)
            return fd

        yield make


def fails(step: Callable[[], object], error: int, *words: str) -> None:
    """Check the exception's class and errno, and that its text has these words."""
    with pytest.raises(OSError) as caught:
        step()
    assert caught.value.errno == error
    assert type(caught.value) is type(OSError(error, ""))
    assert caught.value.strerror
    for word in (*words, os.strerror(error)):
        assert re.search(rf"(?<![\w|]){re.escape(word)}(?![\w|])", caught.value.strerror), caught.value


# The refusals of epoll_ctl.


def test_registering_twice_raises_eexist(busy: Epoll, pipe: Pipe) -> None:
    busy.register(pipe.write, Event.OUT, data="first")
    fails(
        lambda: busy.register(pipe.write, Event.IN | Event.ET, data="second"),
        errno.EEXIST,
        *("register", f"fd {pipe.write}", "IN|ET", "already"),
    )
    assert busy.registrations[pipe.write] == (Event.OUT, "first")
    assert agree(busy)
    busy.unregister(pipe.write)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("modify", lambda ep, fd: ep.modify(fd, Event.OUT)),
        ("unregister", lambda ep, fd: ep.unregister(fd)),
        ("rearm", lambda ep, fd: ep.rearm(fd)),
    ],
)
def test_an_unregistered_fd_raises_enoent(busy: Epoll, pipe: Pipe, name: str, step: Step) -> None:
    fails(lambda: step(busy, pipe.write), errno.ENOENT, name, f"fd {pipe.write}", "not registered")


def test_rearm_shows_the_mask_that_it_would_apply_and_no_other(ep: Epoll, pipe: Pipe) -> None:
    def text(fd: int) -> str:
        with pytest.raises(OSError) as error:
            ep.rearm(fd)
        return str(error.value)

    unknown = f"rearm fd {pipe.read}: {os.strerror(errno.ENOENT)} (fd {pipe.read} is not registered)"
    assert text(pipe.read).endswith(unknown)
    assert f"rearm fd {ep.fileno()}: " in text(ep.fileno())
    for mask, shown in (Event.IN | Event.ONESHOT, "IN|ONESHOT"), (0, "0"):
        fd = os.dup(pipe.read)
        ep.register(fd, mask)
        os.close(fd)
        assert f"rearm fd {fd} ({shown}): " in text(fd)
        assert f"rearm fd {fd}: " in text(fd)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("register", lambda ep, fd: ep.register(fd, Event.IN)),
        ("modify", lambda ep, fd: ep.modify(fd, Event.IN)),
        ("unregister", lambda ep, fd: ep.unregister(fd)),
        ("rearm", lambda ep, fd: ep.rearm(fd)),
    ],
)
@pytest.mark.parametrize("number", [None, 2**31 - 1])
def test_a_closed_fd_raises_ebadf(
    busy: Epoll, closed_fd: int, name: str, step: Step, number: int | None
) -> None:
    fd = closed_fd if number is None else number
    fails(lambda: step(busy, fd), errno.EBADF, name, f"fd {fd}", "not open")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (__file__, "regular file"),
        ("/proc/self/stat", "regular file"),
        ("/", "directory"),
        (os.devnull, "/dev/null"),
    ],
)
def test_a_file_that_cannot_be_polled_raises_eperm(busy: Epoll, path: str, kind: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    fails(
        lambda: busy.register(fd, Event.IN | Event.OUT),
        errno.EPERM,
        *("register", f"fd {fd}", "IN|OUT", kind, "is always ready and cannot be polled"),
        "Epoll(always_ready=True) accepts it",
    )
    fails(lambda: busy.modify(fd, Event.IN), errno.EPERM, "modify", f"fd {fd}", kind)
    fails(lambda: busy.unregister(fd), errno.EPERM, "unregister", f"fd {fd}", kind)
    os.close(fd)


FSOPEN, LANDLOCK_CREATE_RULESET = 430, 444
"""System calls with the same numbers on all architectures."""


def open_filesystem_context() -> int:
    return system_call(FSOPEN, b"tmpfs", 0)


def open_landlock_ruleset() -> int:
    handled_access_fs = ctypes.c_uint64(1)
    return system_call(LANDLOCK_CREATE_RULESET, ctypes.byref(handled_access_fs), ctypes.c_size_t(8), 0)


def system_call(number: int, *arguments: Any) -> int:
    """The fd that a system call makes; skip where it is missing or forbidden."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(number, *arguments)
    if fd < 0:
        pytest.skip(f"system call {number}: {os.strerror(ctypes.get_errno())}")
    return fd


def open_loop_control() -> int:
    try:
        return os.open("/dev/loop-control", os.O_RDWR)
    except OSError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (open_filesystem_context, "a file of this kind"),
        (open_landlock_ruleset, "a file of this kind"),
        (open_loop_control, "a device of this kind"),
    ],
)
def test_only_files_that_are_always_ready_are_called_so(
    busy: Epoll, make: Callable[[], int], kind: str
) -> None:
    fd = make()
    try:
        with pytest.raises(PermissionError, match=rf"fd {fd} .*\({kind} cannot be polled\)$"):
            busy.register(fd, Event.IN)
    finally:
        os.close(fd)


# Stock gives the text of errno and no more.

WORDS: dict[str, tuple[Callable[[Any, int], object], tuple[str, ...]]] = {
    "EEXIST": (lambda ep, fd: [ep.register(fd, 1), ep.register(fd, 1)], ("register", "registered already")),
    "ENOENT": (lambda ep, fd: ep.modify(fd, 1), ("modify", "not registered")),
    "EINVAL": (lambda ep, fd: ep.register(ep.fileno()), ("register", "itself")),
    "EBADF": (lambda ep, fd: ep.unregister(2**31 - 1), ("unregister", "not open")),
}


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize(
    "make",
    [
        pyepoll.Epoll[Any],
        pytest.param(
            select.epoll, marks=pytest.mark.xfail(strict=True, reason="does not name the operation")
        ),
    ],
    ids=["pyepoll", "stock"],
)
def test_error_text_names_the_operation_and_the_cause(make: Callable[[], Any], name: str, pipe: Pipe) -> None:
    step, words = WORDS[name]
    with make() as ep:
        fails(lambda: step(ep, pipe.read), getattr(errno, name), *words)


def test_an_o_path_fd_raises_ebadf(busy: Epoll, opened: Callable[[str, int], int]) -> None:
    """The kernel says EBADF for an open fd."""
    fd = opened(os.devnull, os.O_PATH)
    for step in (busy.register, busy.unregister, lambda fd: busy.modify(fd, Event.IN)):
        fails(lambda: step(fd), errno.EBADF, f"fd {fd}", "O_PATH")  # noqa: B023


def test_registering_a_duplicate_of_itself_raises_einval(busy: Epoll) -> None:
    fd = os.dup(busy.fileno())
    try:
        fails(lambda: busy.register(fd, Event.IN), errno.EINVAL, "register", f"fd {fd}", "itself")
    finally:
        os.close(fd)


def test_a_circle_of_epolls_raises_eloop(busy: Epoll) -> None:
    with pyepoll.Epoll[int]() as outer:
        outer.register(busy, Event.IN)
        fd = outer.fileno()
        fails(lambda: busy.register(outer, Event.IN), errno.ELOOP, "register", f"fd {fd}", "IN", "circle")
        assert agree(outer)
        assert len(outer) == 1


def test_epolls_nested_too_deep_raise_eloop(busy: Epoll) -> None:
    chain: list[Epoll] = [busy]
    while len(chain) < 6:
        chain.append(pyepoll.Epoll())
        try:
            chain[-1].register(chain[-2], Event.IN)
        except OSError as error:
            assert error.errno == errno.ELOOP
            assert "5" in str(error)
            break
    else:
        pytest.fail("the kernel took six epolls inside each other")
    assert len(chain[-1]) == 0
    assert agree(chain[-1])
    for ep in chain[1:]:
        ep.close()


def test_registering_itself_raises_einval(busy: Epoll) -> None:
    fd = busy.fileno()
    for itself in (busy, fd):
        fails(lambda: busy.register(itself, Event.IN), errno.EINVAL, "register", f"fd {fd}", "itself")  # noqa: B023
    fails(lambda: busy.modify(fd, Event.IN), errno.EINVAL, "modify", f"fd {fd}", "itself")
    fails(lambda: busy.unregister(fd), errno.EINVAL, "unregister", f"fd {fd}", "itself")


@pytest.mark.parametrize(
    "other", [Event.ONESHOT, Event.RDHUP, Event.PRI, Event.RDNORM, Event.PRI | Event.ONESHOT], ids=str
)
def test_exclusive_with_a_refused_flag_raises_einval(busy: Epoll, pipe: Pipe, other: Event) -> None:
    fails(
        lambda: busy.register(pipe.read, Event.IN | Event.EXCLUSIVE | other),
        errno.EINVAL,
        *("register", f"fd {pipe.read}", "EXCLUSIVE cannot be combined with", str(other)),
    )


def test_exclusive_on_an_epoll_raises_einval(busy: Epoll) -> None:
    with pyepoll.Epoll[int]() as inner:
        fails(
            lambda: busy.register(inner, Event.IN | Event.EXCLUSIVE),
            errno.EINVAL,
            *("register", f"fd {inner.fileno()}", "IN|EXCLUSIVE", "epoll"),
        )


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("modify", lambda ep, fd: ep.modify(fd, Event.IN | Event.ET)),
        ("modify", lambda ep, fd: ep.modify(fd, Event.IN | Event.EXCLUSIVE)),
        ("modify", lambda ep, fd: ep.modify(fd, Event.IN, data="new")),
        ("rearm", lambda ep, fd: ep.rearm(fd)),
    ],
)
def test_exclusive_cannot_be_modified(busy: Epoll, pipe: Pipe, name: str, step: Step) -> None:
    fd = pipe.write
    busy.register(fd, Event.OUT | Event.EXCLUSIVE, data="old")
    fails(lambda: step(busy, fd), errno.EINVAL, name, f"fd {fd}", "EXCLUSIVE", "cannot be modified")
    assert busy.registrations[fd] == (Event.OUT | Event.EXCLUSIVE, "old")
    assert agree(busy)
    busy.unregister(fd)


def test_modify_cannot_set_exclusive(busy: Epoll, pipe: Pipe) -> None:
    fd = pipe.write
    busy.register(fd, Event.OUT, data="old")
    fails(
        lambda: busy.modify(fd, Event.OUT | Event.EXCLUSIVE, data="new"),
        errno.EINVAL,
        *("modify", f"fd {fd}", "OUT|EXCLUSIVE", "cannot be modified"),
    )
    assert busy.registrations[fd] == (Event.OUT, "old")
    assert agree(busy)
    busy.unregister(fd)


@pytest.mark.parametrize(
    ("error", "words"),
    [("ENOSPC", ["register", "IN", "{limit}", "max_user_watches"]), ("ENOMEM", ["register", "IN"])],
)
def test_short_of_watches_or_memory(error: str, words: list[str]) -> None:
    printed = run(
        f"""
        import errno, gc, os, sys
        from support.kernel import fdinfo
        from support.seccomp import deny
        import pyepoll
        ep, fd, data = pyepoll.Epoll(), os.eventfd(0), object()
        count = sys.getrefcount(data)
        deny("epoll_ctl", errno.{error})
        try:
            ep.register(fd, pyepoll.Event.IN, data=data)
        except OSError as error:
            assert error.errno == errno.{error}
            print(error)
        assert len(ep) == 0 and fd not in ep and fdinfo(ep) == {{}}
        gc.collect()
        assert sys.getrefcount(data) == count
        """
    )
    with open("/proc/sys/fs/epoll/max_user_watches") as file:
        limit = file.read().strip()
    for word in words:
        assert word.format(limit=limit) in printed


# Files that were closed.


@pytest.mark.parametrize(
    "step",
    [
        lambda ep, fd: ep.modify(fd, Event.IN),
        lambda ep, fd: ep.unregister(fd),
        lambda ep, fd: ep.rearm(fd),
    ],
    ids=["modify", "unregister", "rearm"],
)
@pytest.mark.parametrize(
    ("reused_by", "error"),
    [("", errno.EBADF), ("pipe", errno.ENOENT), (__file__, errno.EPERM), ("path", errno.EBADF)],
    ids=["", "pipe", "file", "path"],
)
def test_a_closed_fd_is_dropped_when_it_is_modified(
    busy: Epoll, pipe: Pipe, step: Step, reused_by: str, error: int, opened: Callable[[str, int], int]
) -> None:
    fd = pipe.read
    other = pipe.write
    if reused_by != "pipe":
        other = opened(__file__, os.O_PATH if reused_by == "path" else os.O_RDONLY)
    busy.register(fd, Event.IN)
    pipe.close(fd)
    assert fd in busy
    if reused_by:
        os.dup2(other, fd, inheritable=False)
    try:
        fails(lambda: step(busy, fd), error, f"fd {fd}")
        assert fd not in busy
        assert agree(busy)
    finally:
        # Where it failed.
        with contextlib.suppress(OSError):
            busy.unregister(fd)
        if reused_by:
            os.close(fd)


def test_a_reused_fd_can_be_registered_again(ep: Epoll) -> None:
    pipe, other = Pipe(), Pipe()
    fd = pipe.read
    ep.register(fd, Event.IN, data="old")
    pipe.close(fd)
    os.dup2(other.read, fd)
    ep.register(fd, Event.IN | Event.ET, data="new")
    assert ep.registrations[fd] == (Event.IN | Event.ET, "new")
    assert agree(ep)
    os.write(other.write, b"x")
    assert ep.poll(0) == [("new", Event.IN)]
    os.close(fd)
    pipe.close()
    other.close()


# Masks.


@pytest.mark.parametrize(
    ("mask", "named"),
    [
        (1 << 11, "0x800"),
        (1 << 11 | Event.IN, "0x800"),
        (0x20, "0x20"),
        (1 << 27, "0x8000000"),
        (1 << 12 | 1 << 14, "0x5000"),
        (~Event.IN, r"0x[0-9a-f]+"),
        (1 << 32, "32 bits"),
        (1 << 32 | Event.IN, "32 bits"),
        (2**100, "32 bits"),
        (-1, "32 bits"),
        (-(2**63), "32 bits"),
        (-(2**100), "32 bits"),
    ],
)
def test_a_bad_mask_names_its_bits(busy: Epoll, pipe: Pipe, mask: int, named: str) -> None:
    fd = pipe.write
    with pytest.raises(ValueError, match=rf"\b{named}\b"):
        busy.register(fd, mask)
    assert fd not in busy
    busy.register(fd, Event.OUT, data="old")
    with pytest.raises(ValueError, match=rf"\b{named}\b"):
        busy.modify(fd, mask, data="new")
    assert busy.registrations[fd] == (Event.OUT, "old")
    assert agree(busy)
    busy.unregister(fd)


# Closed objects.


@pytest.mark.parametrize(
    "step",
    [
        lambda ep, fd: ep.fileno(),
        lambda ep, fd: ep.register(fd),
        lambda ep, fd: ep.register(fd, Event.IN, data=1),
        lambda ep, fd: ep.modify(fd, Event.IN),
        lambda ep, fd: ep.unregister(fd),
        lambda ep, fd: ep.rearm(fd),
        lambda ep, fd: ep.poll(),
        lambda ep, fd: ep.poll(0),
        lambda ep, fd: ep.wait(),
        lambda ep, fd: ep.wait(0, 1, []),
        lambda ep, fd: iter(ep),
        lambda ep, fd: ep.__enter__(),
        lambda ep, fd: ep.get_busy_poll(),
        lambda ep, fd: ep.set_busy_poll(0, 8, False),
    ],
)
def test_a_closed_object_raises_value_error(ep: Epoll, pipe: Pipe, step: Step) -> None:
    ep.register(pipe.read, Event.IN)
    ep.close()
    for _ in range(2):
        with pytest.raises(ValueError, match=CLOSED):
            step(ep, pipe.read)


def test_a_closed_object_can_be_inspected(ep: Epoll, pipe: Pipe) -> None:
    ep.register(pipe.read, Event.IN)
    ep.close()
    assert ep.closed
    assert len(ep) == 0
    assert pipe.read not in ep
    assert dict(ep.registrations) == {}
    assert "closed" in repr(ep)
    assert ep.stats().waits == 0
    ep.close()


# fromfd.


def test_a_refused_fromfd_leaves_the_fd_open() -> None:
    check_fromfd(pyepoll.Epoll)


@pytest.mark.xfail(strict=True, reason="stock takes any number, and closes it")
def test_stock_fromfd_raises_the_same() -> None:
    check_fromfd(select.epoll)


def check_fromfd(cls: Any) -> None:
    fd = os.eventfd(0)
    try:
        with pytest.raises(OSError, match="not an epoll"):
            cls.fromfd(fd)
        os.fstat(fd)
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


def test_fromfd_of_another_file_raises_einval(pipe: Pipe, closed_fd: int) -> None:
    fails(lambda: pyepoll.Epoll.fromfd(pipe.read), errno.EINVAL, "fromfd", "not an epoll")
    fails(lambda: pyepoll.Epoll.fromfd(closed_fd), errno.EBADF, "fromfd")
    with pytest.raises((OSError, ValueError)):
        pyepoll.Epoll.fromfd(-1)
    with pyepoll.Epoll[int]() as ep:
        assert fdinfo(ep) == {}


# Raw.


def test_errors_of_raw_calls_take_no_event(busy: Epoll) -> None:
    """The search for the cause of an EINVAL must not take an edge that no later wait would report."""
    for op, events in ((raw.EPOLL_CTL_ADD, raw.EPOLLEXCLUSIVE | raw.EPOLLONESHOT), (99, raw.EPOLLIN)):
        with pytest.raises(OSError) as caught:
            raw.epoll_ctl(busy._instance_fd(), op, next(iter(busy.registrations)), events)
        assert caught.value.errno == errno.EINVAL


# The system's message is in the encoding of the locale.

STRERROR = r"""
char *strerror(int error) { return "Unzul\344ssig"; }
int __xpg_strerror_r(int error, char *text, unsigned long size) { return 0; }
"""


def test_messages_of_the_system_are_decoded_in_the_locale(preload: Callable[[str], None]) -> None:
    """As os.strerror() and every OSError of Python's have it: Latin-1, in a locale that is ASCII."""
    preload(STRERROR)
    program = """
import os, pyepoll
expected = os.strerror(9)
if expected == "Bad file descriptor":
    print("strerror is not the loaded one")  # CPython 3.15 asks another function
    raise SystemExit
texts = []
for call in (lambda: pyepoll.Epoll().register(2**20), lambda: pyepoll.raw.epoll_create1(1)):
    try:
        call()
    except OSError as error:
        texts.append(error.strerror)
assert len(texts) == 2
assert all(expected in text for text in texts), (expected, texts)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-X", "utf8=0", "-c", program],
        env={
            **os.environ,
            "LC_ALL": "C",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stderr
    if done.stdout:
        pytest.skip(done.stdout)
