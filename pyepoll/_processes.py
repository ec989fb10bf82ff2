"""Subprocesses without a child watcher, before CPython 3.14: the loop waits for a pidfd.

asyncio's own watcher starts a thread for each process in CPython 3.11, and asking for it costs as much as the
rest of asyncio's part in CPython 3.12 and 3.13. From 3.14 on, asyncio has none.
"""

import asyncio
import asyncio.unix_events
import contextlib
from typing import Any

from ._epoll import Child

_stock: Any = asyncio.unix_events
_events: Any = asyncio.events
_Policy: Any = getattr(_stock, "_UnixDefaultEventLoopPolicy", None)
_get_child_watcher: Any = getattr(_events, "get_child_watcher", None)
_Transport: Any = _stock._UnixSubprocessTransport
_UNKNOWN = 255
"""The exit code that asyncio reports if something else has reaped the process."""


class SubprocessTransport(_Transport):  # type: ignore[misc]
    """asyncio's transport; but its methods lose no exit code.

    close() calls :meth:`subprocess.Popen.poll`; before CPython 3.13, send_signal(), terminate() and kill() do
    so as well. That reaps a process that has ended meanwhile, and the loop would not learn its exit code.
    """

    _child: Child | None = None  # Set by watch_process(), cleared by _ended().

    def _check_proc(self) -> None:
        super()._check_proc()
        self._reap()

    def close(self) -> None:
        self._reap()
        super().close()

    def _reap(self) -> None:
        """Tell Popen the exit code, if the process has ended."""
        child = self._child
        with contextlib.suppress(OSError):  # The program has closed the pidfd.
            if child is not None and child.read() and child.returncode is not None:
                self.get_extra_info("subprocess").returncode = child.returncode


def transport_type() -> Any:
    """Return the class for a subprocess: asyncio's, if a program has replaced that."""
    current: Any = _stock._UnixSubprocessTransport
    return SubprocessTransport if current is _Transport else current


def has_default_watcher() -> bool:
    """Return whether asyncio would make its default child watcher: none was set or asked for."""
    policy: Any = _events.get_event_loop_policy()
    return (
        isinstance(policy, _Policy)
        and policy._watcher is None
        and type(policy).get_child_watcher is _Policy.get_child_watcher
        and _events.get_child_watcher is _get_child_watcher
    )


def watch_process(loop: Any, transport: Any) -> None:
    """Report the end of a process to its transport, as a child watcher does."""
    pid: int = transport.get_pid()
    try:
        child = Child(pid)
    except ProcessLookupError:  # SIGCHLD is ignored: the kernel has reaped it.
        loop.call_soon(_report, loop, pid, None, transport)
    except OSError:  # There are no pidfds in this sandbox, or no fd is left: a thread needs none.
        _stock.ThreadedChildWatcher().add_child_handler(pid, loop._child_watcher_callback, transport)
    else:
        transport._child = child
        loop._add_reader(child.fileno(), _ended, loop, child, transport)


def _ended(loop: Any, child: Child, transport: Any) -> None:
    if child.read():
        transport._child = None
        loop._remove_reader(child.fileno())
        child.close()
        _report(loop, child.pid, child.returncode, transport)


def _report(loop: Any, pid: int, returncode: int | None, transport: Any) -> None:
    if returncode is None:
        _stock.logger.warning("Unknown child process pid %d, will report returncode %d", pid, _UNKNOWN)
        returncode = _UNKNOWN
    loop._child_watcher_callback(pid, returncode, transport)
