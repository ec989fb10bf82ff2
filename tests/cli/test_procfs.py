"""procfs finds every epoll of a process, names each fd's file, and shows stale ones and their holders."""

import contextlib
import ctypes
import errno
import functools
import gc
import itertools
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.effort import Effort
from support.fds import Pipe, open_fds
from support.kernel import fdinfo_lines, instance_fd
from support.processes import fork, run
from support.procfs import NOBODY, SERVER, STALE, as_root, child, needs_kcmp
from support.seccomp import EXIT, denied
from support.threads import until

import pyepoll
from pyepoll import Event, _fdinfo

procfs: Any = pytest.importorskip("pyepoll.procfs", reason="psutil is not installed", exc_type=ImportError)

ME = os.getpid()
Epoll = pyepoll.Epoll[Any]
DENIED = [errno.EPERM, errno.ENOSYS]

libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def fds() -> Iterator[Callable[[int], int]]:
    """Close fds at the end; one may be closed already."""
    made: list[int] = []

    def keep(fd: int) -> int:
        assert fd >= 0, os.strerror(ctypes.get_errno())
        made.append(fd)
        return fd

    yield keep
    for fd in made:
        with contextlib.suppress(OSError):
            os.close(fd)


def instance(ep: Any) -> Any:
    """The EpollInfo of an epoll of this process."""
    [found] = [each for each in procfs.epolls(ME) if each.fd == instance_fd(ep)]
    return found


def stale(ep: Any) -> list[int]:
    return [watched.fd for watched in instance(ep).watched if watched.stale]


def test_the_list_equals_the_kernels(ep: Epoll, eventfd: Callable[..., int]) -> None:
    masks = [
        0,
        Event.IN,
        Event.IN | Event.ET,
        Event.OUT | Event.EXCLUSIVE,
        Event.IN | Event.ONESHOT,
        Event.PRI | Event.RDHUP,
    ]
    for mask in masks:
        ep.register(eventfd(), mask)
    found = instance(ep)
    assert [(watched.fd, watched.events, watched.data) for watched in found.watched] == fdinfo_lines(ep)
    assert {watched.events for watched in found.watched} == {mask | Event.ERR | Event.HUP for mask in masks}
    assert all(type(watched.events) is Event for watched in found.watched)
    assert (found.pid, found.stale, found.same_as) == (ME, 0, None)


def test_every_epoll_is_found() -> None:
    with Epoll() as empty, select.epoll() as stock, Epoll() as outer:
        outer.register(stock.fileno())
        found = {each.fd: [watched.fd for watched in each.watched] for each in procfs.epolls(ME)}
        assert found[instance_fd(empty)] == []
        assert found[instance_fd(outer)] == [stock.fileno()]
    numbers = {each.fd for each in procfs.epolls(ME)}
    assert not numbers & found.keys() or numbers < found.keys()


@needs_kcmp
def test_a_duplicate_epoll_names_the_original(ep: Epoll, pipe: Pipe, fds: Callable[[int], int]) -> None:
    ep.register(pipe.read)
    copies = [fds(os.dup(instance_fd(ep))) for _ in range(2)]
    with Epoll() as alike:
        alike.register(pipe.read)
        found = {each.fd: each.same_as for each in procfs.epolls(ME)}
        assert found[instance_fd(ep)] is None
        assert found[instance_fd(alike)] is None
    assert [found[copy] for copy in copies] == [instance_fd(ep)] * 2


def test_the_eventfd_in_place_of_a_regular_file_is_named() -> None:
    with open(__file__) as file, pyepoll.Epoll[Any](always_ready=True) as ep:
        ep.register(file, Event.IN)
        (watch,) = [watch for info in procfs.epolls(ME) for watch in info.watched]
        assert not watch.stale
        assert watch.data & 0xFFFFFFFF == file.fileno()
        assert procfs.files(ME, [watch.fd])[watch.fd].text == (
            f"eventfd, in place of fd {file.fileno()}, which is always ready"
        )


def test_a_fired_one_shot_shows_no_events(ep: Epoll, eventfd: Callable[..., int]) -> None:
    disarmed, waiting, level, edge = (eventfd(count) for count in (1, 0, 1, 1))
    for fd, how in ((disarmed, Event.ONESHOT), (waiting, Event.ONESHOT), (level, 0), (edge, Event.ET)):
        ep.register(fd, Event.IN | how)
    ep.poll(0)
    assert [watched.fd for watched in instance(ep).watched if watched.disarmed] == [disarmed]
    ep.rearm(disarmed)
    assert not any(watched.disarmed for watched in instance(ep).watched)


# The file of an fd.


def timerfd(seconds: int, interval: int) -> int:
    fd = int(libc.timerfd_create(1, os.O_CLOEXEC))
    libc.timerfd_settime(fd, 0, (ctypes.c_long * 4)(interval, 0, seconds, 0), None)
    return fd


def signalfd(*signals: int) -> int:
    mask = (ctypes.c_uint64 * 16)(sum(1 << (number - 1) for number in signals))
    return int(libc.signalfd(-1, mask, os.O_CLOEXEC))


def inotify() -> int:
    fd = int(libc.inotify_init1(os.O_CLOEXEC))
    for path in (b"/", b"/tmp"):
        assert libc.inotify_add_watch(fd, path, 0x100) >= 0
    return fd


def nested() -> int:
    number, fd = pyepoll.raw.epoll_create1(pyepoll.raw.EPOLL_CLOEXEC), os.eventfd(0)
    pyepoll.raw.epoll_ctl(number, pyepoll.raw.EPOLL_CTL_ADD, fd, Event.IN)
    HELD.append(os.fdopen(fd, "rb", 0))
    return number


HELD: list[Any] = []


def end_of_pipe(which: int) -> int:
    ends = list(os.pipe())
    HELD.append(os.fdopen(ends[1 - which], "rb", 0))
    return ends[which]


def deleted_fifo() -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a fifo")
        os.mkfifo(path)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def pty(which: int) -> int:
    ends = os.openpty()
    HELD.append(os.fdopen(ends[1 - which], "rb", 0))
    return ends[which]


def bare_socket(*kind: int) -> int:
    return socket.socket(*kind).detach()


KINDS: dict[str, tuple[Callable[[], int], str, str]] = {
    "pipe, to read": (lambda: end_of_pipe(0), "pipe", "pipe, read end"),
    "pipe, to write": (lambda: end_of_pipe(1), "pipe", "pipe, write end"),
    "eventfd": (lambda: os.eventfd(26), "eventfd", "eventfd, count 26"),
    "timerfd": (
        lambda: timerfd(5000, 30),
        "timerfd",
        r"timerfd MONOTONIC, due in (4\d{3}|5000)\.\d{3} s, every 30 s",
    ),
    "timerfd, idle": (lambda: timerfd(0, 0), "timerfd", "timerfd MONOTONIC, not armed"),
    "signalfd": (lambda: signalfd(2, 15, 40), "signalfd", r"signalfd SIGINT\|SIGTERM\|40"),
    "signalfd, of none": (signalfd, "signalfd", "signalfd of no signal"),
    "inotify": (inotify, "inotify", "inotify, watching 2"),
    "pidfd": (lambda: os.pidfd_open(ME), "pidfd", f"pidfd of process {ME}"),
    "epoll": (nested, "epoll", "epoll, watching 1"),
    "tty, master": (lambda: pty(0), "tty", r"tty /dev/(pts/)?ptmx, master of /dev/pts/\d+"),
    "tty, slave": (lambda: pty(1), "tty", r"tty /dev/pts/\d+"),
    "device": (lambda: os.open("/dev/random", os.O_RDONLY), "device", "device /dev/random"),
    "file": (lambda: os.open("/proc/self/mounts", os.O_RDONLY), "file", rf"file /proc/{ME}/mounts"),
    "fifo, deleted": (deleted_fifo, "fifo", r"fifo .*/a fifo \(deleted\)"),
    "netlink": (lambda: bare_socket(socket.AF_NETLINK, socket.SOCK_RAW), "socket", "netlink"),
    "tcp, not bound": (lambda: bare_socket(socket.AF_INET), "socket", "tcp"),
    "tcp6, not bound": (lambda: bare_socket(socket.AF_INET6), "socket", "tcp6"),
    "udp, not bound": (lambda: bare_socket(socket.AF_INET, socket.SOCK_DGRAM), "socket", "udp"),
    "unix, not bound": (lambda: bare_socket(socket.AF_UNIX), "socket", "unix-stream"),
}


@pytest.fixture
def held() -> Iterator[None]:
    yield
    while HELD:
        HELD.pop().close()


@needs_kcmp
@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_file_is_described(name: str, ep: Epoll, fds: Callable[[int], int]) -> None:
    make, kind, text = KINDS[name]
    fd = fds(make())
    ep.register(fd, Event.IN)
    assert stale(ep) == []
    file = procfs.files(ME, [fd])[fd]
    assert file.kind == kind
    assert re.fullmatch(text, file.text), file.text
    assert (file.socket is not None) == (kind == "socket")
    # Closed while a duplicate is open: for every kind of file, it is found, and its holder.
    kept = fds(os.dup(fd))
    os.close(fd)
    assert stale(ep) == [fd]
    [watched] = instance(ep).watched
    assert procfs.holders(instance(ep), watched) == [(ME, kept)]
    assert procfs.files(ME, [fd]) == {}
    # The same file under the fd once more is no other.
    os.dup2(kept, fd)
    assert stale(ep) == []


def test_a_pidfd_of_a_process_that_has_ended_is_described(fds: Callable[[int], int]) -> None:
    with child("print()") as process:
        fd = fds(os.pidfd_open(process.pid))
    assert procfs.files(ME, [fd])[fd].text == "pidfd of a process that has ended"


def address(name: tuple[Any, ...]) -> str:
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


@pytest.mark.parametrize(("host", "protocol"), [("127.0.0.1", "tcp"), ("::1", "tcp6")])
def test_tcp_sockets_show_both_addresses(host: str, protocol: str, fds: Callable[[int], int]) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as server,
        socket.create_connection(server.getsockname()[:2]) as a,
    ):
        b, _ = server.accept()
        with b:
            twin = fds(os.dup(a.fileno()))
            ends = address(a.getsockname()), address(b.getsockname())
            files = procfs.files(ME)
            assert files[server.fileno()].socket == procfs.Socket(protocol, ends[1], "", "LISTEN")
            assert files[a.fileno()].socket == procfs.Socket(protocol, *ends, "ESTABLISHED")
            assert files[b.fileno()].socket == procfs.Socket(protocol, *ends[::-1], "ESTABLISHED")
            assert files[a.fileno()].text == f"{protocol} {ends[0]} -> {ends[1]} ESTABLISHED"
            assert files[twin] == files[a.fileno()]
            b.shutdown(socket.SHUT_WR)
            until(lambda: procfs.files(ME, [a.fileno()])[a.fileno()].socket.state == "CLOSE_WAIT")


@pytest.mark.parametrize(("host", "protocol"), [("127.0.0.1", "udp"), ("::1", "udp6")])
def test_udp_sockets_show_both_addresses(host: str, protocol: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as a, socket.socket(family, socket.SOCK_DGRAM) as b:
        a.bind((host, 0))
        b.connect(a.getsockname())
        files = procfs.files(ME, [a.fileno(), b.fileno()])
        ends = address(b.getsockname()), address(a.getsockname())
        assert files[a.fileno()].socket == procfs.Socket(protocol, ends[1], "", "")
        assert files[b.fileno()].text.startswith(f"{protocol} {ends[0]} -> {ends[1]}")


def test_unix_sockets_show_their_path(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as a:
        server.bind(path)
        server.listen()
        a.connect(path)
        b, _ = server.accept()
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        abstract = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with b, pair[0], pair[1], abstract:
            abstract.bind(f"\0pyepoll {ME}")
            files = procfs.files(ME)
            assert files[server.fileno()].text == f"unix-stream {path} LISTEN"
            assert files[a.fileno()].text == "unix-stream ESTABLISHED"
            assert files[b.fileno()].text == f"unix-stream {path} ESTABLISHED"
            assert files[pair[0].fileno()].socket.protocol == "unix-dgram"
            assert files[abstract.fileno()].socket.protocol == "unix-seqpacket"


@as_root
def test_sockets_of_another_network_namespace_are_described() -> None:
    """Its sockets are in other tables of the kernel's than ours: the protocol is known, and that it is so."""
    program = """
        import ctypes, os, socket, sys
        if ctypes.CDLL(None).unshare(0x40000000) != 0:  # CLONE_NEWNET
            print("cannot", flush=True)
            sys.exit()
        server = socket.socket()
        server.bind(("0.0.0.0", 8000))
        server.listen()
        print(server.fileno(), flush=True)
        sys.stdin.read()
    """
    with child(program) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
            pytest.skip("a sandbox denies a network namespace")
        sockets = [file for file in procfs.files(process.pid).values() if file.kind == "socket"]
        assert [file.text for file in sockets] == ["tcp (in another network namespace)"]


def test_files_returns_only_the_given_fds(pipe: Pipe, closed_fd: int) -> None:
    assert procfs.files(ME, [pipe.read, closed_fd]).keys() == {pipe.read}
    assert procfs.files(ME, []) == {}
    assert procfs.files(ME).keys() >= {pipe.read, pipe.write}


# Stale registrations.


def make_stale(ep: Epoll, make: Callable[[], int], fds: Callable[[int], int]) -> int:
    """Register a file and close its fd, while a duplicate with a far higher fd keeps it open."""
    fd = fds(make())
    ep.register(fd, Event.IN)
    os.dup2(fd, fds(700))
    os.close(fd)
    return fd


@needs_kcmp
@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("new", ["eventfd", "pipe, to read", "tcp, not bound"])
@pytest.mark.parametrize("old", ["eventfd", "pipe, to read", "tcp, not bound", "tty, slave"])
def test_a_reused_fd_is_stale(old: str, new: str, ep: Epoll, fds: Callable[[int], int]) -> None:
    """Also a file of the same kind, and of the same inode, which all eventfds share."""
    other = fds(KINDS[new][0]())
    fd = make_stale(ep, KINDS[old][0], fds)
    os.dup2(other, fd)
    assert stale(ep) == [fd]
    # Both a stale and a live one under an fd.
    pyepoll.raw.epoll_ctl(instance_fd(ep), pyepoll.raw.EPOLL_CTL_ADD, fd, Event.IN, 1)
    found = {watched.data: watched for watched in instance(ep).watched}
    assert len(found) == 2
    assert not found.pop(1).stale
    [stale_watch] = found.values()
    assert stale_watch.stale
    assert procfs.holders(instance(ep), stale_watch) == [(ME, 700)]


def test_a_holder_in_another_process_is_found(ep: Epoll, fds: Callable[[int], int]) -> None:
    pair = socket.socketpair()
    ep.register(pair[0], Event.IN)
    fd = pair[0].fileno()
    with child("import sys; print(flush=True); sys.stdin.read()", pass_fds=[fd]) as process:
        pair[0].close()
        assert stale(ep) == [fd]
        [watched] = instance(ep).watched
        assert procfs.holders(instance(ep), watched) == [(process.pid, fd)]
    assert stale(ep) == []
    assert instance(ep).watched == ()
    pair[1].close()


@needs_kcmp
def test_the_process_of_the_epoll_is_the_first_holder(fds: Callable[[int], int]) -> None:
    """Although the pid of another, this one's, is lower."""
    fd = fds(os.eventfd(0))
    program = """
        import os, select, sys
        ep, fd = select.epoll(), int(sys.argv[1])
        ep.register(fd)
        os.dup2(fd, 100)
        os.close(fd)
        print(flush=True)
        sys.stdin.read()
    """
    with child(program, str(fd), pass_fds=[fd]) as process:
        [found] = procfs.epolls(process.pid)
        if process.pid < ME:
            pytest.skip("the process ids have wrapped around")
        assert procfs.holders(found, found.watched[0]) == [(process.pid, 100), (ME, fd)]


def test_a_file_held_by_a_message_has_no_holder(ep: Epoll, fds: Callable[[int], int]) -> None:
    """No process has an fd of it: the report can only say that no holder was found."""
    a, b = socket.socketpair()
    with a, b:
        fd = fds(os.eventfd(0))
        ep.register(fd)
        socket.send_fds(a, [b"x"], [fd])
        os.close(fd)
        [watched] = instance(ep).watched
        assert watched.stale
        assert procfs.holders(instance(ep), watched) == []


@needs_kcmp
def test_a_live_registration_is_held_by_its_own_fd(ep: Epoll, pipe: Pipe) -> None:
    ep.register(pipe.read)
    [watched] = instance(ep).watched
    assert procfs.holders(instance(ep), watched) == [(ME, pipe.read)], "the other end is another file"


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("error", DENIED, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", KINDS)
def test_stale_is_decided_by_inode_without_kcmp(
    name: str, error: int, ep: Epoll, fds: Callable[[int], int]
) -> None:
    """By the inode: a closed one is stale, and no live one is ever taken for it."""
    live = fds(KINDS[name][0]())
    ep.register(live, Event.IN)
    assert denied(lambda: stale(ep), error, "kcmp") == []
    fd = make_stale(ep, KINDS[name][0], fds)
    assert denied(lambda: stale(ep), error, "kcmp") == [fd]
    [watched] = [watched for watched in instance(ep).watched if watched.stale]
    held = [holder.fd for holder in denied(lambda: procfs.holders(instance(ep), watched), error, "kcmp")]
    if name.startswith("pipe"):
        assert sorted(held) == [HELD[-1].fileno(), 700], "both ends have one inode"
    else:
        assert held == ([700] if KINDS[name][1] == "socket" else [])


@needs_kcmp
@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("error", DENIED, ids=errno.errorcode.get)
@pytest.mark.parametrize("new", ["eventfd", "pipe, to read", "tcp, not bound", "tty, slave"])
@pytest.mark.parametrize("old", ["eventfd", "pipe, to read", "tcp, not bound", "tty, slave"])
def test_a_reused_fd_is_stale_without_kcmp(
    old: str, new: str, error: int, ep: Epoll, fds: Callable[[int], int]
) -> None:
    other = fds(KINDS[new][0]())
    fd = make_stale(ep, KINDS[old][0], fds)
    os.dup2(other, fd)
    # All eventfds have one inode.
    expected = [] if old == new == "eventfd" else [fd]
    assert denied(lambda: stale(ep), error, "kcmp") == expected
    assert stale(ep) == [fd]


@pytest.mark.parametrize("error", DENIED, ids=errno.errorcode.get)
def test_duplicates_are_found_without_kcmp(error: int, ep: Epoll, fds: Callable[[int], int]) -> None:
    fds(os.dup(instance_fd(ep)))
    assert {each.same_as for each in denied(lambda: procfs.epolls(ME), error, "kcmp")} == {None}


def test_stale_is_found_without_inodes_before_linux_4_13(
    monkeypatch: pytest.MonkeyPatch, fds: Callable[[int], int]
) -> None:
    """Linux before 4.13: no inode and no kcmp of watched files."""
    with Epoll() as ep:
        lines = _fdinfo.lines

        def older(pid: int, fd: int) -> list[str]:
            return [line.partition("  pos:")[0] for line in lines(pid, fd) if not line.startswith("ino:")]

        monkeypatch.setattr(_fdinfo, "lines", older)
        live = fds(os.eventfd(0))
        ep.register(live)
        gone = make_stale(ep, lambda: os.eventfd(0), fds)

        def look() -> list[tuple[int, bool, int | None]]:
            return [(each.fd, each.stale, each.inode) for each in instance(ep).watched]

        assert sorted(denied(look, errno.EINVAL, "kcmp")) == [(live, False, None), (gone, True, None)]


def test_an_fd_closed_while_the_list_is_read_is_not_stale(
    ep: Epoll, eventfd: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is read, then an fd closed: by the time that it is looked up it is gone."""
    fd = os.eventfd(0)
    ep.register(fd)
    ep.register(eventfd())
    entries, reads, deadline = _fdinfo.entries, itertools.count(), time.monotonic() + 5

    def then_close(pid: int, epfd: int) -> Any:
        found = entries(pid, epfd)
        if next(reads) == 0:
            os.close(fd)
        assert time.monotonic() < deadline
        return found

    monkeypatch.setattr(_fdinfo, "entries", then_close)
    assert [watched.stale for watched in _fdinfo._watched(ME, instance_fd(ep))] == [False]
    assert next(reads) == 2, "it was read again"


def test_a_busy_process_has_nothing_stale(effort: Effort) -> None:
    """It opens, registers and closes all the time, and each fd is reused at once."""
    program = """
        import os, select
        ep = select.epoll()
        print(flush=True)
        while True:
            fd, other = os.eventfd(0), os.eventfd(0)
            ep.register(fd)
            os.close(fd)
            ep.register(other)
            os.close(other)
    """
    with child(program) as process:
        for _ in range(effort(200, 5000)):
            [found] = procfs.epolls(process.pid)
            assert found.stale == 0, found
        assert process.poll() is None


@needs_kcmp
def test_a_nested_epoll_of_another_process_is_described() -> None:
    """Of a live process, from outside: all as from within."""
    with child(STALE) as process:
        [found] = procfs.epolls(process.pid)
        [stale_watch] = [watched for watched in found.watched if watched.stale]
        assert procfs.holders(found, stale_watch) == [(process.pid, stale_watch.fd + 2)]
        assert procfs.files(process.pid, [stale_watch.fd]) == {}


def test_an_asyncio_server_is_described() -> None:
    with child(SERVER) as process:
        [process_found] = [each for each in procfs.processes().processes if each.pid == process.pid]
        [found] = process_found.epolls
        files = procfs.files(process.pid, [watched.fd for watched in found.watched])
        kinds = sorted(file.socket.state for file in files.values() if file.socket)
        assert kinds == ["ESTABLISHED", "LISTEN"], "its wake-up pair, and the server"
        assert process_found.name == procfs.process(process.pid).name
        assert process_found.command[:2] == (sys.executable, "-P")
        assert process_found.user == _fdinfo.user_name(os.getuid())


def test_a_process_title_is_shown() -> None:
    """As redis and PostgreSQL do: its former arguments are cut short, and empty ones are left at the end."""
    program = """
        import os, sys
        if not sys.argv[1:]:
            os.execv(sys.executable, [*sys.orig_argv, "serves", "", "now", "", "", ""])
        print(flush=True)
        sys.stdin.read()
    """
    with child(program) as process:
        assert procfs.process(process.pid).command[-3:] == ("serves", "", "now")


# Errors.


@pytest.mark.parametrize("pid", [2**22 + 1, 2**31 - 1, 2**31, 2**70])
@pytest.mark.parametrize("call", ["epolls", "files", "process"])
def test_a_missing_process_is_an_error(call: str, pid: int) -> None:
    with pytest.raises(ProcessLookupError, match=f"no process {pid}") as caught:
        getattr(procfs, call)(pid)
    assert caught.value.errno == errno.ESRCH


@contextlib.contextmanager
def zombie() -> Iterator[int]:
    """A child that has ended, and has not been waited for yet."""
    pid = fork()
    if pid == 0:
        os._exit(0)
    try:
        until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
        yield pid
    finally:
        os.waitpid(pid, 0)


@pytest.mark.parametrize("call", ["epolls", "files", "process"])
def test_a_process_that_has_ended_raises_process_lookup_error(call: str) -> None:
    """For every user; to all but root the kernel answers EACCES."""
    with zombie() as pid:
        with pytest.raises(ProcessLookupError, match=f"^.Errno 3. process {pid} has ended$"):
            getattr(procfs, call)(pid)


def test_a_process_that_has_ended_is_not_refused() -> None:
    refused = _fdinfo.usage(os.getuid()).refused
    with zombie() as pid:
        assert pid not in procfs.processes().refused
        assert _fdinfo.usage(os.getuid()).refused == refused


@pytest.mark.parametrize("call", ["epolls", "files", "process"])
def test_a_process_without_its_main_thread_is_read(call: str) -> None:
    """Its other threads go on, and have its files; /proc/PID shows none of them."""
    program = f"""
        import ctypes, sys, threading
        threading.Thread(target=sys.stdin.read).start()
        print(flush=True)
        ctypes.CDLL(None).syscall({EXIT}, 0)
    """
    with child(program) as process:
        until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
        with pytest.raises(ProcessLookupError, match=f"the main thread of process {process.pid} has ended$"):
            getattr(procfs, call)(process.pid)


def test_a_process_that_ends_while_it_is_read_raises_process_lookup_error(effort: Effort) -> None:
    """At any moment: the result is an answer or ProcessLookupError, which names the process."""
    program = """
        import os, select, time
        eps = [select.epoll() for _ in range(40)]  # With their registrations, fewer fds than 1,024.
        for ep in eps:
            for _ in range(20):
                ep.register(os.eventfd(0))
        print(flush=True)
        time.sleep(60)
    """
    calls = [procfs.epolls, procfs.files, procfs.process, lambda pid: procfs.processes()]
    named = 0
    for delay in range(effort(8, 60)):
        with child(program) as process:
            timer = threading.Timer(delay * 0.0005, process.kill)
            timer.start()
            try:
                for call in itertools.cycle(calls):
                    call(process.pid)
                    if process.returncode is not None or not os.path.exists(f"/proc/{process.pid}/fd/0"):
                        raise ProcessLookupError(errno.ESRCH, f"process {process.pid} has ended")
            except ProcessLookupError as error:
                named += bool(re.search(f"process {process.pid}", str(error)))
            timer.join()
    assert named == effort(8, 60)


UNPRIVILEGED = f"""
import ctypes, os, signal
from pyepoll import _fdinfo, procfs
if os.getuid() == 0:
    # A user of this test's own: other tests count the processes of NOBODY.
    os.setgroups([]); os.setgid({NOBODY}); os.setuid({10_000 + ME % 50_000})
    # As it was root's, the kernel hides what it has open from its new user.
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE

def child(does):
    # The pid of a child, once it has done something; then it sleeps.
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        does()
        os.write(write, b"!")
        signal.pause()
    os.close(write)
    os.read(read, 1)
    os.close(read)
    return pid
"""
"""A program's beginning, to which more is added: a user without privileges."""


def test_a_user_gets_process_lookup_error_for_an_ended_process() -> None:
    """EACCES is the kernel's answer to all but root."""
    printed = run(
        UNPRIVILEGED
        + textwrap.dedent("""
            pid = child(lambda: os._exit(0))
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            for call in (procfs.epolls, procfs.files, procfs.process):
                try:
                    call(pid)
                except ProcessLookupError as error:
                    print(error.strerror == f"process {pid} has ended")
            print(pid not in procfs.processes().refused)
            before = _fdinfo.usage(os.getuid()).refused
            os.waitpid(pid, 0)
            print(_fdinfo.usage(os.getuid()).refused == before)
        """)
    )
    assert printed.split() == ["True"] * 5


def test_a_user_gets_permission_error_for_a_protected_process() -> None:
    """Its own user may not look into it: the error is not about its end."""
    printed = run(
        UNPRIVILEGED
        + textwrap.dedent("""
            pid = child(lambda: ctypes.CDLL(None).prctl(4, 0, 0, 0, 0))
            for call in (procfs.epolls, procfs.files, procfs.process):
                try:
                    call(pid)
                except PermissionError as error:
                    print(error.errno, error.strerror)
            print(pid in procfs.processes().refused)
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        """)
    )
    assert printed.endswith("True\n")
    assert printed.count(": your own, but it has or had other privileges than yours, or protects itself") == 3


@as_root
def test_another_users_process_raises_permission_error() -> None:
    """From a process of a user without privileges."""
    with child(STALE) as process:
        printed = run(
            f"""
            import os
            import pyepoll.procfs as procfs
            os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
            for call in (procfs.epolls, procfs.files, procfs.process):
                try:
                    call({process.pid})
                except PermissionError as error:
                    assert error.errno == 13
                    print(error.strerror)
            with __import__("select").epoll():
                snapshot = procfs.processes()
            assert {process.pid} in snapshot.refused
            assert [each.pid for each in snapshot.processes] in ([os.getpid()], [])
            """
        )
    assert printed.count(f"not permitted to look into process {process.pid} of user root") == 3


@as_root
def test_a_hidden_process_is_not_reported_as_missing(tmp_path: Path) -> None:
    """Mounted with hidepid=2: a process that exists is not said to be none."""
    program = f"""
        import ctypes, os, sys
        import pyepoll.procfs as procfs
        libc = ctypes.CDLL(None, use_errno=True)
        def check(result):
            if result:
                print("cannot:", os.strerror(ctypes.get_errno()))
                sys.exit()
        check(libc.unshare(0x00020000))  # CLONE_NEWNS
        check(libc.mount(None, b"/", None, 0x44000, None))  # MS_REC | MS_PRIVATE
        check(libc.mount(b"proc", b"/proc", b"proc", 0, b"hidepid=2"))
        os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
        for call in (procfs.epolls, procfs.files, procfs.process):
            try:
                call(int(sys.argv[1]))
            except PermissionError as error:
                print(error.strerror)
        try:
            procfs.epolls(2**22 + 1)
        except ProcessLookupError as error:
            print(error.strerror)
        assert int(sys.argv[1]) not in procfs.processes().refused
    """
    with child(STALE) as process:
        printed = run(program.replace("sys.argv[1]", repr(process.pid)))
    if printed.startswith("cannot:"):
        pytest.skip(printed)
    hidden = f"process {process.pid} exists, but this /proc does not show it: it is mounted with hidepid"
    assert printed.count(hidden) == 3
    assert f"no process {2**22 + 1}" in printed


def test_an_unmounted_proc_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty directory in its place."""
    monkeypatch.setattr(os, "listdir", lambda path: [])
    for call in (procfs.processes, functools.partial(_fdinfo.usage, 0)):
        with pytest.raises(FileNotFoundError, match="/proc is not mounted"):
            call()


# How much of max_user_watches is used.


@needs_kcmp
@as_root
def test_usage_counts_a_shared_epoll_once() -> None:
    """Of a user whose processes are this test's: an epoll that two share counts once, an equal one twice."""
    uid = 54321
    program = f"""
        import os, select, sys
        os.setgroups([]); os.setgid({uid}); os.setuid({uid})
        one, other, empty = select.epoll(), select.epoll(), select.epoll()
        r, w = os.pipe()
        for ep in one, other:
            ep.register(r)
            ep.register(w)
        if os.fork() == 0:
            one.register(os.eventfd(0))
            print(flush=True)
        sys.stdin.read()
    """
    with child(program):
        assert _fdinfo.usage(uid) == (5, 2, 0)
    until(lambda: _fdinfo.usage(uid) == (0, 0, 0))


@as_root
def test_usage_counts_refused_processes() -> None:
    with child(STALE):
        printed = run(
            f"""
            import os
            from pyepoll import _fdinfo
            os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
            print(_fdinfo.usage(0).refused > 0)
            """
        )
    assert printed.split() == ["True"]


# The package.


def test_the_import_of_pyepoll_does_not_import_procfs() -> None:
    """`import pyepoll` imports none of it, and works where nothing of it is installed."""
    printed = run(
        """
        import sys
        sys.modules["psutil"] = sys.modules["rich"] = None
        import pyepoll
        pyepoll.Epoll().poll(0)
        for name in ("procfs", "_fdinfo", "doctor", "_extra", "_cli", "__main__"):
            assert f"pyepoll.{name}" not in sys.modules, name
        for name in ("dataclasses", "asyncio", "argparse", "re", "json"):
            print(name in sys.modules)
        """
    )
    assert "True" not in run(
        "import sys; import pyepoll; print(any(m.split('.')[0] in ('psutil', 'rich') for m in sys.modules))"
    )
    assert len(printed.split()) == 5


def test_import_without_psutil_names_the_extra() -> None:
    printed = run(
        """
        import sys, traceback
        sys.modules["psutil"] = None
        try:
            import pyepoll.procfs
        except ModuleNotFoundError as error:
            assert error.name == "psutil"
            traceback.print_exc(file=sys.stdout)
        """
    )
    assert "pip install 'PATH[cli]'" in printed
    assert "pip install psutil rich" in printed
    assert "pip install pyepoll" not in printed


def test_a_source_tree_without_the_extension_is_reported(tmp_path: Path) -> None:
    package = Path(pyepoll.__file__).parent
    (tmp_path / "pyepoll").mkdir()
    for file in package.glob("*.py"):
        (tmp_path / "pyepoll" / file.name).write_text(file.read_text())
    done = subprocess.run(
        [sys.executable, "-S", "-m", "pyepoll", "doctor"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "No module named 'pyepoll._epoll'" in done.stderr


USES: dict[str, Callable[[Any], object]] = {
    "epolls": lambda ep: procfs.epolls(ME),
    "files": lambda ep: procfs.files(ME),
    "holders": lambda ep: procfs.holders(instance(ep), instance(ep).watched[0]),
    "process": lambda ep: procfs.process(ME),
    "processes": lambda ep: procfs.processes(),
}
CLASSES = {"File", "FdHolder", "EpollInfo", "Process", "Socket", "Snapshot", "Watch"}
"""The classes of their results; tested with them."""


def test_every_public_name_is_tested_here() -> None:
    assert USES.keys() | CLASSES == set(procfs.__all__)
    for name in procfs.__all__:
        thing = getattr(procfs, name)
        assert thing.__doc__, name
        if name in USES:
            assert re.search(r"[Rr]aises", thing.__doc__), name


@pytest.mark.parametrize("name", USES)
def test_calls_leak_no_fd_and_no_memory(
    name: str, ep: Epoll, tcp_pair: tuple[socket.socket, socket.socket]
) -> None:
    """No fd and no memory."""
    for sock in tcp_pair:
        ep.register(sock)
    call = functools.partial(USES[name], ep)
    for _ in range(3):
        call()
    before = open_fds()
    grown = 0
    for _ in range(5):
        gc.collect()
        blocks = sys.getallocatedblocks()
        for _ in range(20):
            call()
        gc.collect()
        grown = sys.getallocatedblocks() - blocks
        if grown < 20:
            break
    assert grown < 20
    assert open_fds() == before
