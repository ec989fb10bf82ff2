"""doctor reports missing, forbidden and scarce things, and fails only where pyepoll cannot work."""

import asyncio
import errno
import json
import os
import platform
import re
import resource
import socket
import subprocess
import sys
import sysconfig
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.processes import run
from support.seccomp import SYSCALLS, denied

import pyepoll
from pyepoll import _extra, _fdinfo, aio, doctor, raw
from pyepoll._cli.main import main

GLIBC = platform.libc_ver()[0] == "glibc"

NAMES = [
    "pyepoll",
    "Python",
    "GIL",
    "kernel",
    "libc",
    "epoll",
    "epoll_pwait2",
    "EXCLUSIVE",
    "busy polling",
    "WAKEUP",
    "max_user_watches",
    "RLIMIT_NOFILE",
    "/proc",
    "kcmp",
    "ps",
    "green threads",
    "asyncio",
]

NEEDED = {"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "eventfd2"}
"""The findings without which pyepoll cannot work."""

DENIED = [errno.EPERM, errno.ENOSYS]


def found(report: doctor.Report, name: str) -> doctor.Finding:
    [finding] = [finding for finding in report.findings if finding.name == name]
    return finding


def examined(name: str) -> doctor.Finding:
    return found(doctor.check(), name)


def python(*arguments: str, prelude: str = "") -> subprocess.CompletedProcess[str]:
    """``python -m pyepoll`` in an interpreter of its own, after a prelude."""
    program = f"""
import runpy, sys
{textwrap.dedent(prelude)}
sys.argv[0] = "pyepoll"
runpy.run_module("pyepoll", run_name="__main__", alter_sys=True)
"""
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_finding_is_reported_and_nothing_is_left_open() -> None:
    """In this order; the fixtures see to it that no fd is left open."""
    report = doctor.check()
    assert [finding.name for finding in report.findings] == NAMES
    assert report.ok()
    for finding in report.findings:
        assert finding.status in ("ok", "note")
        assert bool(finding.advice) == (finding.status == "note"), finding
        json.dumps(finding.value)


def test_findings_independent_of_the_machine_are_correct() -> None:
    report = doctor.check()
    assert found(report, "pyepoll").text.startswith(pyepoll.__version__)
    assert sys.executable in found(report, "Python").text
    assert os.uname().release in found(report, "kernel").text
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = found(report, "RLIMIT_NOFILE").value
    assert (limits["soft"], limits["hard"]) == (soft, hard)
    with open("/proc/sys/fs/epoll/max_user_watches") as file:
        assert found(report, "max_user_watches").value["limit"] == int(file.read())
    if GLIBC:
        assert found(report, "libc").text == os.confstr("CS_GNU_LIBC_VERSION")


def test_the_command_prints_every_finding() -> None:
    done = python("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for name in NAMES:
        assert any(re.match(rf"(ok   |note ) {re.escape(name)} ", line) for line in lines), name
    assert lines[-1].startswith("pyepoll works here")
    assert max(map(len, lines)) > 80, "it is not wrapped where it is no terminal"


def test_json_output_has_every_finding() -> None:
    done = python("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["ok"] is True
    assert [finding["name"] for finding in document["findings"]] == NAMES
    assert document["findings"][0].keys() == {"name", "status", "text", "advice", "value"}


@pytest.mark.parametrize("width", [1, 40, 72, 100])
def test_a_report_is_as_wide_as_the_terminal(width: int) -> None:
    report = doctor.check()
    lines = report.format(width).splitlines()
    assert max(map(len, lines)) <= max(width, 40)
    assert len(lines) > len(report.format().splitlines()) or width == 100


# System calls that a sandbox forbids.


@pytest.mark.parametrize("error", DENIED, ids=errno.errorcode.get)
@pytest.mark.parametrize("syscall", sorted(SYSCALLS.keys() - {"epoll_create"}))
def test_check_fails_only_where_pyepoll_cannot_work(syscall: str, error: int) -> None:
    """And whatever is denied, there is a report."""
    if syscall == "epoll_wait" and not (GLIBC and os.uname().machine == "x86_64"):
        pytest.skip("no system call here, or none that the C library makes")
    doctor.check()  # Imports on the way are not to be denied.
    report = denied(doctor.check, error, syscall)
    assert isinstance(report, doctor.Report), report
    assert report.ok() == (syscall not in NEEDED)
    text = report.format()
    if syscall in NEEDED:
        assert text.endswith("pyepoll cannot work here: see epoll.")
        assert re.search(rf"{os.strerror(error)}", found(report, "epoll").text)
        assert syscall in found(report, "epoll").advice
    else:
        assert "pyepoll works here" in text


@pytest.mark.parametrize("error", DENIED, ids=errno.errorcode.get)
def test_a_forbidden_epoll_pwait2_is_reported(error: int) -> None:
    finding = found(denied(doctor.check, error, "epoll_pwait2"), "epoll_pwait2")
    assert finding.status == "note"
    assert f"forbidden, by a seccomp filter as it seems ({errno.errorcode[error]})" in finding.text
    assert "441" in finding.advice
    assert finding.value == {"works": False, "error": errno.errorcode[error], "forbidden": True}
    assert found(denied(doctor.check, error, "epoll_pwait2"), "kernel").value["seccomp_filter"]


def test_a_missing_epoll_pwait2_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for release, forbidden in (("5.10.0-28-amd64", False), ("4.18.0", False), ("5.11.0-rc1", True)):
        uname = os.uname()
        older = types.SimpleNamespace(sysname="Linux", release=release, machine=uname.machine)
        monkeypatch.setattr(os, "uname", lambda: older)  # noqa: B023
        finding = found(denied(doctor.check, errno.ENOSYS, "epoll_pwait2"), "epoll_pwait2")
        monkeypatch.undo()
        assert finding.value["forbidden"] is forbidden, release
        assert ("a newer kernel" in finding.advice) is not forbidden


def test_a_check_does_not_change_the_pwait2_setting() -> None:
    """The refusal of epoll_pwait2 is latched by waits, not by a look."""
    denied(doctor.check, errno.EPERM, "epoll_pwait2")
    assert raw.uses_pwait2()


@pytest.fixture
def pwait2() -> Iterator[None]:
    """The setting is the process's."""
    before = pyepoll.use_pwait2(True)
    yield
    pyepoll.use_pwait2(before)


@pytest.mark.usefixtures("pwait2")
def test_epoll_pwait2_switched_off_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not even tried: the program may have done that because a seccomp filter kills for the call."""
    monkeypatch.delenv("PYEPOLL_NO_PWAIT2", raising=False)
    pyepoll.use_pwait2(False)
    monkeypatch.setattr(raw, "epoll_pwait2", None)
    finding = examined("epoll_pwait2")
    assert finding.status == "note"
    assert finding.text.startswith("switched off by pyepoll.use_pwait2(False): timeouts are rounded up")
    assert finding.value == {"works": False, "switched_off": "pyepoll.use_pwait2(False)"}
    monkeypatch.setenv("PYEPOLL_NO_PWAIT2", "1")
    assert examined("epoll_pwait2").text.startswith("switched off by PYEPOLL_NO_PWAIT2: ")


@pytest.mark.usefixtures("pwait2")
def test_epoll_pwait2_switched_on_again_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the variable says: it is read at import."""
    monkeypatch.setenv("PYEPOLL_NO_PWAIT2", "1")
    pyepoll.use_pwait2(False)
    pyepoll.use_pwait2(True)
    assert examined("epoll_pwait2").text == "works: timeouts are kept to the nanosecond"


@pytest.mark.usefixtures("pwait2")
def test_epoll_pwait2_refused_to_a_wait_is_reported(ep: pyepoll.Epoll[Any]) -> None:
    assert denied(lambda: (ep.poll(0.001), examined("epoll_pwait2")), errno.EPERM, "epoll_pwait2")[
        1
    ].value == {
        "works": False,
        "error": "EPERM",
        "forbidden": True,
    }
    finding = examined("epoll_pwait2")
    assert (finding.status, finding.value) == ("note", {"works": True, "used": False})


def test_a_report_cannot_be_changed() -> None:
    report: Any = doctor.Report(())
    with pytest.raises(AttributeError):
        report.findings = ()
    assert report.ok()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errno.ENOTTY, "not there before Linux 6.9 (ENOTTY)"),
        (errno.EOPNOTSUPP, "not in this kernel (ENOTSUP)"),
        (errno.EPERM, "forbidden (EPERM)"),
        (errno.EIO, "unknown: "),
    ],
)
def test_a_refused_busy_poll_ioctl_is_a_note(error: int, text: str) -> None:
    finding = found(denied(doctor.check, error, "ioctl"), "busy polling")
    assert finding.status == "note"
    assert text in finding.text


def test_a_kernel_without_exclusive_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    ctl = raw.epoll_ctl

    def older(epfd: int, op: int, fd: int, events: int = 0, data: int = 0) -> None:
        if events & raw.EPOLLEXCLUSIVE:
            raise OSError(errno.EINVAL, "Invalid argument")
        ctl(epfd, op, fd, events, data)

    monkeypatch.setattr(raw, "epoll_ctl", older)
    report = doctor.check()
    assert found(report, "EXCLUSIVE").status == "note"
    assert report.ok()


@pytest.mark.parametrize("error", DENIED, ids=errno.errorcode.get)
def test_a_refused_kcmp_is_a_note(error: int) -> None:
    finding = found(denied(doctor.check, error, "kcmp"), "kcmp")
    assert finding.status == "note"
    assert f"refused ({errno.errorcode[error]})" in finding.text


@pytest.mark.skipif(not GLIBC, reason="musl opens with another system call than the one denied")
def test_missing_proc_advises_to_mount_it() -> None:
    doctor.check()
    report = denied(doctor.check, errno.ENOENT, "openat")
    for name in "/proc", "max_user_watches", "RLIMIT_NOFILE":
        assert "mount /proc" in found(report, name).advice
    assert report.ok()


# Resources that are short.


def test_wakeup_is_reported_as_the_kernel_keeps_it() -> None:
    """As the kernel has it: kept, or dropped with or without the capability."""
    with pyepoll.Epoll[Any]() as ep:
        fd = os.eventfd(0)
        ep.register(fd, pyepoll.Event.IN | pyepoll.Event.WAKEUP)
        kept = bool(_fdinfo.entries(os.getpid(), ep.fileno())[0].events & pyepoll.Event.WAKEUP)
        os.close(fd)
    finding = examined("WAKEUP")
    assert finding.value["kept"] is kept
    assert (finding.status == "ok") is kept


@pytest.mark.skipif(os.getuid() != 0, reason="only root has the capability to lose")
def test_wakeup_without_the_capability_is_reported() -> None:
    printed = run(
        """
        import os
        from pyepoll import doctor
        doctor.check()
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        print(next(finding for finding in doctor.check().findings if finding.name == "WAKEUP"))
        """
    )
    assert "this process lacks CAP_BLOCK_SUSPEND" in printed
    assert "'CAP_BLOCK_SUSPEND': False" in printed


def test_wakeup_kept_by_the_kernel_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that sleeps."""
    entry = _fdinfo.Watch(3, pyepoll.Event.IN | pyepoll.Event.WAKEUP, 7, 0, None, False)
    monkeypatch.setattr(_fdinfo, "entries", lambda pid, epfd: [entry])
    assert examined("WAKEUP").status == "ok"


def test_an_imitation_of_proc_without_entries_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in gVisor: its /proc is mounted, and the kernel is not to blame for what is not shown."""
    monkeypatch.setattr(_fdinfo, "lines", lambda pid, fd: ["pos:\t0", "flags:\t02"])
    report = doctor.check()
    proc, wakeup = found(report, "/proc"), found(report, "WAKEUP")
    assert proc.status == wakeup.status == "note"
    assert "is mounted, but shows no entry" in proc.text
    assert "cannot use" not in proc.text + proc.advice
    assert "mount /proc" not in proc.advice
    assert proc.value == {"entries": False}
    assert "unknown" in wakeup.text
    assert "drops" not in wakeup.text
    assert wakeup.value["kept"] is None
    assert report.ok()


@pytest.mark.skipif(not GLIBC, reason="what is preloaded replaces a call of glibc")
def test_a_child_can_use_its_copy_where_proc_has_no_entries(
    preload: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the report says of such a /proc is so."""
    preload(
        """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdio.h>
        #include <string.h>

        FILE *fopen(const char *path, const char *mode) {
            FILE *(*real)(const char *, const char *) =
                (FILE *(*)(const char *, const char *))dlsym(RTLD_NEXT, "fopen");
            return real(strstr(path, "/fdinfo/") ? "/dev/null" : path, mode);
        }

        FILE *fopen64(const char *path, const char *mode) { return fopen(path, mode); }
        """
    )
    run(
        """
        import os
        import pyepoll
        from pyepoll import Event

        fired = os.eventfd(1)
        with pyepoll.Epoll(always_ready=True) as ep, open(os.devnull) as null:
            ep.register(null, Event.IN | Event.ONESHOT, "always ready")
            ep.register(fired, Event.IN | Event.ONESHOT, "fired")
            assert len(ep.poll(0)) == 2
            ep.rearm(null)
            child = os.fork()
            if child == 0:
                try:
                    assert sorted(ep.poll(0)) == [("always ready", Event.IN), ("fired", Event.IN)]
                    ep.unregister(null)
                    assert ep.poll(0) == []
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
            assert ep.poll(0) == [("always ready", Event.IN)]
        """
    )


@pytest.mark.parametrize(("part", "status"), [(0.79, "ok"), (0.81, "note"), (1, "note")])
def test_watches_in_use_are_reported(part: float, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = examined("max_user_watches").value["limit"]
    monkeypatch.setattr(_fdinfo, "usage", lambda uid: _fdinfo.Usage(int(limit * part), 3, 2))
    finding = examined("max_user_watches")
    assert finding.status == status
    assert f"{int(limit * part)} in use by 3 processes" in finding.text
    assert "(2 cannot)" in finding.text
    assert ("sysctl fs.epoll.max_user_watches=" in finding.advice) == (status == "note")


def test_watches_in_use_by_one_process_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fdinfo, "usage", lambda uid: _fdinfo.Usage(1, 1, 0))
    assert "; 1 in use by 1 process of " in examined("max_user_watches").text


def test_watches_are_counted_for_this_user() -> None:
    with pyepoll.Epoll[Any]() as ep:
        fds = [os.eventfd(0) for _ in range(300)]
        for fd in fds:
            ep.register(fd)
        assert examined("max_user_watches").value["watches"] >= 300
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize(
    ("soft", "status"), [(1024, "note"), (256, "note"), (1025, "ok")], ids=lambda value: str(value)
)
def test_a_low_fd_limit_is_reported(soft: int, status: str) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, limits[1]))
    try:
        finding = examined("RLIMIT_NOFILE")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert finding.status == status
    assert finding.text.startswith(f"{soft}, which this process may raise to ")
    assert ("ulimit -n" in finding.advice) == (status == "note")


def test_a_low_hard_fd_limit_is_reported() -> None:
    printed = run(
        """
        import resource
        from pyepoll import doctor
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
        print(next(finding for finding in doctor.check().findings if finding.name == "RLIMIT_NOFILE"))
        """
    )
    assert "status='note', text='512; " in printed
    assert "LimitNOFILE=" in printed
    assert "ulimit -n" not in printed


def test_fds_in_use_are_reported() -> None:
    printed = run(
        """
        import os, resource
        from pyepoll import doctor
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (2000, hard))
        fds = [os.dup(0) for _ in range(1700)]
        print(next(finding for finding in doctor.check().findings if finding.name == "RLIMIT_NOFILE"))
        """
    )
    assert "status='note'" in printed


def test_a_check_without_a_free_fd_names_the_reason() -> None:
    """Then an epoll cannot be made, and the report says why."""
    printed = run(
        """
        import os, resource
        from pyepoll import doctor
        doctor.check()
        resource.setrlimit(resource.RLIMIT_NOFILE, (30, 100))
        try:
            while True:
                os.dup(0)
        except OSError:
            pass
        report = doctor.check()
        assert not report.ok()
        print(report.format())
        """
    )
    assert re.search(rf"fails epoll .*{os.strerror(errno.EMFILE)}", printed)
    assert "no fd is left: see RLIMIT_NOFILE" in printed
    assert printed.strip().endswith("pyepoll cannot work here: see epoll.")


# Packages in the process.


@pytest.mark.parametrize(
    ("free", "enabled", "status", "text"),
    [
        (0, None, "ok", "on; released during a wait"),
        (0, True, "ok", "on; released during a wait"),
        (1, False, "ok", "off: a free-threaded build"),
        (1, True, "note", "on, in a free-threaded build"),
    ],
)
def test_the_state_of_the_gil_is_reported(
    free: int, enabled: bool | None, status: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", {"Py_GIL_DISABLED": free}.get)
    if enabled is None:
        monkeypatch.delattr(sys, "_is_gil_enabled", raising=False)
    else:
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda: enabled, raising=False)
    found_status, found_text, _, value = doctor._gil()
    assert (found_status, found_text) == (status, text)
    assert value == {"free_threaded_build": bool(free), "enabled": enabled is not False}


STAND_INS: dict[str, tuple[str, str]] = {
    "gevent": ("gevent.monkey", "is_module_patched"),
    "eventlet": ("eventlet.patcher", "is_monkey_patched"),
}


@pytest.mark.parametrize("name", STAND_INS)
@pytest.mark.parametrize("patched", [None, "select", "socket"])
def test_patching_packages_are_reported(
    name: str, patched: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins of the two: imported is not patched."""
    module, function = STAND_INS[name]
    stand_in: Any = types.ModuleType(module)
    setattr(stand_in, function, lambda what: what == patched)
    monkeypatch.setitem(sys.modules, module, stand_in)
    finding = examined("green threads")
    assert finding.value == ([name] if patched else [])
    assert finding.status == ("note" if patched else "ok")
    assert (name in finding.text.split(" has patched")[0]) or not patched


PATCHES = {
    "gevent": "import gevent.monkey; gevent.monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


@pytest.mark.parametrize("name", PATCHES)
def test_patching_by_gevent_and_eventlet_is_reported(name: str) -> None:
    pytest.importorskip(name)
    prelude = f"import warnings; warnings.simplefilter('ignore'); {PATCHES[name]}"
    done = python("doctor", "--json", prelude=prelude)
    assert done.returncode == 0, done.stderr
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["green threads"]["value"] == [name]


def test_the_default_loop_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = examined("asyncio")
    assert "asyncio.unix_events._UnixSelectorEventLoop on selectors.EpollSelector" in stock.text
    assert "pyepoll.aio.run(main()) runs on pyepoll" in stock.text
    monkeypatch.setattr(asyncio, "new_event_loop", aio.new_event_loop)
    ours = examined("asyncio")
    assert ours.text == "the default loop is pyepoll.aio.EventLoop on pyepoll.aio.LoopSelector"


def test_a_failing_event_loop_policy_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a policy raises."""

    def broken() -> asyncio.AbstractEventLoop:
        raise ZeroDivisionError("a policy")

    monkeypatch.setattr(asyncio, "new_event_loop", broken)
    report = doctor.check()
    text = found(report, "asyncio").text
    assert text == "no default loop can be made: ZeroDivisionError: a policy"
    assert report.ok()


def broken_transport(self: Any, sock: socket.socket, protocol: Any, waiter: Any, *, unknown: Any) -> Any:
    raise AssertionError("no call has these arguments")


def useless_transport(self: Any, sock: socket.socket, protocol: Any, waiter: Any = None, **more: Any) -> Any:
    """Connected, and never heard of again."""
    transport = asyncio.Transport()
    protocol.connection_made(transport)
    waiter.set_result(None)
    return transport


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (broken_transport, "TypeError: broken_transport\\(\\) "),
        (useless_transport, "NotImplementedError: "),
    ],
)
def test_a_loop_without_connections_is_reported(
    monkeypatch: pytest.MonkeyPatch, make: Any, says: str
) -> None:
    """As with a CPython that passes arguments which this package does not know."""
    monkeypatch.setattr(aio.EventLoop, "_make_socket_transport", make)
    report = doctor.check()
    finding = found(report, "asyncio")
    assert finding.status == "fails"
    assert re.match(f"pyepoll.aio cannot make a connection: {says}", finding.text)
    assert finding.advice
    assert finding.value["connects"] is False
    assert not report.ok()


def test_a_silent_connection_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not hang."""
    monkeypatch.setattr(aio.SocketTransport, "write", lambda self, data: None)
    finding = examined("asyncio")
    assert finding.status == "fails"
    assert "b'' arrives" in finding.text


def test_the_connection_is_checked_within_a_running_loop() -> None:
    async def main() -> doctor.Finding:
        return examined("asyncio")

    for runs in asyncio.run, aio.run:
        finding = runs(main())
        assert (finding.status, finding.value["connects"]) == ("ok", True)


def test_a_denied_connection_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """A denial by a sandbox is a note: nothing is wrong with the package."""

    def denied(*args: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(socket, "socketpair", denied)
    report = doctor.check()
    assert found(report, "asyncio").status == "note"
    assert report.ok()


# The extra.

WITHOUT = """
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {names} else find(name, package)
sys.meta_path.insert(0, Missing())
"""


@pytest.mark.parametrize("names", [["psutil"], ["rich"], ["psutil", "rich"]], ids=" ".join)
def test_a_missing_extra_is_a_note(names: list[str]) -> None:
    """doctor does not need it, and names the parts that ps lacks; so does ps."""
    prelude = WITHOUT.format(names=names)
    done = python("doctor", prelude=prelude)
    assert (done.returncode, done.stderr) == (0, "")
    names = [name for name in _extra.NAMES if name in {*names, *_extra.missing()}]
    assert re.search(rf"^note  ps +needs {' and '.join(names)}$", done.stdout, re.MULTILINE)
    for arguments in ("ps",), ("ps", str(os.getpid())), ("ps", "--json"), ("ps", "--watch"):
        lacking = python(*arguments, prelude=prelude)
        assert (lacking.returncode, lacking.stdout) == (1, "")
        assert lacking.stderr.startswith(f"python -m pyepoll: ps needs {' and '.join(names)}: ")
        for text in (done.stdout, lacking.stderr):
            assert "pip install 'PATH[cli]'" in text
            assert "pip install psutil rich" in text
            assert not re.search(r"install\s+(-\S+\s+)*pyepoll\b", text)


def test_the_extra_names_the_same_packages_everywhere() -> None:
    """The names here, of the extra and of the group that the tests are run with are the same."""
    tomllib = pytest.importorskip("tomllib")
    path = os.path.join(os.path.dirname(__file__), "..", "..", "pyproject.toml")
    with open(path, "rb") as file:
        project = tomllib.load(file)
    cli = project["project"]["optional-dependencies"]["cli"]
    assert tuple(re.split(r"\W", wanted)[0] for wanted in cli) == _extra.NAMES
    assert all(wanted in project["dependency-groups"]["test"] for wanted in cli)
    assert project["project"]["dependencies"] == []


# The command line.


@pytest.mark.parametrize(
    ("arguments", "status", "out", "err"),
    [
        ((), 2, "usage: python -m pyepoll", ""),
        (("--help",), 0, "doctor", ""),
        (("doctor", "--help"), 0, "1 when it cannot", ""),
        (("ps", "--help"), 0, "A STALE entry is one", ""),
        (("--version",), 0, f"pyepoll {pyepoll.__version__}", ""),
        (("nonsense",), 2, "", "invalid choice"),
        (("doctor", "1"), 2, "", "unrecognized arguments"),
        (("ps", "x"), 2, "", "invalid PID: 'x': must be 1 to 2147483647"),
        (("ps", "0"), 2, "", "invalid PID: '0'"),
        (("ps", "--count", "0"), 2, "", "invalid count: '0': must be 1 to 2147483647"),
        (("ps", "--interval", "0"), 2, "", "invalid time: '0': must be 0.05 to 86400 seconds"),
        (("ps", "--interval", "nan"), 2, "", "invalid time: 'nan'"),
        (("ps", "--interval", "inf"), 2, "", "invalid time: 'inf'"),
        (("ps", "--interval", "soon"), 2, "", "invalid time: 'soon'"),
        (("ps", "--interval", "1"), 2, "", "--interval and --count are for --watch"),
        (("ps", "1", "--count", "2"), 2, "", "--interval and --count are for --watch"),
        (("ps", "²"), 2, "", "invalid PID: '²'"),
        (("ps", str(2**70)), 2, "", "invalid PID"),
    ],
)
def test_arguments_select_output_and_exit_status(
    arguments: tuple[str, ...], status: int, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        returned = main(arguments)
    except SystemExit as ended:
        returned = int(ended.code or 0)
    printed, complained = capsys.readouterr()
    assert returned == status
    assert out in printed
    assert bool(printed) == bool(out)
    assert err in complained
    assert bool(complained) == bool(err)


def test_an_unusable_command_line_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call: Callable[[], int] = lambda: main(["doctor"])  # noqa: E731
    assert denied(call, errno.EPERM, "epoll_create1") == 1
    assert "fails epoll" in capsys.readouterr().out
    call = lambda: main(["doctor", "--json"])  # noqa: E731
    assert denied(call, errno.EPERM, "epoll_ctl") == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_every_public_name_has_a_docstring() -> None:
    for name in doctor.__all__:
        assert getattr(doctor, name).__doc__, name
