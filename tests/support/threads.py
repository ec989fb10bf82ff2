"""Threads: whether they wait, and that several run at once."""

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator

import pyepoll
from support.seccomp import SYSCALLS


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return when the condition holds; fail when it does not within the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.001)


def threads_say(what: str) -> Iterator[tuple[int, bytes]]:
    """The ids of this process's threads, and the contents of that file of each in /proc."""
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


def lets_go_of_the_gil(call: Callable[[], object], seconds: float = 5.0) -> bool:
    """Whether another thread gets to run while this one makes the call, again and again."""
    started, go, ran = threading.Event(), threading.Event(), threading.Event()

    def other() -> None:
        started.set()
        go.wait()
        ran.set()

    thread = threading.Thread(target=other)
    interval = sys.getswitchinterval()
    thread.start()
    started.wait()
    time.sleep(0.01)
    # From here on no thread asks for the GIL: it changes hands only when it is released.
    sys.setswitchinterval(1000)
    try:
        deadline = time.monotonic() + seconds
        go.set()
        while not ran.is_set() and time.monotonic() < deadline:
            call()
        return ran.is_set()
    finally:
        sys.setswitchinterval(interval)
        thread.join()


def together(*works: Callable[[], object], seconds: float = 30) -> list[str]:
    """Run each in a thread of its own, all at once; return the tracebacks, and the threads still running."""
    barrier, complaints = threading.Barrier(len(works)), []

    def run(work: Callable[[], object]) -> None:
        try:
            barrier.wait(10)
            work()
        except BaseException:
            complaints.append(traceback.format_exc())

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
        if thread.is_alive():
            complaints.append(f"{thread} is not back")
    return complaints


def keep_waking(waker: pyepoll.Waker, done: threading.Event) -> None:
    while not done.is_set():
        waker.wake()
        waker.clear()
