"""Checks of this machine, this Python and this process: ``python -m pyepoll doctor``.

    from pyepoll import doctor

    print(doctor.check().format())  # In a program: covers its own patches and limits.

It needs no other package.
"""

import asyncio
import contextlib
import dataclasses
import errno
import os
import platform
import resource
import selectors
import shutil
import socket
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any, Literal, NamedTuple

import pyepoll

from . import _epoll, _extra, _fdinfo, raw

__all__ = ["Finding", "Report", "check"]


class Finding(NamedTuple):
    """The result of one check."""

    name: str
    """The subject of the check, ``kernel`` for example."""
    status: Literal["ok", "note", "fails"]
    """``note``: something optional is missing or a limit is low; ``fails``: pyepoll cannot work."""
    text: str
    """The result, in words."""
    advice: str
    """How to fix it; empty if the status is ``ok``."""
    value: Any
    """The same for programs: a value that ``json.dumps`` accepts."""


@dataclasses.dataclass(frozen=True)
class Report:
    """The findings of all checks, in a fixed order."""

    findings: tuple[Finding, ...]
    """One for each check."""

    def ok(self) -> bool:
        """Return whether pyepoll can work here: no finding has the status ``fails``."""
        return all(finding.status != "fails" for finding in self.findings)

    def format(self, width: int | None = None) -> str:
        """Return the report as text: a paragraph for each finding, and a verdict.

        width: in columns; less than 40 is taken as 40, and None does not wrap.
        """
        wrap = textwrap.TextWrapper(width=max(width or sys.maxsize, 40), break_on_hyphens=False)
        lines = []
        for finding in self.findings:
            start = f"{finding.status:5} {finding.name:{_NAMES}}"
            wrap.initial_indent, wrap.subsequent_indent = f"{start} ", " " * (len(start) + 1)
            lines += wrap.wrap(finding.text)
            if finding.advice:
                wrap.initial_indent = f"{'':{len(start)}} -> "
                wrap.subsequent_indent = " " * len(wrap.initial_indent)
                lines += wrap.wrap(finding.advice)
        wrap.initial_indent = wrap.subsequent_indent = ""
        failed = [finding.name for finding in self.findings if finding.status == "fails"]
        notes = sum(finding.status == "note" for finding in self.findings)
        about = {0: "", 1: "; there is a note above"}.get(notes, f"; there are {notes} notes above")
        verdict = f"cannot work here: see {', '.join(failed)}" if failed else f"works here{about}"
        return "\n".join([*lines, "", *wrap.wrap(f"pyepoll {verdict}.")])


def check() -> Report:
    """Run every check in this process and return the results. Changes nothing."""
    return Report(tuple(_found(name, check) for name, check in _CHECKS.items()))


def terminal_width() -> int | None:
    """Return how wide a report on stdout should be; None where it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


_Result = tuple[Literal["ok", "note", "fails"], str, str, Any]
"""A finding but for its name."""


def _ok(text: str, value: Any) -> _Result:
    return "ok", text, "", value


def _note(text: str, advice: str, value: Any) -> _Result:
    return "note", text, advice, value


def _found(name: str, check: Callable[[], _Result]) -> Finding:
    """The result of a check; an OSError, in a sandbox for example, becomes a note."""
    try:
        return Finding(name, *check())
    except OSError as error:
        advice = "a sandbox denies the check itself"
        if error.errno == errno.ENOENT:
            advice = "mount /proc; in a sandbox, parts of it may be missing"
        return Finding(name, "note", f"unknown: {error}", advice, {"error": str(error)})


def _package() -> _Result:
    where = os.path.dirname(os.path.abspath(pyepoll.__file__))
    return _ok(f"{pyepoll.__version__} in {where}", pyepoll.__version__)


def _python() -> _Result:
    name = f"{platform.python_implementation()} {platform.python_version()}"
    return _ok(f"{name}, {sys.executable}", name)


def _gil() -> _Result:
    free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
    value = {"free_threaded_build": free, "enabled": enabled}
    if free and enabled:
        advice = "an extension module that does not support free threading, or PYTHON_GIL=1, turned it on"
        return _note("on, in a free-threaded build", advice, value)
    else:
        text = "on; released during a wait" if enabled else "off: a free-threaded build"
        return _ok(text, value)


def _kernel() -> _Result:
    system = os.uname()
    text = f"{system.sysname} {system.release} on {system.machine}"
    if filtered := _seccomp() == "2":
        text += ", under a seccomp filter"
    value = {"release": system.release, "machine": system.machine, "seccomp_filter": filtered}
    return _ok(text, value)


def _libc() -> _Result:
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        name = " ".join(platform.libc_ver()).strip() or sysconfig.get_config_var("HOST_GNU_TYPE") or "unknown"
    return _ok(name, name)


def _status(field: str) -> str:
    """A field of /proc/thread-self/status; an empty string if it is not there."""
    with (
        contextlib.suppress(OSError),
        open("/proc/thread-self/status", encoding="utf-8", errors="replace") as file,
    ):
        for line in file:
            if line.startswith(f"{field}:"):
                return line.partition(":")[2].strip()
    return ""


def _seccomp() -> str:
    return _status("Seccomp")


@contextlib.contextmanager
def _ready() -> Iterator[tuple[int, int]]:
    """An epoll and an eventfd to register, as numbers."""
    with contextlib.ExitStack() as stack:
        epfd = raw.epoll_create1(raw.EPOLL_CLOEXEC)
        stack.callback(os.close, epfd)
        fd = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        stack.callback(os.close, fd)
        yield epfd, fd


def _works() -> _Result:
    """The calls that everything else depends on."""
    try:
        with pyepoll.Epoll[str]() as ep, pyepoll.Waker() as waker:
            waker.wake()
            ep.register(waker, pyepoll.Event.IN, "woken")
            for reported in ep.poll(0), list(ep.wait(0, sigmask=())):
                if reported != [("woken", pyepoll.Event.IN)]:
                    raise OSError(errno.EIO, f"a wait reports {reported} for an fd that is ready to read")
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            advice = "no fd is left: see RLIMIT_NOFILE"
        elif error.errno == errno.ENOSPC:
            advice = "no watch is left: see max_user_watches"
        else:
            advice = "a sandbox forbids it: allow epoll_create1, epoll_ctl, epoll_wait, epoll_pwait, eventfd2"
        return "fails", str(error), advice, {"error": str(error)}
    else:
        return _ok("create, register, wait and sigmask work", True)


def _pwait2() -> _Result:
    cost = "timeouts are rounded up to the millisecond; nothing else changes"
    # Not tried then: a seccomp filter may kill for the call.
    if _epoll._switched_off_pwait2():
        by = "PYEPOLL_NO_PWAIT2" if _is_set("PYEPOLL_NO_PWAIT2") else "pyepoll.use_pwait2(False)"
        advice = f"do without {by} where no seccomp filter kills for the call"
        return _note(f"switched off by {by}: {cost}", advice, {"works": False, "switched_off": by})
    try:
        with _ready() as (epfd, _):
            raw.epoll_pwait2(epfd, raw.EventBuffer(1), 0)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, str(error.errno))
        forbidden = error.errno != errno.ENOSYS or _kernel_version() >= (5, 11)
        value = {"works": False, "error": code, "forbidden": forbidden}
        if forbidden:
            text = f"forbidden, by a seccomp filter as it seems ({code}): {cost}"
            advice = (
                "allow the system call epoll_pwait2, 441, in the filter; a container runtime and libseccomp "
                "from before it was made do not know it"
            )
        else:
            text, advice = f"not there before Linux 5.11 ({code}): {cost}", "a newer kernel"
        return _note(text, advice, value)
    else:
        if raw.uses_pwait2():
            return _ok("works: timeouts are kept to the nanosecond", {"works": True})
        text = f"works, but was refused to a wait of this process, which does without it since: {cost}"
        return _note(text, "pyepoll.use_pwait2(True) lets waits try it again", {"works": True, "used": False})


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


def _kernel_version() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2] if part.isdecimal())


def _exclusive() -> _Result:
    try:
        with _ready() as (epfd, fd):
            raw.epoll_ctl(epfd, raw.EPOLL_CTL_ADD, fd, raw.EPOLLIN | raw.EPOLLEXCLUSIVE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        text = "not there: processes that share a listening socket are all woken for each connection"
        return _note(text, "Linux 4.5 or later", False)
    else:
        return _ok("works", True)


_NO_BUSY_POLL = {
    errno.ENOTTY: ("not there before Linux 6.9", "a newer kernel, if network latency matters"),
    errno.EOPNOTSUPP: ("not in this kernel", "a kernel with CONFIG_NET_RX_BUSY_POLL"),
    errno.EPERM: ("forbidden", "allow ioctl EPIOCSPARAMS and EPIOCGPARAMS in the sandbox"),
    errno.ENOSYS: ("forbidden", "allow ioctl EPIOCSPARAMS and EPIOCGPARAMS in the sandbox"),
}


def _busy_poll() -> _Result:
    try:
        with _ready() as (epfd, _):
            raw.epoll_set_params(epfd, *raw.epoll_get_params(epfd))
    except OSError as error:
        if error.errno not in _NO_BUSY_POLL:
            raise
        text, advice = _NO_BUSY_POLL[error.errno]
        code = errno.errorcode[error.errno]
        value = {"works": False, "error": code}
        return _note(f"{text} ({code})", advice, value)
    else:
        return _ok("Epoll.set_busy_poll works", {"works": True})


def _wakeup() -> _Result:
    with _ready() as (epfd, fd):
        raw.epoll_ctl(epfd, raw.EPOLL_CTL_ADD, fd, raw.EPOLLIN | raw.EPOLLWAKEUP)
        shown = _fdinfo.entries(os.getpid(), epfd)
    kept = any(watched.events & raw.EPOLLWAKEUP for watched in shown) if shown else None
    allowed = bool(int(_status("CapEff") or "0", 16) >> _CAP_BLOCK_SUSPEND & 1)
    value = {"kept": kept, "CAP_BLOCK_SUSPEND": allowed}
    if kept:
        return _ok("keeps the system awake while an event is handled", value)
    elif kept is None:
        text = "unknown: /proc does not show whether the kernel keeps it"
        return _note(text, "nothing to change, unless the system sleeps; see /proc", value)
    elif allowed:
        text = "the kernel drops it in silence, though this process has CAP_BLOCK_SUSPEND"
        advice = "only where the system sleeps: a kernel with CONFIG_PM_SLEEP, outside a user namespace"
        return _note(text, advice, value)
    else:
        text = "the kernel drops it in silence: this process lacks CAP_BLOCK_SUSPEND"
        advice = (
            "only where the system sleeps: AmbientCapabilities=CAP_BLOCK_SUSPEND in a systemd unit, "
            "--cap-add BLOCK_SUSPEND for a container"
        )
        return _note(text, advice, value)


_CAP_BLOCK_SUSPEND = 36


def _max_user_watches() -> _Result:
    with open("/proc/sys/fs/epoll/max_user_watches", encoding="utf-8") as file:
        limit = int(file.read())
    used = _fdinfo.usage(os.getuid())
    user = _fdinfo.user_name(os.getuid())
    processes = "1 process" if used.processes == 1 else f"{used.processes} processes"
    seen = f"{used.watches} in use by {processes} of {user} that can be looked into"
    if used.refused:
        seen += f" ({used.refused} cannot)"
    value = {"limit": limit, **used._asdict()}
    advice = ""
    if used.watches > limit * _SHORT:
        advice = (
            f"as root: sysctl fs.epoll.max_user_watches={limit * 4}; each watch takes about 160 bytes of RAM"
        )
    return ("note" if advice else "ok"), f"{limit}; {seen}", advice, value


_SHORT = 0.8
"""The part of a limit that may be in use before a note is due."""


def _nofile() -> _Result:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd")) - 1
    value = {"soft": soft, "hard": hard, "open": used}
    more = "" if soft == hard else f", which this process may raise to {_limit(hard)}"
    text = f"{_limit(soft)}{more}; {used} fds are open"
    advice = ""
    if soft != resource.RLIM_INFINITY and (soft <= _FEW_FDS or used > soft * _SHORT):
        advice = (
            "each connection takes an fd: LimitNOFILE= in a systemd unit, --ulimit nofile= for a container"
        )
        if soft != hard:
            advice += f", ulimit -n {_limit(hard)} in a shell, resource.setrlimit in the program"
    return ("note" if advice else "ok"), text, advice, value


_FEW_FDS = 1024
"""The usual default, too low for a server."""


def _limit(number: int) -> str:
    return "unlimited" if number == resource.RLIM_INFINITY else str(number)


def _proc() -> _Result:
    try:
        with _ready() as (epfd, fd):
            raw.epoll_ctl(epfd, raw.EPOLL_CTL_ADD, fd, raw.EPOLLIN, 7)
            shown = [(watched.fd, watched.data) for watched in _fdinfo.entries(os.getpid(), epfd)]
            if not _fdinfo.lines(os.getpid(), epfd):
                raise FileNotFoundError(errno.ENOENT, f"there is no fdinfo of the open fd {epfd}")
            if shown and shown != [(fd, 7)]:
                raise OSError(errno.EIO, f"/proc/self/fdinfo shows {shown} of an epoll that watches {fd}")
    except OSError as error:
        text = f"/proc does not show the interest list of an epoll: {error.strerror}"
        advice = (
            "mount /proc, of which a sandbox may lack parts: without it stale registrations are not removed, "
            "and a child of a fork cannot use its parent's epolls where one-shots are registered or kcmp is "
            "forbidden"
        )
        return _note(text, advice, {"error": str(error)})
    if not shown:
        text = (
            "is mounted, but shows no entry of an epoll: a sandbox imitates it. Stale registrations that "
            "unregister cannot remove stay, and in a child of a fork, one-shots that have fired are armed"
        )
        advice = "nothing to change in the sandbox, for example gVisor; unregister before you close"
        return _note(text, advice, {"entries": False})
    return _ok("shows the interest lists of epolls", True)


def _kcmp() -> _Result:
    try:
        with _ready() as (epfd, _):
            _epoll._same_file(os.getpid(), epfd, os.getpid(), epfd)
    except OSError as error:
        code = errno.errorcode[error.errno or errno.EIO]
        text = f"refused ({code}): ps cannot tell a closed eventfd, timerfd or signalfd from a new one"
        advice = "to use ps here, allow kcmp in the sandbox; needs a kernel with CONFIG_KCMP"
        return _note(text, advice, {"works": False, "error": code})
    else:
        return _ok("ps can tell all stale entries", {"works": True})


def _ps() -> _Result:
    if missing := _extra.missing():
        text = f"needs {' and '.join(missing)}"
        return _note(text, _extra.HOW, {"missing": missing})
    else:
        versions = {name: _version(name) for name in _extra.NAMES}
        found = " and ".join(" ".join(pair) for pair in versions.items())
        return _ok(f"has {found}", versions)


def _version(name: str) -> str:
    """The version that a package was installed with; one can be copied, or unreadable."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "of unknown version"
    return about["Version"] if "Version" in about else "of unknown version"


def _green_threads() -> _Result:
    patched = [name for name, is_patched in _PATCHERS.items() if is_patched()]
    if not patched:
        text = "neither gevent nor eventlet has patched this process"
        return _ok(text, [])
    text = (
        f"{' and '.join(patched)} has patched this process: a wait of pyepoll's stops all its green threads"
    )
    advice = "let the hub wait for ep.fileno(), or wait in a real thread of its pool: docs/clients.md"
    return _note(text, advice, patched)


def _gevent() -> bool:
    # A module that is not imported has patched nothing.
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and any(map(monkey.is_module_patched, ("select", "socket", "threading")))


def _eventlet() -> bool:
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is not None and any(map(patcher.is_monkey_patched, ("select", "socket", "thread")))


_PATCHERS = {"gevent": _gevent, "eventlet": _eventlet}


def _asyncio() -> _Result:
    loop, selector, failure = _default_loop()
    value = {"loop": loop, "selector": selector, "connects": False}
    if failure:
        text = f"no default loop can be made: {failure}"
        return _note(text, "a loop policy is broken, or asyncio is denied a system call", value)
    if reason := _no_connection():
        text = f"pyepoll.aio cannot make a connection: {reason}"
        return "fails", text, "use asyncio.run(main()) until a newer pyepoll supports this Python", value
    value["connects"] = True
    text = f"the default loop is {loop}"
    if selector is not None:
        text += f" on {selector}"
    if not (selector or "").startswith("pyepoll."):
        text += "; pyepoll.aio.run(main()) runs on pyepoll"
    return _ok(text, value)


def _default_loop() -> tuple[str | None, str | None, str]:
    """The names of the classes of a new loop and of its selector, or why there is none."""
    try:
        # Try the loop's needs first: a loop that fails half-way warns when it is collected.
        one, other = socket.socketpair()
        with one, other, selectors.DefaultSelector() as selector:
            one.setblocking(False)
            selector.register(one, selectors.EVENT_READ)
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            own = getattr(loop, "_selector", None)
            return _class_name(type(loop)), own and _class_name(type(own)), ""
    except Exception as error:  # Whoever set the policy made this loop.
        return None, None, f"{type(error).__name__}: {error}"


def _no_connection() -> str:
    """Why no connection can be made and used on pyepoll.aio; an empty string where one can.

    Raises OSError if the machine denies one of the calls.
    """
    with contextlib.ExitStack() as stack:
        sock, peer = (stack.enter_context(end) for end in socket.socketpair())
        peer.setblocking(False)
        with pyepoll.EpollSelector() as selector:  # First, as above.
            selector.register(peer, selectors.EVENT_READ)
            selector.select(0)
        try:
            # A thread of its own: a loop may be running in this one.
            with ThreadPoolExecutor(1) as thread:
                heard = thread.submit(_ask, sock, peer).result()
        except OSError:
            raise
        except Exception as error:  # For example with a newer CPython that has changed asyncio.
            return f"{type(error).__name__}: {error}"
    return "" if heard == b"asked, answered" else f"{heard!r} arrives for b'asked, answered'"


class _Heard(asyncio.Protocol):
    data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data


def _ask(sock: socket.socket, peer: socket.socket) -> bytes:
    """Send over a connected pair and back, one end a transport of pyepoll.aio's; return what arrives.

    No turn of the loop waits, so nothing can hang, and how this process waits remains as it is.
    """
    from . import aio

    heard = _Heard()

    async def ask() -> None:
        transport, _ = await loop.create_connection(lambda: heard, sock=sock)
        try:
            transport.write(b"asked, ")
            await loop.sock_sendall(peer, await loop.sock_recv(peer, 100) + b"answered")
            while not heard.data:
                await asyncio.sleep(0)
        finally:
            transport.abort()

    with contextlib.closing(aio.new_event_loop()) as loop:
        task = loop.create_task(ask())
        for turn in range(_TURNS):
            if turn == _TURNS // 2:
                task.cancel()
            loop.stop()
            loop.run_forever()
        with contextlib.suppress(asyncio.CancelledError):
            task.result()
        return heard.data


_TURNS = 100
"""Turns of the loop: half for the connection, which takes 4, and half to clean up after a failure."""


def _class_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


_CHECKS: dict[str, Callable[[], _Result]] = {
    "pyepoll": _package,
    "Python": _python,
    "GIL": _gil,
    "kernel": _kernel,
    "libc": _libc,
    "epoll": _works,
    "epoll_pwait2": _pwait2,
    "EXCLUSIVE": _exclusive,
    "busy polling": _busy_poll,
    "WAKEUP": _wakeup,
    "max_user_watches": _max_user_watches,
    "RLIMIT_NOFILE": _nofile,
    "/proc": _proc,
    "kcmp": _kcmp,
    "ps": _ps,
    "green threads": _green_threads,
    "asyncio": _asyncio,
}
"""In the order of the report."""

_NAMES = max(map(len, _CHECKS))
