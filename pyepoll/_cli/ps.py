"""The pages of ``python -m pyepoll ps``, made from looks at processes."""

import contextlib
import errno
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .. import procfs
from .._event import Event
from .._fdinfo import HOW, IMPLIED
from ..procfs import EpollInfo, FdHolder, File, Process, Watch

# procfs has said how to install it, if it is missing.
import psutil  # isort: skip


class Counters(NamedTuple):
    """Counters of a process since its start."""

    started: float
    cpu: float
    sleeps: int
    preempted: int
    reads: int | None
    """System calls that read; None where the kernel does not tell."""
    writes: int | None


class Look(NamedTuple):
    """Processes with epolls at a time."""

    when: float
    processes: dict[int, Process]
    counters: dict[int, Counters]
    refused: tuple[int, ...]


class Column(NamedTuple):
    name: str
    right: bool = False
    """Whether it has numbers, which line up on the right."""
    spare: bool = False
    """Whether it is left out where there is little room."""


class Page(NamedTuple):
    """The contents of the screen for one look."""

    heading: list[str]
    columns: tuple[Column, ...]
    rows: list[tuple[str, ...]]
    alarming: list[bool]
    """For each row, whether it has a stale entry."""
    document: dict[str, Any]
    """The same for programs: a value that ``json.dumps`` accepts."""


def one(pid: int) -> Iterator[Page]:
    """Yield a page on a process for each look at it, with rates from the second on.

    Raises as ``procfs.epolls`` does, also for a process that has ended meanwhile or has no epoll.
    """

    def look() -> Look:
        process = procfs.process(pid)
        if not process.epolls:
            raise ProcessLookupError(errno.ESRCH, _no_epoll(process))
        return Look(time.monotonic(), {pid: process}, _counters(pid), ())

    def page(now: Look, before: Look | None) -> Page:
        return _page_of_one(now.processes[pid], _rates(pid, before, now) if before else {})

    return _pages(look, page)


def _no_epoll(process: Process) -> str:
    """The error text for a process without epolls; those of a server may be in its children."""
    with procfs.errors_of_psutil(process.pid):
        children = psutil.Process(process.pid).children(recursive=True)
    having = []
    for child in children:
        with contextlib.suppress(OSError):  # It has ended, or may not be looked into.
            if procfs.epolls(child.pid):
                having.append(str(child.pid))
    hint = f"; its descendants have: {', '.join(having)}" if having else ""
    return f"process {process.pid} ({process.name}) has no epoll open{hint}"


def everything() -> Iterator[Page]:
    """Yield a page on all processes with epolls for each look at them, with rates from the second on.

    Raises FileNotFoundError when /proc is not mounted.
    """

    def look() -> Look:
        snapshot = procfs.processes()
        processes = {process.pid: process for process in snapshot.processes}
        counters: dict[int, Counters] = {}
        for pid in processes:
            with contextlib.suppress(OSError):  # It has ended meanwhile.
                counters |= _counters(pid)
        return Look(time.monotonic(), processes, counters, snapshot.refused)

    def page(now: Look, before: Look | None) -> Page:
        rates = {}
        for pid in now.processes:
            with contextlib.suppress(OSError):  # Another process has this PID now.
                rates[pid] = _rates(pid, before, now) if before else {}
        return _page_of_all(now, rates, before is not None)

    return _pages(look, page)


def _pages(look: Callable[[], Look], page: Callable[[Look, Look | None], Page]) -> Iterator[Page]:
    before = None
    while True:
        now = look()
        yield page(now, before)
        before = now


def _counters(pid: int) -> dict[int, Counters]:
    with procfs.errors_of_psutil(pid):
        process = psutil.Process(pid)
        with process.oneshot():
            times, switches = process.cpu_times(), process.num_ctx_switches()
            calls = _calls(process)
            counters = Counters(
                process.create_time(),
                times.user + times.system,
                switches.voluntary,
                switches.involuntary,
                *calls,
            )
    return {pid: counters}


def _calls(process: psutil.Process) -> tuple[int, int] | tuple[None, None]:
    if hasattr(process, "io_counters"):  # CONFIG_TASK_IO_ACCOUNTING
        with contextlib.suppress(psutil.AccessDenied):
            counters = process.io_counters()
            return counters.read_count, counters.write_count
    return None, None


def _rates(pid: int, before: Look, now: Look) -> dict[str, float]:
    """The rates per second of a process between two looks, and the changes of its interest lists.

    A registration that was added and removed in between is not seen.
    """
    if pid not in before.counters or pid not in now.counters:
        return {}
    was, has = before.counters[pid], now.counters[pid]
    if was.started != has.started:
        raise ProcessLookupError(errno.ESRCH, f"process {pid} has ended; another has its PID now")
    seconds = now.when - before.when
    rates = {
        "cpu_percent": 100 * (has.cpu - was.cpu),
        "sleeps": has.sleeps - was.sleeps,
        "preempted": has.preempted - was.preempted,
    }
    for name in ("reads", "writes"):
        first, last = getattr(was, name), getattr(has, name)
        if first is not None and last is not None:
            rates[name] = last - first
    old, new = (_interests(look.processes.get(pid)) for look in (before, now))
    rates |= {
        "registered": len(new.keys() - old.keys()),
        "unregistered": len(old.keys() - new.keys()),
        "modified": sum(new[key] != old[key] for key in new.keys() & old.keys()),
    }
    return {name: count / seconds for name, count in rates.items()}


def _interests(process: Process | None) -> dict[tuple[object, ...], tuple[Event, int]]:
    return {
        (epoll.fd, watch.fd, watch.inode, watch.nth): (watch.events, watch.data)
        for epoll in (process.epolls if process else ())
        for watch in epoll.watched
        if epoll.same_as is None
    }


_RATES = (
    {
        "cpu_percent": "% CPU",
        "sleeps": "sleeps/s",
        "preempted": "preempted/s",
        "reads": "reads/s",
        "writes": "writes/s",
    },
    {"registered": "registered/s", "unregistered": "unregistered/s", "modified": "modified/s"},
)
"""Their units, in the lines of the heading."""


class _Trace(NamedTuple):
    """The file of a stale entry, and the fds that keep it open."""

    text: str
    holders: list[FdHolder]


def _traces(process: Process) -> dict[tuple[int, Watch], _Trace]:
    """The files of stale entries. Each is searched for in all processes, so only a few are."""
    stale = [(epoll, watch) for epoll in process.epolls for watch in epoll.watched if watch.stale]
    traces = {}
    for epoll, watch in stale[:_TRACED]:
        holders = procfs.holders(epoll, watch)
        text = "a file"
        for holder in holders[:1]:
            with contextlib.suppress(OSError):  # It has ended meanwhile.
                text = procfs.files(holder.pid, [holder.fd])[holder.fd].text
        traces[epoll.fd, watch] = _Trace(text, holders)
    return traces


_TRACED = 32


def _page_of_one(process: Process, rates: dict[str, float]) -> Page:
    numbers = {watch.fd for epoll in process.epolls for watch in epoll.watched}
    files = procfs.files(process.pid, numbers)
    traces = _traces(process)
    rows: list[tuple[str, ...]] = []
    alarming = []
    for epoll in process.epolls:
        if not epoll.watched or epoll.same_as is not None:
            what = "watches nothing" if epoll.same_as is None else f"is epoll {epoll.same_as} once more"
            rows.append((str(epoll.fd), "", "", "", what))
            alarming.append(False)
            continue
        for watch in _sorted(epoll):
            trace = traces.get((epoll.fd, watch))
            what = _what(process.pid, watch, files.get(watch.fd), trace)
            rows.append(
                (str(epoll.fd), str(watch.fd), _events(watch), f"{watch.data:#x}", what),
            )
            alarming.append(watch.stale)
    return Page(
        _heading(process, files, rates),
        (
            Column("EPOLL", right=True),
            Column("FD", right=True),
            Column("EVENTS"),
            Column("DATA", spare=True),
            Column("WHAT"),
        ),
        rows,
        alarming,
        _document(process, files, traces, rates),
    )


def _sorted(epoll: EpollInfo) -> list[Watch]:
    """Stale entries first; the kernel's order has no meaning."""
    return sorted(epoll.watched, key=lambda watch: (not watch.stale, watch.fd, watch.nth))


def _heading(process: Process, files: dict[int, File], rates: dict[str, float]) -> list[str]:
    own = [epoll for epoll in process.epolls if epoll.same_as is None]
    counts = [
        _counted(len(own), "epoll"),
        f"{_counted(sum(len(epoll.watched) for epoll in own), 'fd')} watched",
        f"{sum(epoll.stale for epoll in own)} stale",
    ]
    heading = [f"process {process.pid} {process.name} ({process.user}): {', '.join(counts)}"]
    if command := " ".join(process.command):
        heading.append(command)
    if rates:
        for names in _RATES:
            heading.append(
                ", ".join(f"{rates[name]:.1f} {unit}" for name, unit in names.items() if name in rates)
            )
    if any("another network namespace" in file.text for file in files.values()):
        pid = process.pid
        heading.append(f"for the addresses of its sockets: nsenter -t {pid} -n python -m pyepoll ps {pid}")
    return heading


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _events(watch: Watch) -> str:
    """The mask as it was asked for, as far as can be known."""
    if watch.disarmed:
        return f"{watch.events} (disarmed)"
    asked = int(watch.events) & ~int(IMPLIED)
    return str(Event(asked) if asked & ~int(HOW) else watch.events)


def _what(pid: int, watch: Watch, file: File | None, trace: _Trace | None) -> str:
    if not watch.stale:
        return file.text if file else "closed meanwhile"
    now = f"fd {watch.fd} is {f'now {file.text}' if file else 'closed'}"
    if trace is None:
        return f"STALE: {now}"
    where = [
        f"fd {holder.fd}" + ("" if holder.pid == pid else f" of process {holder.pid}")
        for holder in trace.holders
    ]
    if len(where) > _NAMED:
        where[_NAMED:] = [f"{len(where) - _NAMED} more"]
    return f"STALE: {trace.text}, open as {' and '.join(where) or 'no fd that can be seen'}; {now}"


_NAMED = 3


def _document(
    process: Process,
    files: dict[int, File],
    traces: dict[tuple[int, Watch], _Trace],
    rates: dict[str, float],
) -> dict[str, Any]:
    def entry(epoll: EpollInfo, watch: Watch) -> dict[str, Any]:
        trace = traces.get((epoll.fd, watch))
        return {
            "fd": watch.fd,
            "events": str(watch.events).split("|"),
            "mask": int(watch.events),
            # Not every program that reads JSON has integers of 64 bits.
            "data": f"{watch.data:#x}",
            "disarmed": watch.disarmed,
            "stale": watch.stale,
            "file": _file_document(files.get(watch.fd)),
            "holders": [holder._asdict() for holder in trace.holders] if trace else None,
        }

    return {
        **_about(process),
        "epolls": [
            {
                "fd": epoll.fd,
                "same_as": epoll.same_as,
                "watched": [entry(epoll, watch) for watch in _sorted(epoll)],
            }
            for epoll in process.epolls
        ],
        **({"rates": rates} if rates else {}),
    }


def _about(process: Process) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "name": process.name,
        "user": process.user,
        "command": list(process.command),
    }


def _file_document(file: File | None) -> dict[str, Any] | None:
    if file is None:
        return None
    addresses = file.socket
    return {
        "kind": file.kind,
        "text": file.text,
        "socket": addresses
        and {name: getattr(addresses, name) for name in ("protocol", "local", "remote", "state")},
    }


def _page_of_all(look: Look, rates: dict[int, dict[str, float]], watching: bool) -> Page:
    columns = [
        Column("PID", right=True),
        Column("USER", spare=True),
        Column("EPOLLS", right=True),
        Column("FDS", right=True),
        Column("STALE", right=True),
        Column("COMMAND"),
    ]
    if watching:
        columns[2:2] = [Column("CPU%", right=True)]
        columns[-1:-1] = [Column("REG/S", right=True, spare=True), Column("UNREG/S", right=True, spare=True)]
    rows, alarming, documents = [], [], []
    for process in look.processes.values():
        own = [epoll for epoll in process.epolls if epoll.same_as is None]
        stale = sum(epoll.stale for epoll in own)
        of_it = rates.get(process.pid, {})
        command = " ".join(process.command) or f"[{process.name}]"
        numbers = [len(own), sum(len(epoll.watched) for epoll in own), stale]
        cells = [str(process.pid), process.user, *map(str, numbers), command]
        if watching:
            cpu, registered, unregistered = (
                f"{of_it[name]:.1f}" if name in of_it else ""
                for name in ("cpu_percent", "registered", "unregistered")
            )
            cells[2:2] = [cpu]
            cells[-1:-1] = [registered, unregistered]
        rows.append(tuple(cells))
        alarming.append(stale > 0)
        documents.append(_summary(process, of_it))
    heading = []
    if look.refused:
        others = "1 other process" if len(look.refused) == 1 else f"{len(look.refused)} other processes"
        heading.append(f"not permitted to look into {others}")
    if not rows:
        heading.append("no process that may be looked into has an epoll open")
    return Page(
        heading, tuple(columns), rows, alarming, {"processes": documents, "refused": list(look.refused)}
    )


def _summary(process: Process, rates: dict[str, float]) -> dict[str, Any]:
    return {
        **_about(process),
        "epolls": [
            {
                "fd": epoll.fd,
                "same_as": epoll.same_as,
                "watched": len(epoll.watched),
                "stale": epoll.stale,
            }
            for epoll in process.epolls
        ],
        **({"rates": rates} if rates else {}),
    }
