"""Every example runs as it is, serves real clients, stops on a signal, and complains of nothing."""

import ast
import contextlib
import errno
import functools
import hashlib
import itertools
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.seccomp import OPEN

import pyepoll
from pyepoll import Event

EXAMPLES = Path(__file__).parents[2] / "examples"
DEADLINE = 30.0
"""Seconds that a child may live, and that any one step may take."""
ROUNDS = ("--rounds", "100")
SERVERS = {
    "echo_server": (),
    "chat_server": (),
    "wake_from_thread": ROUNDS,
    "thread_pool": ROUNDS,
    "prefork": ("--workers", "2"),
}
MEBIBYTE = bytes(range(256)) * 4096

LIMIT = 256 << 20
"""More bytes than the buffers of a connection hold."""

every_server = pytest.mark.parametrize("name", SERVERS)


def words_of(error: int) -> bytes:
    """How this libc describes an error, as a regular expression."""
    return re.escape(os.strerror(error)).encode()


@dataclass
class Child:
    process: subprocess.Popen[bytes]
    port: int = 0
    output: bytes = b""
    """The output after the line with the port; there once it has ended."""
    errors: bytes = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def write(self, data: bytes) -> None:
        assert self.process.stdin
        os.write(self.process.stdin.fileno(), data)

    def read_line(self) -> bytes:
        assert self.process.stdout
        return self.process.stdout.readline()

    def end(self, status: int = 0, errors: bytes = rb"") -> None:
        """Wait until it has ended, of itself or because stdin is closed here, and check how."""
        out, err = self.process.communicate(timeout=DEADLINE)
        self.output += out
        self.errors += err
        assert re.fullmatch(errors, self.errors, re.DOTALL), self.errors.decode()
        assert self.process.returncode == status

    def stop(self, signum: int) -> None:
        self.process.send_signal(signum)
        self.process.wait(DEADLINE)
        self.end()


@contextlib.contextmanager
def example(
    name: str, *args: str, stdin: int = subprocess.PIPE, prelude: str = "", through: tuple[str, ...] = ()
) -> Iterator[Child]:
    """Run an example in a session of its own; kill it if it outlives the deadline or the test."""
    path = str(EXAMPLES / f"{name}.py")
    if prelude:
        code = (
            f"import runpy, sys\n{prelude}\nsys.argv.pop(0)\nrunpy.run_path(sys.argv[0], run_name='__main__')"
        )
        start = ["-P", "-c", code, path]
    else:
        start = [path]
    package = str(Path(pyepoll.__file__).parent.parent)
    process = subprocess.Popen(
        [*through, sys.executable, "-X", "dev", "-W", "error", *start, *args],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": package},
    )

    expired = threading.Event()

    def kill() -> None:
        """End the whole session; not after the leader was reaped, when its pid may be reused."""
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)

    def expire() -> None:
        expired.set()
        kill()

    timer = threading.Timer(DEADLINE, expire)
    timer.start()
    try:
        yield Child(process)
        assert not expired.is_set()
    except BaseException:
        kill()
        _, errors = process.communicate()
        sys.stderr.write(errors.decode())  # for the report of the test that failed
        raise
    finally:
        timer.cancel()
        timer.join()
        kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()


@contextlib.contextmanager
def server(name: str, *args: str, prelude: str = "") -> Iterator[Child]:
    """Run a server; when the block is left, end its stdin if it still runs, and check how it ends."""
    with example(name, *(args or SERVERS[name]), prelude=prelude) as child:
        listening(child)
        yield child
        if child.process.returncode is None:
            child.end()


def listening(child: Child) -> None:
    line = child.read_line()
    match = re.fullmatch(rb"listening on 127\.0\.0\.1:(\d+)\n", line)
    assert match, line
    child.port = int(match[1])


class Client:
    """A connection with a deadline for everything."""

    def __init__(self, port: int, receive_buffer: int = 0) -> None:
        self.buffer = bytearray()
        self.sock = socket.socket()
        self.sock.settimeout(DEADLINE)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.sock.connect(("127.0.0.1", port))
        except OSError:
            self.sock.close()
            raise

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_until_blocked(self, pattern: bytes, limit: int) -> int:
        """Repeat the pattern until the peer has not taken more for some time; return how much it took."""
        view = memoryview(pattern * (65536 // len(pattern) + 1))
        sent = 0
        self.sock.settimeout(0.7)
        with contextlib.suppress(TimeoutError):
            while sent < limit:
                sent += self.sock.send(view[sent % len(pattern) :])
        self.sock.settimeout(DEADLINE)
        return sent

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def receive(self) -> bool:
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def line(self) -> bytes:
        """Receive one line; less at the end."""
        while b"\n" not in self.buffer and self.receive():
            pass
        line, newline, rest = self.buffer.partition(b"\n")
        self.buffer = rest
        return bytes(line + newline)

    def rest(self) -> bytes:
        """Receive until the end."""
        while self.receive():
            pass
        return bytes(self.buffer)

    def silent(self, seconds: float) -> bool:
        """Return True if nothing comes for some time, the end included."""
        if self.buffer:
            return False
        self.sock.settimeout(seconds)
        try:
            self.receive()
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(DEADLINE)
        return False

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


@contextlib.contextmanager
def clients(child: Child, count: int, receive_buffer: int = 0) -> Iterator[list[Client]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(contextlib.closing(Client(child.port, receive_buffer))) for _ in range(count)
        ]


def digest(line: bytes) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", line, b"pyepoll", 100).hex().encode() + b"\n"


def asks(name: str, client: Client, text: bytes) -> None:
    """Send a line that a server answers to its sender alone."""
    if name == "prefork":
        assert re.fullmatch(rb"worker \d+\n", client.line())
    client.send(text + b"\n")


def is_answered(name: str, client: Client, text: bytes) -> None:
    answer = digest(text) if name in ("wake_from_thread", "thread_pool") else text + b"\n"
    assert client.line() == answer


def converse(name: str, child: Child) -> None:
    """Have one exchange on connections of its own."""
    if name == "chat_server":
        with clients(child, 2) as members:
            meet(members)
    else:
        with clients(child, 1) as (client,):
            asks(name, client, b"converse")
            is_answered(name, client, b"converse")


def meet(members: list[Client]) -> None:
    """Let all members of a chat hear the last one to connect, who speaks when all have been accepted."""
    members[-1].send(b"here\n")
    for member in members[:-1]:
        while not member.line().endswith(b": here\n"):
            pass


def eventually(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def watched(pid: int) -> dict[int, int]:
    """Return the kernel's registrations of a process: fd to mask, of all its epolls."""
    masks: dict[int, int] = {}
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            for fd, mask in re.findall(r"tfd:\s*(\d+) events:\s*([0-9a-f]+)", info.read_text()):
                masks[int(fd)] = int(mask, 16)
    return masks


def watches(pid: int, mask: int) -> int:
    """Return how many registrations have just this mask; ERR and HUP are always added by the kernel."""
    return list(watched(pid).values()).count(mask | Event.ERR | Event.HUP)


def keeps_watching(pid: int, mask: int) -> bool:
    """Tell permanent registrations from those that the kernel finds room for a little later."""
    for _ in range(20):
        if not watches(pid, mask):
            return False
        time.sleep(0.01)
    return True


def connections(pid: int) -> int:
    """Return how many sockets a server has open beside its listener."""
    count = -1
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(fd.readlink()).startswith("socket:")
    return count


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def states(pid: int) -> set[str]:
    """Return the states of the threads of a process, as in proc_pid_stat(5)."""
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.add((task / "stat").read_text().rpartition(")")[2].split()[0])
    return found


def rests(child: Child) -> None:
    """Check that neither the process nor its workers spin: a spinning process is runnable, also when busy."""
    busy = 0
    for _ in range(40):
        busy += any("R" in states(pid) for pid in {child.pid} | children(child.pid))
        time.sleep(0.015)
    assert busy < 20


def leave_descriptors(pid: int, count: int) -> None:
    """Let a process open so many more files, and no more."""
    used = {int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    free = (fd for fd in itertools.count() if fd not in used)
    limit = next(itertools.islice(free, count, None))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))


# Arguments that cannot work end every example with one line and status 2.


@pytest.mark.parametrize("name", [*SERVERS, "signals"])
@pytest.mark.parametrize("port", ["70000", "-1", "seven"])
def test_explains_an_invalid_port(name: str, port: str, tmp_path: Path) -> None:
    (tmp_path / "greeting").write_text("hello\n")
    args = [str(tmp_path / "greeting")] if name == "signals" else []
    refuses(
        name,
        "--port",
        port,
        *args,
        message=rb"[^\n]*(is not between 0 and 65535|invalid int value: 'seven')[^\n]*",
    )


@pytest.mark.parametrize("name", [*SERVERS, "signals"])
def test_explains_a_port_that_is_taken(name: str, tmp_path: Path) -> None:
    (tmp_path / "greeting").write_text("hello\n")
    args = [str(tmp_path / "greeting")] if name == "signals" else []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refuses(name, "--port", port, *args, message=rb"[^\n]*" + words_of(errno.EADDRINUSE) + rb"[^\n]*")


def test_signals_explains_a_greeting_that_cannot_be_read(tmp_path: Path) -> None:
    missing = str(tmp_path / "nope")
    message = rb"\[Errno 2\] No such file or directory: '%b'" % re.escape(missing).encode()
    refuses("signals", missing, message=message)
    refuses("signals", str(tmp_path), message=rb"\[Errno 21\] Is a directory: [^\n]*")


def refuses(name: str, *args: str, message: bytes) -> None:
    """Check that an example prints its usage and one line about the arguments, and nothing else."""
    with example(name, *args) as child:
        child.end(2, rb"usage: %b\.py .*\n%b\.py: error: %b\n" % (name.encode(), name.encode(), message))
        assert child.output == b""


# Properties of every server.


@every_server
@pytest.mark.parametrize("how", ["end of stdin", "SIGINT", "SIGTERM"])
def test_stops_on_a_signal_with_clients_connected(name: str, how: str) -> None:
    with server(name) as child, clients(child, 3) as members:
        converse(name, child)
        if how == "end of stdin":
            child.end()
        else:
            child.stop(getattr(signal, how))
        assert child.output == b""
        for member in members:
            with contextlib.suppress(ConnectionResetError):
                member.rest()


# The main thread is not interrupted, and its wait goes on: as with a signal that comes just before the sleep.
TO_ANOTHER_THREAD = """if True:
    import signal, threading, warnings
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    # This prelude makes a thread beside a fork. CPython 3.15 raises the warning of it as an error.
    warnings.filterwarnings("ignore", ".* multi-threaded, use of fork", DeprecationWarning)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
"""


@pytest.mark.parametrize("name", [*SERVERS, "watch_stdin"])
def test_misses_no_signal_that_does_not_interrupt_the_wait(name: str) -> None:
    with example(name, *SERVERS.get(name, ()), prelude=TO_ANOTHER_THREAD) as child:
        if name in SERVERS:
            listening(child)
        else:
            child.write(b"hello")
            reads(child, "IN", "  b'hello'")
        rests(child)
        child.stop(signal.SIGTERM)


@every_server
@pytest.mark.parametrize("stdin", ["/dev/null", "closed"])
def test_runs_without_stdin(name: str, stdin: str) -> None:
    through = ("sh", "-c", 'exec "$@" <&-', "sh") if stdin == "closed" else ()
    with example(name, *SERVERS[name], stdin=subprocess.DEVNULL, through=through) as child:
        listening(child)
        converse(name, child)
        rests(child)
        child.stop(signal.SIGTERM)


@every_server
def test_restarts_on_the_port_that_it_had(name: str) -> None:
    with server(name) as child, clients(child, 2):
        converse(name, child)
        child.stop(signal.SIGTERM)  # the server closes first, so its port is in TIME_WAIT
    with server(name, *SERVERS[name], "--host", "127.0.0.1", "--port", str(child.port)) as again:
        assert again.port == child.port
        converse(name, again)


@every_server
def test_survives_connections_that_are_aborted_before_accept(name: str) -> None:
    prelude = """if True:
        import errno, itertools, socket
        calls, accept = itertools.count(), socket.socket.accept
        errors = [ConnectionAbortedError(errno.ECONNABORTED, ""), BlockingIOError(errno.EAGAIN, "")]
        def fails_twice(self):
            call = next(calls)
            if call < len(errors):
                raise errors[call]
            return accept(self)
        socket.socket.accept = fails_twice
    """
    with server(name, prelude=prelude) as child:
        converse(name, child)
        converse(name, child)


@every_server
def test_reports_an_error_of_its_listener(name: str) -> None:
    prelude = """if True:
        import errno, socket
        def fails(self):
            raise OSError(errno.EINVAL, "not listening")
        socket.socket.accept = fails
    """
    with example(name, *SERVERS[name], prelude=prelude) as child:
        listening(child)
        # It may have ended before connect() returns.
        with contextlib.suppress(ConnectionError), clients(child, 1):
            child.process.wait(DEADLINE)
        child.process.wait(DEADLINE)
        child.end(1, rb".*not listening.*")


@every_server
def test_rests_when_it_is_out_of_descriptors_and_goes_on_when_one_is_free(name: str) -> None:
    args = ("--workers", "1") if name == "prefork" else SERVERS[name]
    with server(name, *args) as child:
        converse(name, child)
        (accepting,) = children(child.pid) or {child.pid}
        eventually(lambda: not connections(accepting), "the first connections have not been closed")
        leave_descriptors(accepting, 3)
        with clients(child, 3) as served, clients(child, 4) as waiting:
            if name == "chat_server":
                meet(served)
                waiting[2].send(b"here\n")
                assert served[0].silent(0.3)
            else:
                for client in served:
                    asks(name, client, b"served")
                    is_answered(name, client, b"served")
                if name != "prefork":
                    waiting[0].send(b"waiting\n")
                assert waiting[0].silent(0.3)
            rests(child)
            for client in served:
                client.close()
            if name == "chat_server":
                meet(waiting[:3])
            else:
                if name == "prefork":
                    asks(name, waiting[0], b"waiting")
                is_answered(name, waiting[0], b"waiting")


@every_server
def test_sleeps_when_others_have_taken_all_descriptors(name: str) -> None:
    args = ("--workers", "1") if name == "prefork" else SERVERS[name]
    with server(name, *args) as child:
        converse(name, child)
        (accepting,) = children(child.pid) or {child.pid}
        eventually(lambda: not connections(accepting), "the first connections have not been closed")
        limits = resource.prlimit(accepting, resource.RLIMIT_NOFILE)
        resource.prlimit(accepting, resource.RLIMIT_NOFILE, (0, limits[1]))
        with clients(child, 2):
            rests(child)
            resource.prlimit(accepting, resource.RLIMIT_NOFILE, limits)
        converse(name, child)


@every_server
def test_every_server_survives_resets(name: str) -> None:
    with server(name) as child:
        for size in (0, 1, 100, 65536) * 10:
            client = Client(child.port)
            with contextlib.suppress(ConnectionError):
                client.send(b"x" * size + b"\n")
            client.reset()
        converse(name, child)
        rests(child)


@every_server
def test_does_not_spin_on_half_closed_and_idle_connections(name: str) -> None:
    with server(name) as child, clients(child, 4) as idle:
        converse(name, child)
        idle[0].end()
        idle[1].send(b"unfinished")
        rests(child)


# Those that answer the sender.

answering = pytest.mark.parametrize("name", [name for name in SERVERS if name != "chat_server"])


@answering
def test_serves_fifty_clients_at_a_time(name: str) -> None:
    with server(name) as child, clients(child, 50) as many:
        for turn in range(3):
            for number, client in enumerate(many):
                if turn == 0 and name == "prefork":
                    assert client.line().startswith(b"worker ")
                client.send(b"%d from %d\n" % (turn, number))
            for number, client in reversed(list(enumerate(many))):
                is_answered(name, client, b"%d from %d" % (turn, number))


@answering
def test_takes_data_in_pieces(name: str) -> None:
    with server(name) as child, clients(child, 1) as (client,):
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if name == "prefork":
            client.line()
        for byte in b"in pieces\n":
            client.send(bytes([byte]))
            time.sleep(0.005)
        is_answered(name, client, b"in pieces")


@answering
def test_answers_lines_sent_before_a_half_close(name: str) -> None:
    with server(name) as child, clients(child, 1) as (client,):
        asks(name, client, b"one\ntwo\nthree")
        client.end()
        for line in (b"one", b"two", b"three"):
            is_answered(name, client, line)
        assert client.rest() == b""


@pytest.mark.parametrize("name", ["echo_server", "prefork"])
def test_echoes_a_mebibyte_to_each_of_eight(name: str) -> None:
    def send(client: Client) -> None:
        client.send(MEBIBYTE)
        client.end()

    def exchange(client: Client) -> bytes:
        if name == "prefork":
            client.line()
        sender = threading.Thread(target=send, args=(client,))
        sender.start()
        received = client.rest()
        sender.join()
        return received

    with server(name) as child, clients(child, 8) as many, ThreadPoolExecutor(8) as pool:
        assert all(received == MEBIBYTE for received in pool.map(exchange, many))


@pytest.mark.parametrize("name", ["echo_server", "prefork"])
def test_does_not_read_from_a_client_that_does_not_read(name: str) -> None:
    pattern = bytes(range(256))
    with server(name) as child, clients(child, 1, receive_buffer=4096) as (client,):
        if name == "prefork":
            client.line()
        sent = client.send_until_blocked(pattern, LIMIT)
        assert sent < LIMIT  # the kernel's buffers
        rests(child)
        converse(name, child)
        client.end()
        assert client.rest() == (pattern * (sent // len(pattern) + 1))[:sent]


# The echo server.


def test_echo_quits_on_the_line_quit_and_on_no_other() -> None:
    with server("echo_server") as child:
        for text in (b"quitter\n", b"not quit\n", b"\n", b"qui", b"ts\n", b"x" * 100_000 + b"\n"):
            child.write(text)
        time.sleep(0.1)
        converse("echo_server", child)
        for piece in (b"hello\nq", b"ui", b"t\nmore"):
            assert child.process.poll() is None
            child.write(piece)
            time.sleep(0.05)
        child.process.wait(DEADLINE)
        child.end()


# The chat.


def test_chat_passes_each_line_to_all_other_members_only() -> None:
    count = 50
    with server("chat_server") as child, clients(child, count) as members:
        meet(members)
        for number, member in enumerate(members):
            member.send(b"I am %d\n" % number)
        for number, member in enumerate(members):
            heard = sorted(member.line().partition(b": ")[2] for _ in range(count - 1))
            assert heard == sorted(b"I am %d\n" % other for other in range(count) if other != number)
        for member in members:
            member.end()
        for member in members:
            assert member.rest() == b""


def test_chat_names_the_speaker_and_joins_pieces() -> None:
    with server("chat_server") as child, clients(child, 2) as (speaker, listener):
        meet([listener, speaker])
        for piece in (b"one ", b"line", b"\nand", b" another\n\nlast words"):
            speaker.send(piece)
            time.sleep(0.02)
        speaker.end()
        for text in (b"one line", b"and another", b"", b"last words"):
            name, _, said = listener.line().partition(b": ")
            assert re.fullmatch(rb"guest\d+", name)
            assert said == text + b"\n"
        assert speaker.rest() == b""
        assert listener.silent(0.1)


def test_chat_registers_out_only_while_there_is_something_to_send() -> None:
    line = b"x" * 60_000 + b"\n"
    with (
        server("chat_server", "--limit", str(1 << 30)) as child,
        clients(child, 1) as (reader,),
        clients(child, 1, receive_buffer=4096) as (slow,),
        clients(child, 1) as (speaker,),
    ):
        meet([reader, slow, speaker])
        assert watches(child.pid, Event.IN) == 6  # the stop waker, the listener, stdin, three clients
        sent = 0
        while not keeps_watching(child.pid, Event.OUT):  # OUT alone: far behind, so not read from
            speaker.send(line)
            assert reader.line().endswith(line)
            sent += 1
        assert watches(child.pid, Event.IN) == 5
        rests(child)
        for _ in range(sent):
            assert slow.line().endswith(line)
        eventually(lambda: watches(child.pid, Event.IN) == 6, "OUT is still registered")
        assert reader.silent(0.1)
        assert slow.silent(0.1)


def test_chat_does_not_read_from_a_client_that_is_behind() -> None:
    line = b"x" * 60_000 + b"\n"
    with (
        server("chat_server", "--limit", str(1 << 30)) as child,
        clients(child, 1, receive_buffer=4096) as (slow,),
        clients(child, 1) as (speaker,),
    ):
        meet([slow, speaker])
        sent = 0
        while not keeps_watching(child.pid, Event.OUT):
            speaker.send(line)
            sent += 1
        slow.send(b"nobody hears me\n")
        assert speaker.silent(0.3)
        for _ in range(sent):
            assert slow.line().endswith(line)
        assert speaker.line().endswith(b": nobody hears me\n")


def test_chat_drops_only_a_client_that_is_too_far_behind() -> None:
    line = b"x" * 60_000 + b"\n"
    with (
        server("chat_server", "--limit", "200000") as child,
        clients(child, 1) as (reader,),
        clients(child, 1, receive_buffer=4096) as (slow,),
        clients(child, 1) as (speaker,),
    ):
        meet([reader, slow, speaker])
        for _ in range(LIMIT // len(line)):
            if connections(child.pid) < 3:
                break
            speaker.send(line)
            assert reader.line().endswith(line)
        assert re.fullmatch(rb"dropped guest2: 2\d{5} bytes behind\n", child.read_line())
        with contextlib.suppress(ConnectionResetError):
            slow.rest()  # data that the kernel had taken for it, then the end
        reader.send(b"still here\n")
        assert speaker.line().endswith(b": still here\n")


def test_chat_drops_a_client_that_sends_an_endless_line() -> None:
    with server("chat_server") as child, clients(child, 3) as (endless, reader, speaker):
        meet([endless, reader, speaker])
        with contextlib.suppress(ConnectionError):
            endless.send(b"x" * 1_000_000)
        assert re.fullmatch(rb"dropped guest\d: its line is too long\n", child.read_line())
        with contextlib.suppress(ConnectionResetError):
            assert endless.rest() == b""
        meet([reader, speaker])


# The two with threads.

threaded = pytest.mark.parametrize("name", ["wake_from_thread", "thread_pool"])


@threaded
def test_answers_pipelined_lines_in_order(name: str) -> None:
    lines = [b"line %d" % number for number in range(100)]
    with server(name) as child, clients(child, 20) as many:
        for client in many:
            client.send(b"".join(line + b"\n" for line in lines))
        for client in many[::2]:
            client.end()
        for client in many:
            for line in lines:
                assert client.line() == digest(line)
        for client in many[1::2]:
            client.end()
        for client in many:
            assert client.rest() == b""


@threaded
def test_takes_no_more_than_it_answers(name: str) -> None:
    with server(name, "--rounds", "1") as child, clients(child, 1, receive_buffer=4096) as (client,):
        assert client.send_until_blocked(b"\n", LIMIT) < LIMIT


@threaded
def test_forgets_a_client_that_leaves_while_its_line_is_worked_on(name: str) -> None:
    with server(name, "--rounds", "200000", "--threads", "2") as child:
        for _ in range(6):
            client = Client(child.port)
            client.send(b"nobody waits for this\n")
            client.reset()
        with clients(child, 1) as (client,):
            client.send(b"this one\n")
            assert re.fullmatch(rb"[0-9a-f]{64}\n", client.line())


@threaded
def test_stops_while_threads_are_at_work(name: str) -> None:
    with server(name, "--rounds", "300000", "--threads", "2") as child, clients(child, 6) as many:
        for client in many:
            client.send(b"slow\n" * 3)
        assert many[0].line()
        child.stop(signal.SIGINT)


@threaded
def test_drops_a_client_that_sends_an_endless_line(name: str) -> None:
    with server(name) as child, clients(child, 1) as (client,):
        with contextlib.suppress(ConnectionError):
            client.send(b"x" * 1_000_000)
        with contextlib.suppress(ConnectionResetError):
            assert client.rest() == b""
        converse(name, child)


def test_pool_registers_everything_for_one_thread_at_a_time() -> None:
    with server("thread_pool") as child, clients(child, 2):
        converse("thread_pool", child)
        eventually(
            lambda: watches(child.pid, Event.IN | Event.ONESHOT) == 4, "the listener, stdin and two clients"
        )
        assert watches(child.pid, Event.IN) == 2  # both stop them all: the waker, and the signals


def test_pool_works_on_several_lines_at_a_time() -> None:
    # One thread is held by an endless digest; the others serve.
    prelude = """if True:
        import hashlib, threading
        pbkdf2_hmac, held = hashlib.pbkdf2_hmac, threading.Event()
        def holds(name, line, salt, rounds):
            if line == b"hold":
                held.wait()
            if line == b"release":
                held.set()
            return pbkdf2_hmac(name, line, salt, rounds)
        hashlib.pbkdf2_hmac = holds
    """
    with (
        server("thread_pool", *ROUNDS, "--threads", "4", prelude=prelude) as child,
        clients(child, 4) as (*held, free),
    ):
        free.send(b"first\n")
        is_answered("thread_pool", free, b"first")
        armed = functools.partial(watches, child.pid, Event.IN | Event.ONESHOT)
        eventually(lambda: armed() == 6, "the listener, stdin and four clients")
        # Stopped, so that all is ready at once: a thread that took more than it can handle would hold it.
        os.kill(child.pid, signal.SIGSTOP)
        eventually(lambda: states(child.pid) == {"T"}, "it is not stopped")
        for client in held:
            client.send(b"hold\n")
        free.send(b"second\n")
        os.kill(child.pid, signal.SIGCONT)
        is_answered("thread_pool", free, b"second")
        for number in range(10):
            free.send(b"%d\n" % number)
            is_answered("thread_pool", free, b"%d" % number)
        assert held[0].silent(0.1)
        free.send(b"release\n")
        for client in held:
            is_answered("thread_pool", client, b"hold")


def test_wake_keeps_its_loop_free_while_all_threads_are_at_work() -> None:
    prelude = """if True:
        import hashlib, threading
        held = threading.Event()
        def holds(name, line, salt, rounds):
            held.wait()
            return line
        hashlib.pbkdf2_hmac = holds
        import os
        read = os.read
        def releases(fd, size):
            data = read(fd, size)
            if b"release" in data:
                held.set()
            return data
        os.read = releases
    """
    with (
        server("wake_from_thread", *ROUNDS, "--threads", "2", prelude=prelude) as child,
        clients(child, 5) as many,
    ):
        for client in many:
            client.send(b"abc\n")
        # The loop goes on accepting and receiving: all wait for a thread, registered for nothing.
        eventually(lambda: watches(child.pid, 0) == 5, "not all lines have been received")
        child.write(b"release\n")
        for client in many:
            assert client.line() == b"616263\n"


def test_wake_drops_waiting_lines_when_it_stops() -> None:
    prelude = """if True:
        import hashlib, time
        def sleeps(name, line, salt, rounds):
            time.sleep(1)
            print("worked", flush=True)
            return line
        hashlib.pbkdf2_hmac = sleeps
    """
    with (
        server("wake_from_thread", *ROUNDS, "--threads", "1", prelude=prelude) as child,
        clients(child, 20) as many,
    ):
        for client in many:
            client.send(b"abc\n")
        eventually(lambda: watches(child.pid, 0) >= 10, "the lines have not been received")
        child.stop(signal.SIGTERM)
        assert child.output.count(b"worked") < 10


# The worker processes.


def test_prefork_watches_its_listener_exclusively_in_each_worker() -> None:
    with server("prefork", "--workers", "3") as child:
        eventually(lambda: len(children(child.pid)) == 3, "three workers")
        for worker in children(child.pid):
            exclusive = functools.partial(watches, worker, Event.IN | Event.EXCLUSIVE)
            eventually(exclusive, "the listener is not registered with EXCLUSIVE")


def test_prefork_serves_while_one_worker_is_stopped() -> None:
    with server("prefork") as child:
        eventually(lambda: len(children(child.pid)) == 2, "two workers")
        stopped, serving = children(child.pid)
        eventually(lambda: watches(stopped, Event.IN | Event.EXCLUSIVE) == 1, "it does not serve yet")
        os.kill(stopped, signal.SIGSTOP)
        eventually(lambda: states(stopped) == {"T"}, "it is not stopped")
        with clients(child, 10) as many:
            for client in many:
                assert client.line() == b"worker %d\n" % serving
        os.kill(stopped, signal.SIGCONT)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_prefork_replaces_a_worker_that_was_killed(signum: int) -> None:
    with server("prefork", "--workers", "1") as child, clients(child, 1) as (client,):
        first = int(client.line().split()[1])
        assert children(child.pid) == {first}
        os.kill(first, signum)
        with clients(child, 1) as (another,):
            second = int(another.line().split()[1])
        assert second != first
        assert children(child.pid) == {second}


def test_prefork_leaves_the_interrupt_key_to_the_parent() -> None:
    with server("prefork", "--workers", "1") as child, clients(child, 1) as (client,):
        worker = int(client.line().split()[1])
        os.kill(worker, signal.SIGINT)
        for _ in range(20):
            time.sleep(0.01)
            converse("prefork", child)
        assert children(child.pid) == {worker}
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does
        child.process.wait(DEADLINE)
        child.end()


def test_prefork_leaves_no_worker_behind() -> None:
    with example("prefork", "--workers", "3") as child:
        listening(child)
        converse("prefork", child)
        assert child.process.stdout
        os.kill(child.pid, signal.SIGKILL)
        assert child.process.stdout.read() == b""  # its end: all processes that had it are gone
        child.end(-signal.SIGKILL)


# The proxy.


@contextlib.contextmanager
def proxy(*args: str, errors: bytes = rb"") -> Iterator[tuple[Child, socket.socket]]:
    """Run a proxy and its target's listener; stop the proxy if it still runs, and check how it ends."""
    with socket.create_server(("127.0.0.1", 0)) as target:
        target.settimeout(DEADLINE)
        port = target.getsockname()[1]
        with example("proxy", "127.0.0.1:0", f"127.0.0.1:{port}", *args) as child:
            listening(child)
            yield child, target
            if child.process.returncode is None:
                child.process.send_signal(signal.SIGTERM)
                child.end(errors=errors)
            assert child.output == b""


@contextlib.contextmanager
def proxied(child: Child, target: socket.socket, receive_buffer: int = 0) -> Iterator[tuple[Client, Client]]:
    """Connect through a proxy, and return both ends of the connection."""
    with contextlib.closing(Client(child.port, receive_buffer)) as client:
        server = object.__new__(Client)
        server.buffer, server.sock = bytearray(), target.accept()[0]
        server.sock.settimeout(DEADLINE)
        with contextlib.closing(server):
            yield client, server


def passes(client: Client, server: Client) -> None:
    """Have one exchange through a proxy."""
    client.send(b"question\n")
    assert server.line() == b"question\n"
    server.send(b"answer\n")
    assert client.line() == b"answer\n"


def is_reset(client: Client) -> None:
    with pytest.raises(ConnectionResetError):
        client.rest()


def send_and_end(end: Client, data: bytes) -> None:
    end.send(data)
    end.end()


def resident(pid: int) -> int:
    """Return how many bytes of memory a process uses."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_proxy_moves_much_in_both_directions_at_once() -> None:
    there, back = 8 * MEBIBYTE, 8 * MEBIBYTE[::-1]
    with proxy() as (child, target), ThreadPoolExecutor(8) as pool, contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(proxied(child, target)) for _ in range(2)]
        received = [(pool.submit(server.rest), pool.submit(client.rest)) for client, server in pairs]
        for client, server in pairs:
            pool.submit(send_and_end, client, there)
            pool.submit(send_and_end, server, back)
        for to_server, to_client in received:
            assert to_server.result() == there
            assert to_client.result() == back
        eventually(lambda: not connections(child.pid), "the connections have not been closed")


def test_proxy_goes_on_after_its_turn() -> None:
    with proxy() as (child, target), proxied(child, target) as (client, server):
        for turn in range(1, 33):  # until the kernel's buffers have grown
            client.send(MEBIBYTE)
            while len(server.buffer) < turn * len(MEBIBYTE):
                assert server.receive()
        with ThreadPoolExecutor(2) as pool:
            child.process.send_signal(signal.SIGSTOP)
            pool.submit(send_and_end, client, 2 * MEBIBYTE)
            time.sleep(0.3)  # until the buffers have most of it
            received = pool.submit(server.rest)
            child.process.send_signal(signal.SIGCONT)
            assert received.result() == 34 * MEBIBYTE


@pytest.mark.parametrize("first", ["client", "server"])
def test_proxy_passes_on_a_half_close(first: str) -> None:
    with proxy() as (child, target), proxied(child, target) as pair:
        one, other = pair if first == "client" else pair[::-1]
        one.send(b"the last words")
        one.end()
        assert other.rest() == b"the last words"
        rests(child)
        other.send(MEBIBYTE)
        other.end()
        assert one.rest() == MEBIBYTE
        eventually(lambda: not connections(child.pid), "the connection has not been closed")


@pytest.mark.parametrize("slow", ["client", "server"])
def test_proxy_pauses_for_a_peer_that_does_not_read(slow: str) -> None:
    pattern = bytes(range(256))
    with proxy() as (child, target):
        with proxied(child, target) as warm:
            passes(*warm)
        before = resident(child.pid)
        with proxied(child, target, receive_buffer=4096) as pair, proxied(child, target) as others:
            reader, sender = pair if slow == "client" else pair[::-1]
            sent = sender.send_until_blocked(pattern, LIMIT)
            assert (1 << 20) < sent < LIMIT  # the kernel's buffers
            assert resident(child.pid) - before < 1 << 20
            rests(child)
            passes(*others)
            sender.end()
            assert reader.rest() == (pattern * (sent // len(pattern) + 1))[:sent]


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("first", ["client", "server"])
def test_proxy_passes_on_a_reset(first: str, paused: bool) -> None:
    with proxy() as (child, target), proxied(child, target) as pair:
        passes(*pair)
        one, other = pair if first == "client" else pair[::-1]
        if paused:
            one.send_until_blocked(b"x", LIMIT)
        one.reset()
        eventually(lambda: not connections(child.pid), "the connection has not been closed")
        is_reset(other)


def test_proxy_rests_when_a_half_closed_peer_has_gone() -> None:
    with proxy() as (child, target), proxied(child, target) as (client, server):
        client.end()
        assert server.rest() == b""
        client.close()
        rests(child)
        with contextlib.suppress(ConnectionError):
            server.send(MEBIBYTE)
        eventually(lambda: not connections(child.pid), "the connection has not been closed")


def test_proxy_resets_a_client_when_the_target_is_down() -> None:
    with proxy(errors=rb"(proxy: \[Errno 111\] Connection refused\n){2}") as (child, target):
        address = target.getsockname()
        target.close()
        for _ in range(2):
            with pytest.raises(ConnectionResetError), clients(child, 1) as (client,):  # maybe in connect()
                client.rest()
        with socket.create_server(address) as again:
            again.settimeout(DEADLINE)
            with proxied(child, again) as pair:
                passes(*pair)


@pytest.mark.parametrize("early", [b"", b"early"])
def test_proxy_keeps_what_comes_before_it_is_connected(early: bytes) -> None:
    with socket.socket() as target, contextlib.ExitStack() as stack:
        target.settimeout(DEADLINE)
        target.bind(("127.0.0.1", 0))
        target.listen(0)
        port = target.getsockname()[1]
        fillers = [stack.enter_context(contextlib.closing(Client(port)))]  # the backlog is full
        with example("proxy", "127.0.0.1:0", f"127.0.0.1:{port}") as child:
            listening(child)
            with clients(child, 1) as (client,):
                client.send(early)
                client.end()
                rests(child)
                with target.accept()[0] as filler:
                    assert filler.getpeername() == fillers[0].sock.getsockname()
                with target.accept()[0] as server:
                    assert server.recv(100, socket.MSG_WAITALL) == early
                    server.sendall(b"late")
                assert client.rest() == b"late"
            child.stop(signal.SIGTERM)


def test_proxy_ends_idle_connections_only() -> None:
    with (
        proxy("--idle", "1.5") as (child, target),
        proxied(child, target) as busy,
        proxied(child, target) as idle,
    ):
        began = time.monotonic()
        passes(*idle)
        while connections(child.pid) == 4:
            passes(*busy)
            time.sleep(0.05)
        assert 1.5 <= time.monotonic() - began < DEADLINE / 2
        for end in idle:
            is_reset(end)
        passes(*busy)


def test_proxy_rests_when_it_is_out_of_descriptors() -> None:
    errors = rb"(proxy: \[Errno 24\] " + words_of(errno.EMFILE) + rb"\n)+"
    with proxy(errors=errors) as (child, target), contextlib.ExitStack() as stack:
        leave_descriptors(child.pid, 3)  # one connection, and half of another
        with proxied(child, target) as pair, clients(child, 2) as waiting:
            passes(*pair)
            rests(child)
            assert connections(child.pid) == 2
            for client in waiting:
                assert client.silent(0.1)
                client.send(b"waited")
        for _ in range(2):
            server = stack.enter_context(target.accept()[0])
            server.settimeout(DEADLINE)
            assert server.recv(100, socket.MSG_WAITALL) == b"waited"
            server.close()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_proxy_stops_on_a_signal(signum: int) -> None:
    with proxy() as (child, target), contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(proxied(child, target)) for _ in range(100)]
        passes(*pairs[0])
        child.stop(signum)
        for pair in pairs:
            for end in pair:
                is_reset(end)


@pytest.mark.parametrize(
    ("listen", "target", "message"),
    [
        ("127.0.0.1:70000", "127.0.0.1:1", rb"argument listen: invalid address value: '127.0.0.1:70000'"),
        ("127.0.0.1:0", "127.0.0.1", rb"argument target: invalid address value: '127.0.0.1'"),
        ("127.0.0.1:0", "127.0.0.1:-1", rb"argument target: invalid address value: '127.0.0.1:-1'"),
        ("192.0.2.1:0", "127.0.0.1:1", rb"\[Errno 99\] " + words_of(errno.EADDRNOTAVAIL) + rb"[^\n]*"),
    ],
)
def test_proxy_explains_an_invalid_address(listen: str, target: str, message: bytes) -> None:
    refuses("proxy", listen, target, message=message)


# The watcher of stdin.


def reads(child: Child, *lines: str) -> None:
    """Check the next output of the watcher."""
    for line in lines:
        assert child.read_line().decode() == line + "\n"


@pytest.mark.parametrize(("mode", "mask"), [("level", Event.IN), ("oneshot", Event.IN | Event.ONESHOT)])
def test_watcher_gets_an_event_for_each_piece(mode: str, mask: int) -> None:
    with example("watch_stdin", "--mode", mode) as child:
        child.write(b"the quick brown fox jumps")
        reads(child, "IN", "  b'the quick '", "IN", "  b'brown fox '", "IN", "  b'jumps'")
        rests(child)
        assert watches(child.pid, mask) >= 1
        child.write(b"again")
        reads(child, "IN", "  b'again'")
        child.end()
        assert child.output == b"HUP\n  end of input\n"


def test_watcher_drains_on_each_edge() -> None:
    with example("watch_stdin", "--mode", "edge") as child:
        child.write(b"the quick brown fox jumps")
        reads(child, "IN", "  b'the quick '", "  b'brown fox '", "  b'jumps'", "  EAGAIN")
        rests(child)
        child.write(b"again, again")
        reads(child, "IN", "  b'again, aga'", "  b'in'", "  EAGAIN")
        child.end()
        assert child.output == b"HUP\n  end of input\n"


def test_watcher_shows_the_bytes_that_an_edge_leaves() -> None:
    with example("watch_stdin", "--mode", "edge", "--no-drain") as child:
        child.write(b"the quick brown fox jumps")
        reads(child, "IN", "  b'the quick '", "  15 bytes left: no event until more arrive")
        rests(child)
        child.write(b"!")
        reads(child, "IN", "  b'brown fox '", "  6 bytes left: no event until more arrive")
        child.end()
        assert child.output.startswith(b"IN|HUP\n  b'jumps!'\n  0 bytes lost")


def test_watcher_says_how_much_the_last_edge_loses() -> None:
    with example("watch_stdin", "--mode", "edge", "--no-drain") as child:
        child.write(b"x" * 35)
        reads(child, "IN", "  b'xxxxxxxxxx'", "  25 bytes left: no event until more arrive")
        child.end()
        assert child.output.startswith(b"IN|HUP\n  b'xxxxxxxxxx'\n  15 bytes lost")


@pytest.mark.parametrize("mode", ["level", "edge", "oneshot"])
def test_watcher_reads_all_of_a_large_input(mode: str) -> None:
    with example("watch_stdin", "--mode", mode) as child:
        output, _ = child.process.communicate(MEBIBYTE[:200_000], timeout=DEADLINE)
        pieces = [
            ast.literal_eval(line.strip()) for line in output.decode().splitlines() if line.startswith("  b")
        ]
        assert max(map(len, pieces)) == 10
        assert b"".join(pieces) == MEBIBYTE[:200_000]
        child.end()


@pytest.mark.parametrize("mode", ["level", "edge", "oneshot"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_watcher_stops_on_a_signal_and_leaves_stdin_as_it_was(mode: str, signum: int) -> None:
    read_end, write_end = os.pipe()
    try:
        with example("watch_stdin", "--mode", mode, stdin=read_end) as child:
            os.write(write_end, b"hello")
            reads(child, "IN", "  b'hello'")
            child.stop(signum)
        assert os.get_blocking(read_end)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_watcher_reads_a_terminal() -> None:
    controller, terminal = os.openpty()
    try:
        with example("watch_stdin", stdin=terminal) as child:
            os.write(controller, b"hello, terminal\n")
            reads(child, "IN", "  b'hello, ter'", "IN", "  b'minal\\n'")
            os.write(controller, b"\x04")  # ^D
            child.process.wait(DEADLINE)
            child.end()
            assert child.output == b"IN\n  end of input\n"
    finally:
        os.close(controller)
        os.close(terminal)


@pytest.mark.parametrize("mode", ["level", "edge", "oneshot"])
def test_watcher_reads_a_regular_file(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"the quick brown fox jumps")
    with path.open() as file, example("watch_stdin", "--mode", mode, stdin=file.fileno()) as child:
        child.process.wait(DEADLINE)
        child.end()
        pieces = [b"  b'the quick '\n", b"  b'brown fox '\n", b"  b'jumps'\n", b"  end of input\n"]
        between = b"" if mode == "edge" else b"IN\n"
        assert child.output == b"IN\n" + between.join(pieces)


@pytest.mark.parametrize("mode", [("level",), ("edge",), ("edge", "--no-drain"), ("oneshot",)], ids="-".join)
def test_watcher_reads_dev_null(mode: tuple[str, ...]) -> None:
    with example("watch_stdin", "--mode", *mode, stdin=subprocess.DEVNULL) as child:
        child.process.wait(DEADLINE)
        child.end()
        assert child.output == b"IN\n  end of input\n"


def test_watcher_says_that_stdin_is_closed() -> None:
    with example("watch_stdin", through=("sh", "-c", 'exec "$@" <&-', "sh")) as child:
        child.process.wait(DEADLINE)
        child.end(1, rb"watch_stdin: stdin is closed\n")


# Signals as events.


def test_signals_reload_and_let_the_clients_finish(tmp_path: Path) -> None:
    greeting = tmp_path / "greeting"
    greeting.write_text("one\n")

    def greets(child: Child) -> bytes:
        with clients(child, 1) as (client,):
            return client.line()

    with server("signals", str(greeting)) as child, clients(child, 1) as (client,):
        assert client.line() == b"one\n"
        greeting.write_text("two\n")
        assert greets(child) == b"one\n"
        child.process.send_signal(signal.SIGHUP)
        eventually(lambda: greets(child) == b"two\n", "the greeting is the old one")
        greeting.unlink()
        child.process.send_signal(signal.SIGHUP)
        assert child.read_line().startswith(b"cannot reload: ")
        assert greets(child) == b"two\n"
        child.process.send_signal(signal.SIGTERM)
        assert child.read_line() == b"waiting for clients to leave: 1; a second signal ends it\n"
        assert client.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            Client(child.port)
        rests(child)
        assert child.process.poll() is None
        client.end()
        child.process.wait(DEADLINE)
        child.end()


def test_signals_loses_none_while_it_is_busy(tmp_path: Path) -> None:
    """A buffer of a few hundred signals would be full, and SIGTERM lost."""
    greeting, slow = tmp_path / "greeting", tmp_path / "slow"
    greeting.write_text("one\n")

    def busy() -> bool:
        call = Path(f"/proc/{child.pid}/syscall").read_text().split()[0]
        return call.isdecimal() and int(call) in OPEN

    def arrived() -> bool:
        lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
        return all(int(line.split()[1], 16) == 0 for line in lines if line.startswith(("SigPnd", "ShdPnd")))

    with server("signals", str(greeting)) as child:
        greeting.unlink()
        os.mkfifo(greeting)
        os.link(greeting, slow)
        child.process.send_signal(signal.SIGHUP)
        eventually(busy, "it does not read the greeting")
        for signum in [*[signal.SIGHUP] * 1000, signal.SIGTERM]:
            child.process.send_signal(signum)
            eventually(arrived, "the signal is still pending")
        greeting.unlink()
        greeting.write_text("two\n")
        os.close(os.open(slow, os.O_WRONLY))
        child.process.wait(DEADLINE)
        child.end()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_let_them_finish(tmp_path: Path, signum: int) -> None:
    greeting = tmp_path / "greeting"
    greeting.write_text("one\n")
    with server("signals", str(greeting)) as child, clients(child, 2) as many:
        for client in many:
            assert client.line() == b"one\n"
        child.process.send_signal(signum)
        for client in many:
            assert client.rest() == b""
        child.stop(signum)


SUPERVISOR_LOG = rb"(\S+ \S+ (running|ended|ending|cannot)[^\n]*\n)*"


@contextlib.contextmanager
def supervisor(path: Path, *commands: str, args: tuple[str, ...] = ()) -> Iterator[Child]:
    with example("supervisor", "--socket", str(path), "--delay", "0.1", *args, *commands) as child:
        eventually(path.is_socket, "there is no socket")
        eventually(lambda: all("waiting" not in line for line in ask(path, "status")), "not all have started")
        yield child


def ask(path: Path, *lines: str) -> list[str]:
    """Send lines in pieces to the control socket; return the lines of the answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        while sock.connect_ex(str(path)) == errno.ECONNREFUSED:
            time.sleep(0.01)  # between bind() and listen()
        for piece in filter(None, "".join(f"{line}\n" for line in lines).partition(" ")):
            sock.sendall(piece.encode())  # Not of nothing: after the answer to "stop" it would fail.
            time.sleep(0.01)
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile() as file:
            return file.read().splitlines()


def pid_of(line: str) -> int:
    match = re.match(r"\d+ (running|ending), pid (\d+): ", line)
    return int(match[2]) if match else 0


def is_another(path: Path, number: int, pid: int) -> bool:
    """Return whether a command of the supervisor runs, in a process that is not the given one."""
    return pid_of(ask(path, "status")[number]) not in (0, pid)


def session(leader: int) -> set[int]:
    """Return the processes of a session that have not ended."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The name of a process is any bytes.
            state, _, _, number = (process / "stat").read_bytes().rpartition(b") ")[2].split()[:4]
            if int(number) == leader and state not in b"ZX":
                found.add(int(process.name))
    return found


STUBBORN = 'trap "" TERM; sleep 20 & wait; sleep 21'


def test_supervisor_starts_again_what_ends_and_stops_all(tmp_path: Path) -> None:
    path = tmp_path / "control"
    commands = ("exec sleep 20", STUBBORN, "exit 3", "sleep 22 & exit 0")
    with supervisor(path, *commands, args=("--limit", "0.5")) as child:
        first, stubborn, failed, _, ok = ask(path, "status")
        assert ok == "ok"
        assert failed.startswith(("2 ended, status 3: ", "2 running, "))
        os.kill(pid_of(first), signal.SIGKILL)
        eventually(lambda: is_another(path, 0, pid_of(first)), "it was not started again")

        before = pid_of(ask(path, "status")[0])
        answers = ask(path, "restart 0", "restart 9", "")
        assert answers == ["ok", *["error: status, restart N, or stop"] * 2]
        eventually(lambda: is_another(path, 0, before), "it was not restarted")

        before = pid_of(ask(path, "status")[0])
        for _ in range(20):
            child.process.send_signal(signal.SIGHUP)
        eventually(lambda: is_another(path, 0, before), "SIGHUP restarts nothing")
        eventually(
            lambda: is_another(path, 1, pid_of(stubborn)), "SIGTERM is ignored, and no SIGKILL follows"
        )

        child.process.send_signal(signal.SIGTERM)
        eventually(lambda: ask(path, "status")[1].startswith("1 ending, "), "it does not end them")
        child.process.send_signal(signal.SIGHUP)
        child.process.send_signal(signal.SIGINT)
        child.process.wait(DEADLINE)
        child.end(errors=SUPERVISOR_LOG)
        assert not path.exists()
        eventually(lambda: not session(child.pid), "it has left processes behind")


def test_supervisor_survives_clients_that_never_read_and_a_lack_of_descriptors(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with supervisor(path, "exec sleep 20") as child, contextlib.ExitStack() as stack:
        before = pid_of(ask(path, "status")[0])
        leave_descriptors(child.pid, 5)
        for _ in range(50):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(path))
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                while True:
                    sock.send(b"status\n" * 100)
        assert pid_of(ask(path, "status")[0]) == before
        rests(child)
        os.kill(before, signal.SIGKILL)  # its fd is free now: for a client, or for the next process
        for _ in range(10):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        eventually(lambda: is_another(path, 0, before), "it was not started again")

        files = resource.prlimit(child.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (3, files[1]))
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        rests(child)
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, files)
        assert ask(path, "stop") == ["ok"]
        child.process.wait(DEADLINE)
        child.end(errors=SUPERVISOR_LOG)
        assert not path.exists()


def test_supervisor_replaces_a_stale_socket_and_nothing_else(tmp_path: Path) -> None:
    path, file = tmp_path / "control", tmp_path / "file"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    file.touch()
    with supervisor(path, "exec sleep 20") as child:
        for taken in (path, file):
            with example("supervisor", "--socket", str(taken), "true") as second:
                second.end(2, rb"usage: .*" + words_of(errno.EADDRINUSE) + rb"\n")
        assert len(ask(path, "status")) == 2
        child.process.send_signal(signal.SIGINT)
        child.process.wait(DEADLINE)
        child.end(errors=SUPERVISOR_LOG)
    assert file.exists()
