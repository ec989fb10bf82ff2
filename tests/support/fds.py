"""Open fds of this process."""

import contextlib
import os
import resource
from collections.abc import Iterator


class Pipe:
    """Both ends of a non-blocking pipe, as ints; an end may be closed early."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._open = [self.read, self.write]

    def close(self, *fds: int) -> None:
        for fd in fds or tuple(self._open):
            self._open.remove(fd)
            os.close(fd)

    def fill(self) -> int:
        """Write until there is no room; return how many bytes that took."""
        written = 0
        try:
            while True:
                written += os.write(self.write, bytes(65536))
        except BlockingIOError:
            return written


def open_fds() -> dict[int, str]:
    """The fds of this process and their files."""
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
