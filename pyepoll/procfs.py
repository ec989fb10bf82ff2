"""The interest lists of live processes, from ``/proc``: ``python -m pyepoll ps`` as a library.

    from pyepoll import procfs

    for epoll in procfs.epolls(pid):
        for watch in epoll.watched:
            if watch.stale:
                print(watch.fd, watch.events, procfs.holders(epoll, watch))

It needs psutil, which is in the extra ``cli``. See epoll(7), proc_pid_fdinfo(5).
"""

import contextlib
import dataclasses
import os
import re
import signal
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import _extra
from ._fdinfo import EpollInfo, FdHolder, Watch, epolls, errors_of, holders, is_epoll, lines, links, pids

try:
    import psutil
except ModuleNotFoundError as _error:
    _error.add_note(_extra.HOW)
    raise

__all__ = [
    "EpollInfo",
    "FdHolder",
    "File",
    "Process",
    "Snapshot",
    "Socket",
    "Watch",
    "epolls",
    "files",
    "holders",
    "process",
    "processes",
]


# Where a user finds them.
for _public in EpollInfo, FdHolder, Watch:
    _public.__module__ = __name__
del _public


@dataclasses.dataclass(frozen=True)
class Socket:
    """The addresses of a socket."""

    protocol: str
    """``tcp``, ``tcp6``, ``udp``, ``udp6``, ``unix-stream``, ``netlink``, …: the kernel's name for it."""
    local: str
    """``127.0.0.1:80``, ``[::1]:80``, the path of a Unix socket, or an empty string."""
    remote: str
    """The peer's address; empty if there is none, and for Unix sockets: /proc does not show their peer."""
    state: str
    """``LISTEN``, ``ESTABLISHED``, ``CLOSE_WAIT``, …; empty if there is none, as for UDP."""


@dataclasses.dataclass(frozen=True)
class File:
    """The file behind an fd."""

    kind: str
    """``socket``, ``pipe``, ``fifo``, ``eventfd``, ``timerfd``, ``signalfd``, ``pidfd``, ``inotify``,
    ``epoll``, ``tty``, ``device``, ``file``, or the name in /proc."""
    text: str
    """A description in one line. Names in it are as the kernel has them, including control characters."""
    socket: Socket | None = None
    """For a socket, its addresses."""


@dataclasses.dataclass(frozen=True)
class Process:
    """A process that has epolls open."""

    pid: int
    """Its PID in the PID namespace that /proc is of."""
    name: str
    """The name of its program, as psutil finds it."""
    user: str
    """The name of its user, or the user's number."""
    command: tuple[str, ...]
    """Its arguments, without the empty ones at the end that a process title leaves; empty if the process has
    ended meanwhile."""
    epolls: tuple[EpollInfo, ...]
    """Its epolls, by fd."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The processes that have epolls open, and those that may not be inspected."""

    processes: tuple[Process, ...]
    """The processes that have epolls open, by PID."""
    refused: tuple[int, ...]
    """The PIDs of the processes that may not be inspected."""


@contextlib.contextmanager
def errors_of_psutil(pid: int) -> Iterator[None]:
    """Turn psutil's errors into those of this module."""
    with errors_of(pid):
        try:
            yield
        except psutil.AccessDenied:
            raise PermissionError from None
        except psutil.NoSuchProcess:  # A zombie is one too.
            raise ProcessLookupError from None


def process(pid: int) -> Process:
    """Return a process with its epolls, if any; raises as :func:`epolls` does."""
    found = tuple(epolls(pid))
    with errors_of_psutil(pid):
        about = psutil.Process(pid)
        with about.oneshot():
            return Process(pid, about.name(), about.username(), _arguments(about.cmdline()), found)


def _arguments(command: list[str]) -> tuple[str, ...]:
    while command and not command[-1]:
        del command[-1]
    return tuple(command)


def processes() -> Snapshot:
    """Return all processes that have epolls open, and the PIDs of those that may not be inspected.

    Raises FileNotFoundError when /proc is not mounted.
    """
    found, refused = [], []
    for pid in pids():
        try:
            if any(is_epoll(link) for link in links(pid).values()):
                found.append(process(pid))
        except PermissionError:
            refused.append(pid)
        except ProcessLookupError:
            pass  # It has ended meanwhile.
    return Snapshot(tuple(each for each in found if each.epolls), tuple(refused))


def files(pid: int, fds: Iterable[int] | None = None) -> dict[int, File]:
    """Return the files behind fds of a process; closed fds are left out.

    fds: the fds to describe; None for all. Of a socket in another network namespace only the protocol is
    known. A path is looked up with stat(2), which may wait for the server of a network file system.

    Raises as :func:`epolls` does.
    """
    wanted = None if fds is None else set(fds)
    chosen = {fd: link for fd, link in links(pid).items() if wanted is None or fd in wanted}
    sockets = {}
    if any(link.startswith("socket:") for link in chosen.values()):
        sockets = _sockets(pid)
        elsewhere = _network_namespace(pid) != _network_namespace(os.getpid())
        for fd, link in chosen.items():
            if link.startswith("socket:") and link not in sockets:
                sockets[link] = _unlisted(pid, fd, elsewhere)
    return {fd: sockets.get(link) or _file(pid, fd, link) for fd, link in chosen.items()}


def _network_namespace(pid: int) -> str:
    with errors_of(pid):
        return os.readlink(f"/proc/{pid}/ns/net")


def _sockets(pid: int) -> dict[str, File]:
    """The sockets of a process that psutil lists, by their links: of fds that share a socket it names one."""
    with errors_of_psutil(pid):
        found = psutil.Process(pid).net_connections("all")
    fds = links(pid)
    unix = _unix_states(pid) if any(each.family == socket.AF_UNIX for each in found) else {}
    return {
        fds[each.fd]: _socket(_addresses(each, unix.get(fds[each.fd], "")))
        for each in found
        if each.fd in fds
    }


def _unix_states(pid: int) -> dict[str, str]:
    """The states of Unix sockets, which psutil lacks, by their links."""
    states = {}
    with errors_of(pid), open(f"/proc/{pid}/net/unix", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split(maxsplit=7)
            if len(fields) > 6 and fields[6].isdecimal():
                listens = fields[3].isalnum() and int(fields[3], 16) & 1 << 16  # __SO_ACCEPTCON
                states[f"socket:[{fields[6]}]"] = "LISTEN" if listens else _UNIX_STATES.get(fields[5], "")
    return states


_UNIX_STATES = {"02": "CONNECTING", "03": "ESTABLISHED", "04": "DISCONNECTING"}


def _addresses(connection: Any, unix_state: str) -> Socket:
    if connection.family == socket.AF_UNIX:
        kind = socket.SocketKind(connection.type).name.removeprefix("SOCK_").lower()
        return Socket(f"unix-{kind}", connection.laddr, "", unix_state)
    protocol = "tcp" if connection.type == socket.SOCK_STREAM else "udp"
    six = "6" if connection.family == socket.AF_INET6 else ""
    state = "" if connection.status == psutil.CONN_NONE else connection.status
    return Socket(protocol + six, _address(connection.laddr), _address(connection.raddr), state)


def _address(address: Any) -> str:
    """psutil has an empty tuple for a port of 0."""
    if not address:
        return ""
    return f"[{address.ip}]:{address.port}" if ":" in address.ip else f"{address.ip}:{address.port}"


def _socket(about: Socket, note: str = "") -> File:
    remote = f"-> {about.remote}" if about.remote else ""
    parts = (about.protocol, about.local, remote, about.state, note)
    return File("socket", " ".join(part for part in parts if part), about)


def _unlisted(pid: int, fd: int, elsewhere: bool) -> File:
    """A socket that psutil lacks: of another protocol, not bound, or in another network namespace."""
    try:
        name = os.getxattr(f"/proc/{pid}/fd/{fd}", "system.sockprotoname")
    except OSError:  # Closed meanwhile.
        name = b"socket"
    protocol = name.rstrip(b"\0").decode("ascii", "replace").lower().replace("pv6", "p6")
    return _socket(Socket(protocol, "", "", ""), "(in another network namespace)" if elsewhere else "")


def _file(pid: int, fd: int, link: str) -> File:
    said = lines(pid, fd)
    if named := re.fullmatch(r"(?:anon_inode:)?\[?([\w.-]+)\]?(?::\[\d+\])?", link):
        kind = "epoll" if is_epoll(link) else named[1]
        describe = _DETAILS.get(kind)
        return File(kind, f"{kind}{describe(said)}" if describe else link)
    kind = _kind_of_path(pid, fd, link)
    master = _field(said, "tty-index")
    return File(kind, f"{kind} {link}" + (f", master of /dev/pts/{master}" if master else ""))


def _kind_of_path(pid: int, fd: int, link: str) -> str:
    if re.match(r"/dev/(tty|pts/|ptmx|console|hvc)", link):
        return "tty"
    try:
        mode = os.stat(f"/proc/{pid}/fd/{fd}").st_mode
    except OSError:  # Closed meanwhile.
        return "file"
    return "fifo" if stat.S_ISFIFO(mode) else "device" if stat.S_ISCHR(mode) else "file"


def _field(said: list[str], name: str) -> str:
    """A field of fdinfo; an empty string if there is none."""
    return next((line.partition(":")[2].strip() for line in said if line.startswith(f"{name}:")), "")


def _count(said: list[str], start: str) -> int:
    return sum(line.startswith(start) for line in said)


def _pipe(said: list[str]) -> str:
    access = int(_field(said, "flags") or "0", 8) & os.O_ACCMODE
    return {os.O_RDONLY: ", read end", os.O_WRONLY: ", write end"}.get(access, "")


def _eventfd(said: list[str]) -> str:
    count = int(_field(said, "eventfd-count") or "-1", 16)
    if count >> 32 == _STANDS_IN:
        return f", in place of fd {count & 0xFFFFFFFF}, which is always ready"
    return f", count {count}" if count >= 0 else ""


_STANDS_IN = 0x65706F6C
"""The upper half of the count of an eventfd with which ``Epoll(always_ready=True)`` watches an fd."""


_CLOCKS = {0: "REALTIME", 1: "MONOTONIC", 7: "BOOTTIME", 8: "REALTIME_ALARM", 9: "BOOTTIME_ALARM"}


def _timerfd(said: list[str]) -> str:
    values = [_field(said, name) for name in ("clockid", "it_value", "it_interval")]
    if not all(values):  # CONFIG_PROC_FS without CONFIG_CHECKPOINT_RESTORE, or before Linux 3.17.
        return ""
    clock, left, interval = int(values[0]), _seconds(values[1]), _seconds(values[2])
    due = f"due in {left:.3f} s" if left else "not armed"
    return f" {_CLOCKS.get(clock, clock)}, {due}" + (f", every {interval:g} s" if interval else "")


def _seconds(pair: str) -> float:
    seconds, nanoseconds = re.findall(r"\d+", pair)
    return int(seconds) + int(nanoseconds) / 1e9


def _signalfd(said: list[str]) -> str:
    mask = int(_field(said, "sigmask") or "0", 16)
    names = [_signal_name(number) for number in range(1, 65) if mask >> (number - 1) & 1]
    return f" {'|'.join(names) or 'of no signal'}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _pidfd(said: list[str]) -> str:
    pid = int(_field(said, "Pid") or "0")
    return f" of process {pid}" if pid > 0 else " of a process that has ended"


_DETAILS: dict[str, Callable[[list[str]], str]] = {
    "epoll": lambda said: f", watching {_count(said, 'tfd:')}",
    "eventfd": _eventfd,
    "inotify": lambda said: f", watching {_count(said, 'inotify')}",
    "pidfd": _pidfd,
    "pipe": _pipe,
    "signalfd": _signalfd,
    "timerfd": _timerfd,
}
"""The description of each kind after its name, from the lines of fdinfo."""
