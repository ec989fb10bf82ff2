"""System calls that the kernel denies a thread, by a seccomp filter."""

import ctypes
import os
import struct
import threading
from collections.abc import Callable
from typing import Any

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
        "pidfd_open": 434,
        "pidfd_send_signal": 424,
        "readlink": 89,
        "recvfrom": 45,
        "sendto": 44,
        "timerfd_create": 283,
        "waitid": 247,
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
        "pidfd_open": 434,
        "pidfd_send_signal": 424,
        "readlink": 78,
        "recvfrom": 207,
        "sendto": 206,
        "timerfd_create": 85,
        "waitid": 95,
    },
}[os.uname().machine]
"""The numbers of the system calls that the core makes; aarch64 has but the newer ones of epoll's."""

OPEN = {
    "x86_64": {2, SYSCALLS["openat"]},
    "aarch64": {SYSCALLS["openat"]},
}[os.uname().machine]
"""The numbers of open(2) and openat(2). glibc calls the latter, musl the former where there is one."""

EXIT = {
    "x86_64": 60,
    "aarch64": 93,
}[os.uname().machine]
"""The number of exit(2), which ends a thread. Not one of SYSCALLS: denied, a thread retries indefinitely."""


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


def denied(call: Callable[[], Any], error: int, *syscalls: str) -> Any:
    """Make the call in a thread that is denied these system calls; return its result or raise its error."""
    results: list[Any] = []

    def attempt() -> None:
        for syscall in syscalls:
            deny(syscall, error)
        try:
            results.append(call())
        except BaseException as exception:
            results.append(exception)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return results.pop()
