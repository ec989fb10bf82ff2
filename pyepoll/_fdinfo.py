"""The interest lists of epolls, read from ``/proc/PID/fdinfo``, and which of their entries are stale.

It needs no other package; ``procfs`` describes the files behind the fds.
"""

import contextlib
import dataclasses
import errno
import os
import pwd
import re
import time
from collections.abc import Iterator
from typing import NamedTuple

from . import _epoll
from ._event import Event

IMPLIED = Event.ERR | Event.HUP
"""The bits that the kernel adds to every mask."""

HOW = Event.ET | Event.ONESHOT | Event.EXCLUSIVE | Event.WAKEUP
"""The flags of a registration, as opposed to its events."""

_EPOLL = "anon_inode:[eventpoll]"
_LINE = re.compile(
    r"tfd: *(\d+) events: *([0-9a-f]+) data: *([0-9a-f]+)(?: *pos:-?\d+ ino:([0-9a-f]+) sdev:([0-9a-f]+))?"
)


# No slots=True here and in procfs and doctor: on 3.11 it leaves a __weakref__ of which getattr raises.
@dataclasses.dataclass(frozen=True)
class Watch:
    """An entry of an epoll's interest list, as the kernel shows it."""

    fd: int
    """The fd that the file was registered under."""
    events: Event
    """The mask. The kernel adds ERR and HUP to each, and leaves a disarmed one-shot ONESHOT, ET, WAKEUP."""
    data: int
    """The epoll data, 0 to 2**64-1: the fd of ``select.epoll``, pyepoll's ``generation << 32 | fd``."""
    nth: int
    """Which of the entries of this fd it is, from 0: a stale one and a live one can share it."""
    inode: int | None
    """The inode number of the file that is watched; None before Linux 4.13."""
    stale: bool
    """True if the fd is closed or now refers to another file, so that the entry cannot be unregistered by it.

    The kernel reports events of the file until its last duplicate, in any process, is closed. Where
    kcmp(2) is refused, only a file with another inode is known to be another: two eventfds cannot be told
    apart.
    """

    @property
    def disarmed(self) -> bool:
        """True for a one-shot that was reported and has not been armed again."""
        return bool(self.events & Event.ONESHOT) and not int(self.events) & ~int(HOW)


@dataclasses.dataclass(frozen=True)
class EpollInfo:
    """An epoll that a process has open."""

    pid: int
    """The process that has it open."""
    fd: int
    """Its fd in that process."""
    watched: tuple[Watch, ...]
    """The entries of its interest list, in the kernel's order."""
    same_as: int | None
    """The lowest fd of the process that this one is a duplicate of; None where there is none, or kcmp(2) is
    refused."""

    @property
    def stale(self) -> int:
        """How many entries are stale."""
        return sum(watch.stale for watch in self.watched)


class FdHolder(NamedTuple):
    """An fd by which a process keeps a file open."""

    pid: int
    """The process."""
    fd: int
    """Its fd for the file."""


class Usage(NamedTuple):
    """The part of ``max_user_watches`` that a user has in use, as far as /proc shows it."""

    watches: int
    processes: int
    """How many processes with epolls were inspected."""
    refused: int
    """How many of the user's processes cannot be inspected: permission denied."""


def pids() -> list[int]:
    """Return the PIDs in /proc. Raises FileNotFoundError when it is not mounted."""
    numbers = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    if not numbers:
        raise FileNotFoundError(errno.ENOENT, "/proc is not mounted")
    return numbers


@contextlib.contextmanager
def errors_of(pid: int) -> Iterator[None]:
    """Turn an error of /proc/PID into one that describes the process."""
    try:
        yield
    except PermissionError:
        # The kernel gives the files of a process that has ended to root: even its own user gets EACCES.
        if ended := _ended(pid):
            raise ended from None
        raise _refused(pid) from None
    except (FileNotFoundError, ProcessLookupError):
        raise _gone(pid) from None


def _ended(pid: int) -> ProcessLookupError | None:
    """The error for a process that has ended, or is just ending; None for one that lives."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="surrogateescape") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # Its parent has collected it meanwhile.
        return ProcessLookupError(errno.ESRCH, f"process {pid} has ended")
    except PermissionError:
        return None
    state, flags, threads = fields[0], int(fields[6]), int(fields[17])
    if state not in "ZXx" and not flags & _PF_EXITING:
        return None
    what = f"process {pid}" if threads <= 1 else f"the main thread of process {pid}"
    return ProcessLookupError(errno.ESRCH, f"{what} has ended")


_PF_EXITING = 0x4
"""In the flags of /proc/PID/stat: the process is ending; it may have released its memory already."""


def _refused(pid: int) -> PermissionError:
    uid = _owner(pid)
    whose = "" if uid is None else f" of user {user_name(uid)}"
    if uid == os.getuid():
        needed = (
            "your own, but it has or had other privileges than yours, or protects itself (PR_SET_DUMPABLE "
            "in prctl(2)); this needs CAP_SYS_PTRACE"
        )
    else:
        needed = "this needs to be its own user, or CAP_SYS_PTRACE"
    return PermissionError(
        errno.EACCES,
        f"not permitted to look into process {pid}{whose}: {needed}, which root has outside a container",
    )


def _owner(pid: int) -> int | None:
    """The real user of a process. The owner of its files in /proc is root if it protects itself."""
    with contextlib.suppress(OSError):
        return _uid_in_status(pid)
    with contextlib.suppress(OSError):  # Mounted with hidepid=1.
        return os.stat(f"/proc/{pid}").st_uid
    return None


def user_name(uid: int) -> str:
    """Return the name of a user, or the uid as text if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _gone(pid: int) -> OSError:
    pids()
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    except (ProcessLookupError, OverflowError):
        return ProcessLookupError(errno.ESRCH, f"no process {pid}")
    if os.path.exists(f"/proc/{pid}"):
        return ProcessLookupError(errno.ESRCH, f"process {pid} has ended")
    return PermissionError(
        errno.EACCES,
        f"process {pid} exists, but this /proc does not show it: it is mounted with hidepid, or is that of "
        "another PID namespace",
    )


def links(pid: int) -> dict[int, str]:
    """Return the links in /proc/PID/fd, by fd.

    Raises ProcessLookupError when there is no such process or it has ended, PermissionError when it may not
    be looked into.
    """
    found = {}
    with errors_of(pid):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    # To root, a process that has ended seems to have no fd open.
    if not found and (ended := _ended(pid)):
        raise ended
    return dict(sorted(found.items()))


def is_epoll(link: str) -> bool:
    """Return whether a link of /proc/PID/fd is an epoll's."""
    return link == _EPOLL


def lines(pid: int, fd: int) -> list[str]:
    """Return the lines of /proc/PID/fdinfo/FD; none when the fd is closed. Raises as ``links`` does."""
    with errors_of(pid):
        try:
            with open(f"/proc/{pid}/fdinfo/{fd}", encoding="utf-8", errors="surrogateescape") as file:
                return file.read().splitlines()
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}"):
                return []
            raise


def epolls(pid: int) -> list[EpollInfo]:
    """Return the epolls that a process has open, with their interest lists.

    pid: the process, of the PID namespace that /proc is of; ``os.getpid()`` is fine.

    Each epoll is read in one piece, but a running process may change another one in the meantime.

    Raises ProcessLookupError when there is no such process, or it or its main thread has ended;
    PermissionError when it may not be looked into, which takes ptrace read access (the same user, or
    CAP_SYS_PTRACE), or /proc hides it; FileNotFoundError when /proc is not mounted.
    See proc_pid_fdinfo(5), Linux 3.8.
    """
    instances: list[EpollInfo] = []
    all_links = links(pid)
    for fd, link in all_links.items():
        if is_epoll(link):
            watched = tuple(_watched(pid, fd))
            instances.append(EpollInfo(pid, fd, watched, _same_as(pid, fd, instances)))
    return instances


def _same_as(pid: int, fd: int, others: list[EpollInfo]) -> int | None:
    for other in others:
        with contextlib.suppress(OSError):
            if _epoll._same_file(pid, other.fd, pid, fd):
                return other.fd
    return None


def _watched(pid: int, epfd: int) -> list[Watch]:
    """The entries of an epoll. Stale ones are read again: between two calls of a process, some seem stale."""
    found = [_judged(pid, epfd, entry) for entry in entries(pid, epfd)]
    for pause in _PAUSES:
        suspects = {_identity(entry) for entry in found if entry.stale}
        if not suspects:
            break
        time.sleep(pause)
        found = [
            _judged(pid, epfd, entry) if _identity(entry) in suspects else entry
            for entry in entries(pid, epfd)
        ]
    return found


_PAUSES = (0, 0.001, 0.002, 0.003, 0.005)
"""Seconds before each further look at entries that seem to be stale."""


def _identity(entry: Watch) -> tuple[object, ...]:
    return entry.fd, entry.data, entry.inode


def entries(pid: int, epfd: int) -> list[Watch]:
    """Return the entries of an epoll, with ``stale`` not yet determined. Raises as ``links`` does."""
    found = []
    seen: dict[int, int] = {}
    for line in lines(pid, epfd):
        if match := _LINE.match(line):
            fd, inode = int(match[1]), match[4]
            nth = seen[fd] = seen.get(fd, -1) + 1
            events, data = Event(int(match[2], 16)), int(match[3], 16)
            found.append(Watch(fd, events, data, nth, int(inode, 16) if inode else None, False))
    return found


def _judged(pid: int, epfd: int, entry: Watch) -> Watch:
    return dataclasses.replace(entry, stale=True) if _is_stale(pid, epfd, entry) else entry


def _is_stale(pid: int, epfd: int, entry: Watch) -> bool:
    try:
        link = os.readlink(f"/proc/{pid}/fd/{entry.fd}")
    except OSError:
        return True
    return _same(pid, epfd, entry, FdHolder(pid, entry.fd), link) is False


def _same(pid: int, epfd: int, entry: Watch, holder: FdHolder, link: str) -> bool | None:
    """Whether an fd is the file that an entry watches; None when it cannot be known."""
    # A socket has an inode of its own. Others are asked of kcmp, which goes through the whole interest list.
    if (own := re.fullmatch(r"socket:\[(\d+)\]", link)) and entry.inode is not None:
        return int(own[1]) == entry.inode
    try:
        return _epoll._watches_file(pid, epfd, entry.fd, entry.nth, *holder)
    except OSError as error:
        if error.errno in (errno.EBADF, errno.ENOENT):
            return False
    inode = _inode(holder, link)
    if None in (inode, entry.inode) or (inode == entry.inode and not link.startswith("pipe:")):
        return None
    return inode == entry.inode


def _inode(holder: FdHolder, link: str) -> int | None:
    """The inode number as the interest list shows it: stat's may be another, on overlayfs for one."""
    if own := re.fullmatch(r"(?:socket|pipe):\[(\d+)\]", link):
        return int(own[1])
    with contextlib.suppress(OSError):
        for line in lines(*holder):
            if line.startswith("ino:"):  # Linux 5.14.
                return int(line.partition(":")[2])
    return None


def holders(epoll: EpollInfo, watch: Watch) -> list[FdHolder]:
    """Return the fds, in all processes that you may inspect, that keep the file of an entry open.

    For a stale entry these are the fds that keep it alive. The process of the epoll comes first. None are
    found where the file is kept open by other means, in a message on a Unix socket for one. Where kcmp(2) is
    refused, only sockets and pipes are found, a pipe by both its ends.

    Raises FileNotFoundError when /proc is not mounted.
    """
    found = []
    for pid in sorted(pids(), key=lambda pid: pid != epoll.pid):
        with contextlib.suppress(OSError):  # It has ended, or may not be looked into.
            for fd, link in links(pid).items():
                holder = FdHolder(pid, fd)
                inode = _inode(holder, link)
                if inode is None or watch.inode is None or inode == watch.inode:
                    if _same(epoll.pid, epoll.fd, watch, holder, link):
                        found.append(holder)
    return found


def usage(uid: int) -> Usage:
    """Return how much of ``max_user_watches`` the epolls in a user's processes take.

    The kernel counts an epoll for the user that created it. One that processes share is counted once,
    where kcmp(2) is allowed.
    """
    alike: dict[str, list[FdHolder]] = {}
    watches = processes = refused = 0
    for pid in pids():
        try:
            if _real_uid(pid) != uid:
                continue
            epfds = [fd for fd, link in links(pid).items() if is_epoll(link)]
            lists = {fd: [line for line in lines(pid, fd) if line.startswith("tfd:")] for fd in epfds}
        except PermissionError:
            refused += 1
            continue
        except ProcessLookupError:
            continue
        processes += bool(lists)
        for fd, watched in lists.items():
            others = alike.setdefault("\n".join(watched), [])
            if not any(_is_same_file(other, FdHolder(pid, fd)) for other in others):
                others.append(FdHolder(pid, fd))
                watches += len(watched)
    return Usage(watches, processes, refused)


def _is_same_file(one: FdHolder, other: FdHolder) -> bool:
    try:
        return _epoll._same_file(*one, *other)
    except OSError:
        return False


def _real_uid(pid: int) -> int:
    with errors_of(pid):
        return _uid_in_status(pid)


def _uid_in_status(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="surrogateescape") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Uid:"))
