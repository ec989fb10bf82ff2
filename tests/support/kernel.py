"""What tests and the programs that they run share.

Import from here in a program that ``run`` starts: conftest.py imports pytest, which takes five times as long
as everything else that such a program imports.
"""

import contextlib
import ctypes
import faulthandler
import os
import resource
import signal
import struct
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pyepoll

IMPLIED = pyepoll.EPOLLERR | pyepoll.EPOLLHUP
"""What the kernel adds to every mask."""

SYSCALLS = {
    "x86_64": {
        "clock_nanosleep": 230,
        "dup3": 292,
        "epoll_create": 213,
        "epoll_create1": 291,
        "epoll_ctl": 233,
        "epoll_pwait": 281,
        "epoll_pwait2": 441,
        "epoll_wait": 232,
        "eventfd2": 290,
        "fcntl": 72,
        "fstat": 5,
        "getdents64": 217,
        "getrandom": 318,
        "ioctl": 16,
        "kcmp": 312,
        "newfstatat": 262,
        "openat": 257,
        "readlink": 89,
    },
    "aarch64": {
        "clock_nanosleep": 115,
        "dup3": 24,
        "epoll_create1": 20,
        "epoll_ctl": 21,
        "epoll_pwait": 22,
        "epoll_pwait2": 441,
        "eventfd2": 19,
        "fcntl": 25,
        "fstat": 80,
        "getdents64": 61,
        "getrandom": 278,
        "ioctl": 29,
        "kcmp": 272,
        "newfstatat": 79,
        "openat": 56,
        "readlink": 78,
    },
}[os.uname().machine]
"""The numbers of the system calls that the core makes; aarch64 has but the newer ones of epoll's."""

EXIT = {
    "x86_64": 60,
    "aarch64": 93,
}[os.uname().machine]
"""The number of exit(2), which ends a thread. Not one of SYSCALLS: denied, a thread tries for ever."""


class HasFileno(Protocol):
    def fileno(self, /) -> int: ...


def instance_fd(ep: int | HasFileno) -> int:
    """The fd of the kernel instance, which for an Epoll is not what fileno() returns."""
    if isinstance(ep, int):
        return ep
    epoll: Any = getattr(ep, "_selector", ep)
    number: int = getattr(epoll, "_instance_fd", epoll.fileno)()
    return number


def fdinfo_lines(ep: int | HasFileno) -> list[tuple[int, int, int]]:
    """What the kernel watches for an epoll, as (fd, events, data word).

    A number can be there twice: a ghost (its fd closed, its file open elsewhere) and a live one.
    """
    with open(f"/proc/thread-self/fdinfo/{instance_fd(ep)}") as file:
        fields = [line.split() for line in file if line.startswith("tfd:")]
    return [(int(f[1]), int(f[3], 16), int(f[5], 16)) for f in fields]


def fdinfo(ep: int | HasFileno) -> dict[int, tuple[int, int]]:
    """What the kernel watches for an epoll: fd to (events with ERR and HUP added, data word)."""
    return {fd: (events, data) for fd, events, data in fdinfo_lines(ep)}


def agree(ep: pyepoll.Epoll[Any]) -> bool:
    """Whether the object believes what the kernel knows; not for a spent one-shot, which shows no bits."""
    believed = {fd: events | IMPLIED for fd, (events, _) in ep.registrations.items()}
    return believed == {fd: events for fd, (events, _) in fdinfo(ep).items()}


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return when the condition holds; fail when it does not within the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.001)


def threads_say(what: str) -> Iterator[tuple[int, bytes]]:
    """The ids of this process's threads, and what /proc says of each in that file."""
    for task in os.listdir("/proc/self/task"):
        # The thread may have ended meanwhile.
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),
            open(f"/proc/self/task/{task}/{what}", "rb") as file,
        ):
            yield int(task), file.read()


def waiters() -> int:
    """How many threads of this process sleep in an epoll wait."""
    waits = [str(number).encode() for name, number in SYSCALLS.items() if "wait" in name]
    return sum(text.split()[0] in waits for _, text in threads_say("syscall"))


def others_sleep() -> bool:
    """Whether no other thread of this process runs."""
    own = threading.get_native_id()
    return all(
        text.rpartition(b")")[2].split()[0] == b"S" for task, text in threads_say("stat") if task != own
    )


def fork(seconds: int = 0) -> int:
    """os.fork(), also where there are threads: what becomes of them in the child is what is tested.

    A child that is still there after so many seconds says where, and ends; 0 is for ever.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0 and seconds > 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, file=2, chain=True)
        signal.alarm(seconds)
    return child


def open_fds() -> dict[int, str]:
    """The fds of this process and what they are."""
    fds = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # The one that listed the directory.
            fds[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return fds


@contextlib.contextmanager
def no_fd_left(spare: int = 0) -> Iterator[None]:
    """As many fds open as this process may have, but for a few."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_fds()) + 8, limits[1]))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(spare):
            os.close(taken.pop())
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def deny(syscall: str, error: int) -> None:
    """From now on let a system call fail in this process: for programs that ``run`` runs.

    A seccomp filter, so it needs no privilege and touches nothing outside the process.
    """
    filter_syscall(syscall, 0x0005_0000 | error)  # SECCOMP_RET_ERRNO


def kill_for(syscall: str) -> None:
    """From now on let a system call end this process with SIGSYS: for programs that ``run`` runs."""
    filter_syscall(syscall, 0x8000_0000)  # SECCOMP_RET_KILL_PROCESS


def filter_syscall(syscall: str, action: int) -> None:
    """Answer a system call of this thread, and of those that it starts, with a seccomp action."""

    def operation(code: int, k: int, skip_unless: int = 0) -> bytes:
        return struct.pack("=HBBI", code, 0, skip_unless, k)

    load, jump_if_equal, ret = 0x20, 0x15, 0x06
    program = b"".join(
        [
            operation(load, 0),
            operation(jump_if_equal, SYSCALLS[syscall], skip_unless=1),
            operation(ret, action),
            operation(ret, 0x7FFF_0000),  # SECCOMP_RET_ALLOW
        ]
    )
    code = ctypes.create_string_buffer(program, len(program))
    filters = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None)
    zero = ctypes.c_ulong(0)
    assert libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, ctypes.c_ulong(2), filters, zero, zero) == 0  # PR_SET_SECCOMP, a filter
