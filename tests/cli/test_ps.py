"""``python -m pyepoll ps``: its report on live processes, on a terminal, in a pipe and as JSON."""

import contextlib
import errno
import fcntl
import itertools
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.guard import started
from support.kernel import instance_fd
from support.processes import run
from support.procfs import NOBODY, SERVER, STALE, as_root, child, needs_kcmp
from support.threads import until

import pyepoll
from pyepoll import Event

ps: Any = pytest.importorskip("pyepoll._cli.ps", exc_type=ImportError)
screen: Any = pytest.importorskip("pyepoll._cli.screen", exc_type=ImportError)
psutil: Any = pytest.importorskip("psutil")

COMMAND = [sys.executable, "-P", "-W", "error", "-m", "pyepoll"]

MANY = """
    import os, select, sys
    ep = select.epoll()
    for _ in range(100):
        ep.register(os.eventfd(0), select.EPOLLIN)
    print(flush=True)
    sys.stdin.read()
"""

CHANGING = """
    import os, select, sys, time
    ep, fds = select.epoll(), [os.eventfd(0) for _ in range(8)]
    for fd in fds[4:]:
        ep.register(fd, select.EPOLLIN)
    print(flush=True)
    for line in sys.stdin:
        for fd in fds[:4]:
            ep.register(fd, select.EPOLLIN)
        for fd in fds[4:6]:
            ep.unregister(fd)
        ep.modify(fds[7], select.EPOLLOUT)
        print(flush=True)
"""


def environment(**more: str) -> dict[str, str]:
    unset = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TERM")
    return {
        **{name: value for name, value in os.environ.items() if name not in unset},
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TERM": "xterm-256color",
        **more,
    }


def pyepoll_ps(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """``python -m pyepoll ps`` to its end, with stdout as a pipe."""
    return subprocess.run(
        [*COMMAND, "ps", *map(str, arguments)],
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding=more.get("PYTHONIOENCODING", "utf-8"),
        timeout=60,
    )


class Terminal:
    """A pseudo-terminal with a program on it."""

    def __init__(
        self, command: list[str], *arguments: object, columns: int = 100, lines: int = 24, **more: str
    ) -> None:
        self.master, slave = os.openpty()
        self.output = ""
        self.before = termios.tcgetattr(slave)
        self.resize(columns, lines)
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            env=environment(**more),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        self.slave = slave

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def read(self) -> str:
        """The text since the last call, without control sequences; all of it is in ``output``."""
        new = ""
        while select.select([self.master], [], [], 0)[0]:
            new += os.read(self.master, 65536).decode()
        self.output += new
        return plain(new)

    def until(self, pattern: str) -> str:
        """The text up to and with the pattern."""
        seen = ""

        def found() -> bool:
            nonlocal seen
            seen += self.read()
            return re.search(pattern, seen) is not None

        try:
            until(found, 20)
        except AssertionError:
            raise AssertionError(f"{pattern!r} is not in {seen!r}") from None
        return seen

    def end(self) -> int:
        """Wait until the program has ended; its exit status."""
        until(lambda: self.read() == "" and self.process.poll() is not None, 20)
        self.read()
        return self.process.wait()

    def restored(self) -> bool:
        """Whether the terminal is as it was: echo, lines, the cursor, the main screen."""
        last = dict(re.findall(r"\x1b\[\?(1049|25)([hl])", self.output))
        return last.get("1049", "l") == "l" and last.get("25", "h") == "h" and self.cooked()

    def cooked(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text)


@contextlib.contextmanager
def terminal(*arguments: object, command: list[str] = COMMAND, **more: Any) -> Iterator[Terminal]:
    made = Terminal(command, *arguments, **more)
    try:
        yield made
    finally:
        made.close()


# A table.


@needs_kcmp
def test_one_process_is_shown_with_its_registrations() -> None:
    with child(STALE) as process:
        done = pyepoll_ps(process.pid)
    assert (done.returncode, done.stderr) == (0, "")
    first, command, header, *rows = done.stdout.splitlines()
    assert first.startswith(f"process {process.pid} python")
    assert first.endswith(": 1 epoll, 2 fds watched, 1 stale")
    assert command.startswith(f"{sys.executable} -P -W error -c ")
    assert header.split() == ["EPOLL", "FD", "EVENTS", "DATA", "WHAT"]
    stale_row, live = rows
    assert re.fullmatch(
        r" +\d+ +(\d+)  IN +0x[0-9a-f]+  STALE: eventfd, count 0, open as fd \d+; fd \1 is closed", stale_row
    )
    assert re.fullmatch(r" +\d+ +\d+  IN +0x[0-9a-f]+  eventfd, count 0", live)


def test_all_processes_are_listed_with_their_counts() -> None:
    with child(STALE) as stale_child, child(MANY) as many:
        done = pyepoll_ps()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    rows = {fields[0]: fields[1:5] for fields in (line.split() for line in lines) if fields[0].isdecimal()}
    user = pyepoll._fdinfo.user_name(os.getuid())
    assert rows[str(stale_child.pid)] == [user, "1", "2", "1"]
    assert rows[str(many.pid)] == [user, "1", "100", "0"]
    assert any(line.split() == ["PID", "USER", "EPOLLS", "FDS", "STALE", "COMMAND"] for line in lines)


def rows_of(ep: pyepoll.Epoll[Any]) -> list[tuple[str, ...]]:
    """The rows of an epoll of this process."""
    page = next(ps.one(os.getpid()))
    return [row for row in page.rows if row[0] == str(instance_fd(ep))]


def test_each_cell_shows_masks_files_and_data(ep: pyepoll.Epoll[Any], eventfd: Callable[..., int]) -> None:
    masks = {
        0: "ERR|HUP",
        Event.IN: "IN",
        Event.IN | Event.ERR: "IN",
        Event.ET: "ERR|HUP|ET",
        Event.OUT | Event.EXCLUSIVE: "OUT|EXCLUSIVE",
        Event.IN | Event.ONESHOT | Event.ET: "IN|ONESHOT|ET",
    }
    for mask in masks:
        ep.register(eventfd(), mask)
    disarmed = eventfd(1)
    ep.register(disarmed, Event.IN | Event.ONESHOT)
    ep.poll(0)
    rows = rows_of(ep)
    assert [row[1] for row in rows] == sorted((row[1] for row in rows), key=int), "in order"
    assert [set(row[2].split("|")) for row in rows[:-1]] == [set(text.split("|")) for text in masks.values()]
    assert rows[-1][2] == "ONESHOT (disarmed)"
    assert all(int(row[3], 16) & 0xFFFFFFFF == int(row[1]) for row in rows)


@needs_kcmp
def test_empty_epolls_and_duplicates_are_shown(ep: pyepoll.Epoll[Any]) -> None:
    assert [row[1:] for row in rows_of(ep)] == [("", "", "", "watches nothing")]
    fd = os.eventfd(0)
    ep.register(fd)
    copy = os.dup(instance_fd(ep))
    page = next(ps.one(os.getpid()))
    assert (str(copy), "", "", "", f"is epoll {instance_fd(ep)} once more") in page.rows
    own = [each for each in page.document["epolls"] if each["same_as"] is None]
    assert f"{len(own)} epoll" in page.heading[0], "it counts once"
    assert f"{sum(len(each['watched']) for each in own)} fd" in page.heading[0]
    os.close(copy)
    os.close(fd)


@needs_kcmp
def test_stale_registrations_come_first_with_their_holders(ep: pyepoll.Epoll[Any]) -> None:
    live, gone = os.pipe()
    ep.register(live, Event.IN)
    ep.register(gone, Event.OUT)
    copies = [os.dup(gone) for _ in range(5)]
    os.dup2(live, gone)
    [first, second] = rows_of(ep)
    assert (first[1], second[1]) == (str(gone), str(live))
    where = " and ".join(f"fd {copy}" for copy in copies[:3])
    assert first[4] == f"STALE: pipe, write end, open as {where} and 2 more; fd {gone} is now pipe, read end"
    page = next(ps.one(os.getpid()))
    assert [row for row, alarm in zip(page.rows, page.alarming, strict=True) if alarm] == [first]
    for fd in (live, gone, *copies):
        os.close(fd)


@needs_kcmp
def test_many_stale_entries_do_not_take_forever(ep: pyepoll.Epoll[Any]) -> None:
    """Each is looked for in all processes, so only the first few."""
    kept = []
    for _ in range(100):
        fd = os.eventfd(0)
        ep.register(fd)
        kept.append(os.dup(fd))
        os.close(fd)
        os.dup2(kept[0], fd)
    rows = rows_of(ep)
    assert sum("open as" in row[4] for row in rows) == 32
    assert all(row[4].startswith("STALE: ") for row in rows[:99])
    for row in rows:
        with contextlib.suppress(OSError):
            os.close(int(row[1]))
    for fd in kept:
        with contextlib.suppress(OSError):
            os.close(fd)


# JSON.


@needs_kcmp
def test_json_shows_one_process() -> None:
    with child(STALE) as process:
        done = pyepoll_ps(process.pid, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document.keys() == {"pid", "name", "user", "command", "epolls"}
    assert document["pid"] == process.pid
    [epoll] = document["epolls"]
    stale_row, live = epoll["watched"]
    assert stale_row.pop("data").startswith("0x")
    assert live["file"] == {"kind": "eventfd", "text": "eventfd, count 0", "socket": None}
    number = stale_row["fd"]
    assert stale_row == {
        "fd": number,
        "events": ["IN", "ERR", "HUP"],
        "mask": 0x19,
        "disarmed": False,
        "stale": True,
        "file": None,
        "holders": [{"pid": process.pid, "fd": number + 2}],
    }
    assert (live["stale"], live["holders"]) == (False, None)


def test_json_shows_the_sockets_of_a_server() -> None:
    with child(SERVER) as process:
        document = json.loads(pyepoll_ps(process.pid, "--json").stdout)
    sockets = [watched["file"]["socket"] for watched in document["epolls"][0]["watched"]]
    [server] = [each for each in sockets if each["state"] == "LISTEN"]
    assert server["protocol"] == "tcp"
    assert server["local"].startswith("127.0.0.1:")
    assert server["remote"] == ""


def test_json_shows_all_processes() -> None:
    with child(STALE) as process:
        done = pyepoll_ps("--json")
    document = json.loads(done.stdout)
    assert document.keys() == {"processes", "refused"}
    [found] = [each for each in document["processes"] if each["pid"] == process.pid]
    [epoll] = found["epolls"]
    assert (epoll["watched"], epoll["stale"], epoll["same_as"]) == (2, 1, None)


# Errors.


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """A failure says one thing, on stderr."""
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("python -m pyepoll: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("options", [(), ("--watch", "--json")], ids=" ".join)
def test_a_missing_process_is_an_error(options: tuple[str, ...]) -> None:
    assert "no process 4194305" in complaint(pyepoll_ps(2**22 + 1, *options))


@pytest.mark.parametrize("options", [("--json",), ("--watch",)], ids=" ".join)
def test_a_process_without_epoll_is_an_error(options: tuple[str, ...]) -> None:
    with child("import sys; print(flush=True); sys.stdin.read()") as process:
        assert re.search(
            rf"process {process.pid} \(python.*\) has no epoll open$",
            complaint(pyepoll_ps(process.pid, *options)),
        )


def test_an_epoll_shared_with_a_child_is_shown() -> None:
    """As a prefork server has them."""
    program = """
        import os, select, sys
        pid = os.fork()
        if pid == 0:
            ep = select.epoll()
            print(os.getpid(), flush=True)
        sys.stdin.read()
    """
    with child(program) as process:
        assert re.search(r"has no epoll open; its descendants have: \d+$", complaint(pyepoll_ps(process.pid)))


@as_root
def test_another_users_process_is_an_error() -> None:
    """The command's own code, by a user without privileges."""
    with child(STALE) as process:
        printed = run(
            f"""
            import contextlib, io, os
            from pyepoll._cli import ps, screen
            from pyepoll._cli.main import main
            main(["ps", "{process.pid}"])
            os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
            with contextlib.redirect_stderr(io.StringIO()) as complaint:
                assert main(["ps", "{process.pid}"]) == 1
            print("complaint:", complaint.getvalue())
            assert main(["ps"]) == 0
            """
        )
    assert "\nno process that may be looked into has an epoll open\n" in printed
    assert (
        f"complaint: python -m pyepoll: not permitted to look into process {process.pid} of user root"
        in printed
    )
    assert re.search(r"^not permitted to look into \d+ other processes$", printed, re.MULTILINE)


def test_a_watch_ends_with_its_process() -> None:
    """The look that finds the process gone is the last one, and says so."""
    with child(STALE) as process:
        with started(
            [*COMMAND, "ps", str(process.pid), "--watch", "--interval", "0.05"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as watching:
            assert watching.stdout
            watching.stdout.readline()
            process.kill()
            process.wait()
            _, errors = watching.communicate(timeout=30)
    assert watching.returncode == 1
    assert re.search(
        rf"process {process.pid}( .*)? (has ended|has no epoll open)|no process {process.pid}", errors
    )


def test_a_reused_pid_ends_a_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pid comes back between two looks: the rates would be nonsense."""
    started = iter([1.0, 2.0])
    counters = ps._counters

    def reborn(pid: int) -> Any:
        return {pid: counters(pid)[pid]._replace(started=next(started))}

    monkeypatch.setattr(ps, "_counters", reborn)
    with pyepoll.Epoll[Any]():
        pages = ps.one(os.getpid())
        next(pages)
        with pytest.raises(ProcessLookupError, match="has ended; another has its PID now") as caught:
            next(pages)
    assert caught.value.errno == errno.ESRCH


# Output.


@pytest.mark.parametrize("arguments", [("ps",), ("ps", "--json"), ("doctor",)], ids=" ".join)
def test_a_closed_pipe_ends_the_command_quietly(arguments: tuple[str, ...]) -> None:
    """As of `| head -1`: no traceback, and the exit that shells know from others."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, *arguments], env=environment(), stdout=write, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == -signal.SIGPIPE


def test_a_closed_pipe_ends_a_watch_quietly() -> None:
    with (
        child(STALE) as process,
        started(
            [*COMMAND, "ps", str(process.pid), "--watch", "--interval", "0.05"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as watching,
    ):
        assert watching.stdout
        assert watching.stderr
        watching.stdout.readline()
        watching.stdout.close()
        assert watching.wait(30) == -signal.SIGPIPE
        assert watching.stderr.read() == ""


def test_nothing_is_cut_in_a_pipe(tmp_path: Any) -> None:
    """Nor coloured, nor padded, whatever COLUMNS says."""
    long = "x" * 300
    with child(STALE, long) as process:
        done = pyepoll_ps(process.pid, COLUMNS="40")
    assert long in done.stdout
    assert "\x1b" not in done.stdout
    assert all(line == line.rstrip() for line in done.stdout.splitlines())


HOSTILE = """
    import os, select, sys
    os.mkfifo("a\\x1b[31m [bold]\\n\\udcff ü")
    ep, fd = select.epoll(), os.open("a\\x1b[31m [bold]\\n\\udcff ü", os.O_RDWR)
    ep.register(fd)
    open("/proc/self/comm", "wb").write(b"\\x1b]0;t\\x07[red]\\xff")
    print(flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_cannot_harm_the_terminal(encoding: str, tmp_path: Any) -> None:
    """Names with control characters, with markup and in no encoding are shown as such."""
    with child(HOSTILE, cwd=tmp_path) as process:
        for arguments in ((), (process.pid,)):
            done = pyepoll_ps(*arguments, PYTHONIOENCODING=encoding)
            assert (done.returncode, done.stderr) == (0, ""), done
            assert "\x1b" not in done.stdout
            assert "\x07" not in done.stdout
        assert r"fifo " in done.stdout
        assert r"a\x1b[31m [bold]\x0a" in done.stdout or r"a\x1b[31m [bold]\n" in done.stdout
        assert r"\x1b]0;t\x07[red]" in done.stdout
        document = json.loads(pyepoll_ps(process.pid, "--json", PYTHONIOENCODING=encoding).stdout)
        assert "a\x1b[31m [bold]" in document["epolls"][0]["watched"][0]["file"]["text"]


def test_colours_mark_stale_registrations_on_a_terminal() -> None:
    """Red for stale registrations, on a terminal; none with NO_COLOR, none on a dumb one."""
    with child(STALE) as process:
        for name, value, red in (("A", "", True), ("NO_COLOR", "1", False), ("TERM", "dumb", False)):
            more: dict[str, Any] = {name: value}
            with terminal("ps", process.pid, **more) as shown:
                assert shown.end() == 0
                assert "STALE" in plain(shown.output)
                assert ("31m" in shown.output) is red, name
                assert not re.search(r"\x1b\[\?1049", shown.output)


@pytest.mark.parametrize("columns", [1, 30, 60, 90])
def test_narrow_terminals_lose_no_text(columns: int) -> None:
    """Long lines are folded, none is longer than the terminal, and nothing of the last column is lost."""
    with child(STALE) as process, terminal("ps", process.pid, columns=columns) as shown:
        assert shown.end() == 0
        lines = plain(shown.output).splitlines()
        if columns >= 10:
            assert max(map(len, lines)) <= columns
        assert ("DATA" in plain(shown.output)) == (columns >= 90)
        if columns >= 60:
            assert "is closed" in " ".join(plain(shown.output).split())


def test_a_report_fits_the_terminal() -> None:
    with terminal("doctor", columns=60, lines=40) as shown:
        assert shown.end() == 0
        assert max(map(len, plain(shown.output).splitlines())) <= 60


# Watching.


def test_rates_are_changes_per_second() -> None:
    """The changes between two looks, per second."""
    with child(CHANGING) as process:
        assert process.stdin
        assert process.stdout
        pages = ps.one(process.pid)
        first = next(pages)
        start = time.monotonic()
        assert "rates" not in first.document
        assert not any(re.search(r"\d \w+/s\b", line) for line in first.heading)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        time.sleep(0.2)
        second = next(pages)
        elapsed = time.monotonic() - start
        found = second.document["rates"]
        # The look itself takes a while.
        for name, count in {"registered": 4, "unregistered": 2, "modified": 1}.items():
            assert count / (elapsed + 0.2) <= found[name] <= count / 0.15, name
        assert found["sleeps"] > 0
        assert found["cpu_percent"] >= 0
        assert re.search(r"[\d.]+ registered/s, [\d.]+ unregistered/s, [\d.]+ modified/s", second.heading[-1])
        third = next(pages).document["rates"]
        assert third["registered"] == third["unregistered"] == third["modified"] == 0


def cpu_time(pid: int) -> float:
    """The seconds of a CPU that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def test_a_spinning_loop_shows_in_the_rates() -> None:
    """The effect of a stale entry on a loop of select.epoll."""
    program = """
        import os, select
        ep = select.epoll()
        gone = os.eventfd(1)
        ep.register(gone, select.EPOLLIN)
        kept = os.dup(gone)
        os.close(gone)
        print(flush=True)
        while True:
            ep.poll()
    """
    with child(program) as process:
        pages = ps.one(process.pid)
        outer = time.monotonic(), cpu_time(process.pid)
        next(pages)
        inner = time.monotonic(), cpu_time(process.pid)
        # On a busy machine it may get a small share of a CPU.
        while cpu_time(process.pid) - inner[1] < 0.3:
            time.sleep(0.05)
        least = (cpu_time(process.pid) - inner[1]) * 100
        shortest = time.monotonic() - inner[0]
        page = next(pages)
        most = (cpu_time(process.pid) - outer[1]) * 100
        longest = time.monotonic() - outer[0]
        # Two of the kernel's clock ticks, in percent of a second.
        rounding = 200 / os.sysconf("SC_CLK_TCK")
        percent = page.document["rates"]["cpu_percent"]
        assert (least - rounding) / longest <= percent <= (most + rounding) / shortest
        assert re.search(r"[\d.]+ % CPU", page.heading[2])
        assert "1 stale" in page.heading[0]


def test_rates_of_all_processes_are_shown() -> None:
    with child(CHANGING) as process:
        assert process.stdin
        assert process.stdout
        pages = ps.everything()
        next(pages)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        page = next(pages)
        [row] = [row for row in page.rows if row[0] == str(process.pid)]
        values = dict(zip((column.name for column in page.columns), row, strict=True))
        assert float(values["REG/S"]) == pytest.approx(2 * float(values["UNREG/S"]), abs=0.2)
        assert float(values["UNREG/S"]) > 0
        assert float(values["CPU%"]) >= 0


def test_a_new_process_has_no_rates_yet() -> None:
    pages = ps.everything()
    next(pages)
    with child(STALE) as process:
        [row] = [row for row in next(pages).rows if row[0] == str(process.pid)]
        assert row[2] == ""


@pytest.mark.parametrize("who", ["one", "all"])
def test_a_watch_in_a_pipe_prints_page_after_page(who: str) -> None:
    """The pages follow each other, so many as are asked for."""
    with child(STALE) as process:
        arguments = (process.pid,) if who == "one" else ()
        start = time.monotonic()
        done = pyepoll_ps(*arguments, "--watch", "--count", 3, "--interval", 0.3)
        assert time.monotonic() - start >= 0.6
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    pages = done.stdout.rstrip("\n").split("\n\n")
    assert len(pages) == 3
    assert all(str(process.pid) in page for page in pages)
    signs = "registered/s" if who == "one" else "UNREG/S"
    assert [signs in page for page in pages] == [False, True, True]


def test_a_watch_as_json_prints_one_line_per_look() -> None:
    """Each look is one line."""
    with child(STALE) as process:
        done = pyepoll_ps(process.pid, "--watch", "--count", 2, "--interval", 0.05, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = map(json.loads, done.stdout.splitlines())
    assert second.keys() - first.keys() == {"rates"}
    assert first["epolls"] == second["epolls"]


def test_an_interrupt_ends_a_watch_in_a_pipe() -> None:
    with (
        child(STALE) as process,
        started(
            [*COMMAND, "ps", str(process.pid), "--watch"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as watching,
    ):
        assert watching.stdout
        assert watching.stderr
        watching.stdout.readline()
        time.sleep(0.2)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0
        assert watching.stderr.read() == ""


def watch(process: subprocess.Popen[str], *options: object, **more: Any) -> Any:
    return terminal("ps", process.pid, "--watch", "--interval", 0.2, *options, **more)


def test_a_terminal_is_redrawn() -> None:
    with child(STALE) as process, watch(process) as shown:
        seen = shown.until("q quits")
        assert f"process {process.pid}" in seen
        shown.until(r"registered/s")
        assert "STALE" in plain(shown.output)
        assert "\x1b[?1049h" in shown.output, "on a screen of its own"
        assert not shown.cooked(), "a key needs no Enter"
        shown.type("q")
        assert shown.end() == 0
        assert shown.restored()


def test_a_limited_watch_on_a_terminal_ends() -> None:
    with child(STALE) as process, watch(process, "--count", 2) as shown:
        assert shown.end() == 0
        assert shown.restored()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(number: signal.Signals) -> None:
    with child(STALE) as process, watch(process) as shown:
        shown.until("q quits")
        shown.process.send_signal(number)
        assert shown.end() == (0 if number == signal.SIGINT else -number)
        assert shown.restored()


def test_an_error_leaves_the_terminal_as_it_was() -> None:
    with child(STALE) as process, watch(process) as shown:
        shown.until("q quits")
        process.kill()
        process.wait()
        assert shown.end() == 1
        assert re.search("python -m pyepoll: (no )?process", plain(shown.output))
        assert shown.restored()


def test_keys_scroll_through_long_lists() -> None:
    with child(MANY) as process, watch(process, lines=20) as shown:
        shown.until("1 to 16 of 100")
        shown.until("1 to 14 of 100")  # There are two lines with rates now.
        for keys, first in (
            ("\x1b[B", 2),
            ("j\x1bOB", 4),
            ("k", 3),
            ("\x1b[6~", 17),
            (" ", 31),
            ("\x1b[5~", 17),
            ("b", 3),
            ("\x1b[A\x1b[A\x1b[A\x1b[A", 1),
            ("G", 87),
            ("\x1b[6~", 87),
            ("g", 1),
            ("\x1b[F", 87),
            ("\x1b[H", 1),
            ("?\x1b[Z\x1b", 1),
        ):
            shown.type(keys)
            shown.until(rf"(?<!\d){first} to {first + 13} of 100")
        shown.type("q")
        assert shown.end() == 0


def test_a_signal_before_the_sleep_ends_a_watch() -> None:
    """As one that comes just before the sleep; here it goes to another thread."""
    program = """
        import signal, sys, threading
        from pyepoll._cli.main import main
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        sys.exit(main(sys.argv[1:]))
    """
    command = [sys.executable, "-P", "-W", "error", "-c", textwrap.dedent(program)]
    options = ("--watch", "--interval", 600)
    with child(STALE) as process, terminal("ps", process.pid, *options, command=command) as shown:
        shown.until("q quits")
        shown.process.send_signal(signal.SIGINT)
        assert shown.end() == 0
        assert shown.restored()


def test_a_resized_terminal_is_redrawn() -> None:
    with child(MANY) as process, terminal("ps", process.pid, "--watch", "--interval", 600, lines=20) as shown:
        shown.until("1 to 16 of 100")
        shown.resize(70, 40)
        shown.process.send_signal(signal.SIGWINCH)
        shown.until("1 to 36 of 100")
        for columns, lines in ((1, 1), (20, 3), (300, 150)):
            shown.resize(columns, lines)
            shown.process.send_signal(signal.SIGWINCH)
            time.sleep(0.3)
        shown.until(r"1 to 100 of 100")
        shown.type("q")
        assert shown.end() == 0


def test_a_watch_can_be_stopped_and_continued() -> None:
    """The shell gets its terminal back, until fg."""
    with child(STALE) as process, watch(process) as shown:
        shown.until("q quits")
        shown.process.send_signal(signal.SIGTSTP)
        until(lambda: os.waitpid(shown.process.pid, os.WUNTRACED | os.WNOHANG)[0] != 0)
        shown.read()
        assert shown.restored()
        shown.process.send_signal(signal.SIGCONT)
        shown.until("q quits")
        assert not shown.cooked()
        shown.type("q")
        assert shown.end() == 0
        assert shown.restored()


def drained(fd: int) -> bool:
    """Read the available output, so that the writer goes on; whether there was none."""
    return not select.select([fd], [], [], 0)[0] or not os.read(fd, 65536)


def test_watch_without_a_terminal_on_stdin_ends_by_signal() -> None:
    """stdin is no terminal: a signal ends it."""
    with child(STALE) as process:
        master, slave = os.openpty()
        with started(
            [*COMMAND, "ps", str(process.pid), "--watch", "--interval", "0.1"],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
        ) as watching:
            until(lambda: b"q quits" in os.read(master, 65536), 20)
            watching.send_signal(signal.SIGINT)
            until(lambda: drained(master) and watching.poll() is not None, 20)
            assert watching.wait(20) == 0
        os.close(master)
        os.close(slave)


def test_a_dumb_terminal_is_not_redrawn() -> None:
    with child(STALE) as process, watch(process, "--count", 2, TERM="dumb") as shown:
        assert shown.end() == 0
        assert "\x1b" not in shown.output
        assert shown.output.count(f"process {process.pid}") == 2


def test_slow_looks_are_not_made_up_for() -> None:
    """Looks that take longer than the interval follow each other, and are not made up for."""
    looks: list[float] = []
    page = next(ps.everything())

    def slow() -> Iterator[Any]:
        while True:
            looks.append(time.monotonic())
            time.sleep(0.35 if len(looks) == 2 else 0)
            yield page

    with contextlib.redirect_stdout(None):
        screen._repeat(slow(), 0.1, 5, lambda page: None)
    gaps = [later - earlier for earlier, later in itertools.pairwise(looks)]
    assert min(gaps) > 0.05
