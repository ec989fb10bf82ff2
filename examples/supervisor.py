"""Supervisor: starts shell commands, starts each again when it ends, and obeys signals and a control socket.

    python examples/supervisor.py --socket /tmp/control 'exec redis-server' 'cd /srv && exec ./worker'
    echo status | nc -NU /tmp/control  # or: restart 0, stop

SIGHUP restarts all commands; SIGTERM and SIGINT stop them. To end a command, its shell gets SIGTERM, hence
the exec. What is left of its process group gets SIGKILL once the shell has ended, or after --limit seconds.
"""

import argparse
import errno
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pyepoll import Child, Epoll, Event, Signals, Timer

CLIENTS = 32  # at once; the oldest gives way to a new one
LINE = 1024  # bytes
STDIN = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)


class Command:
    """A command that runs, is ending, or waits for its next start."""

    stopping = False  # none is started any more

    def __init__(self, text: str) -> None:
        self.text = text
        self.child: Child | None = None
        self.ending = False
        self.state = f"waiting: {text!r}"
        self.timer = Timer(0)  # until the start, or until SIGKILL
        ep.register(self.timer, Event.IN, data=self.expired)

    def show(self, state: str) -> None:
        self.state = f"{state}: {self.text!r}"
        logging.info("%s", self.state)

    def expired(self, events: Event) -> None:
        if not self.timer.read():
            pass  # set again by the handler before this one
        elif self.child:
            kill(self.child.pid)
        elif not Command.stopping:
            self.start()

    def start(self) -> None:
        shell, pid = ["/bin/sh", "-c", self.text], 0
        ignored = [signal.SIGPIPE, signal.SIGXFSZ]  # by Python
        try:
            pid = os.posix_spawn(
                shell[0], shell, os.environ, file_actions=[STDIN], setpgroup=0, setsigdef=ignored
            )
            child = Child(pid)
            ep.register(child, Event.IN, data=self.ended)
        except OSError as error:
            if pid:  # no fd is left for the Child
                kill(pid)
                os.waitpid(pid, 0)
            drop_oldest_client()
            self.show(f"cannot start, {error}")
            self.timer.set(options.delay)
        else:
            self.child = child
            self.show(f"running, pid {pid}")

    def ended(self, events: Event) -> None:
        assert self.child
        kill(self.child.pid)  # what it has left; after read(), the pid may be that of another group
        self.child.read()
        self.show(f"ended, status {self.child.returncode}")
        ep.unregister(self.child)
        self.child.close()
        self.child = None
        self.timer.set(0 if self.ending else options.delay)
        self.ending = False

    def restart(self) -> None:
        """End it and start it again; if all are stopping, end it only."""
        if not self.child:
            self.timer.set(0)
        elif not self.ending:
            self.ending = True
            self.show(f"ending, pid {self.child.pid}")
            self.timer.set(options.limit)
            with suppress(PermissionError):
                self.child.send_signal(signal.SIGTERM)


def kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def restart_all(*, stop: bool) -> None:
    Command.stopping |= stop
    for command in commands:
        command.restart()


def answer(line: bytes) -> str:
    match line.split():
        case [b"status"]:
            return "".join(f"{n} {command.state}\n" for n, command in enumerate(commands)) + "ok\n"
        case [b"restart", n] if n.isdigit() and int(n) < len(commands) and not Command.stopping:
            commands[int(n)].restart()
            return "ok\n"
        case [b"stop"]:
            restart_all(stop=True)
            return "ok\n"
    return "error: status, restart N, or stop\n"


class Client:
    """A connection to the control socket; while it does not read, it is not read from."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.inbox = self.outbox = b""
        sock.setblocking(False)
        ep.register(sock, Event.IN, data=self.serve)
        clients.append(self)

    def serve(self, events: Event) -> None:
        try:
            if not self.outbox:
                data = self.sock.recv(LINE)
                *lines, self.inbox = (self.inbox + data).split(b"\n")
                if not data or len(self.inbox) > LINE:
                    self.close()
                    return
                self.outbox = "".join(map(answer, lines)).encode()
            self.outbox = self.outbox[self.sock.send(self.outbox) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        ep.modify(self.sock, Event.OUT if self.outbox else Event.IN)

    def close(self) -> None:
        clients.remove(self)
        ep.unregister(self.sock)
        self.sock.close()


def drop_oldest_client() -> bool:
    """Free an fd, if there is a client."""
    for client in clients[:1]:
        client.close()
        return True
    return False


def accept(events: Event) -> None:
    try:
        if len(clients) == CLIENTS:
            drop_oldest_client()
        Client(listener.accept()[0])
    except (BlockingIOError, ConnectionAbortedError):
        pass
    except OSError as error:  # no fd is left: a client gives way; without one, the listener pauses
        logging.warning("cannot accept: %s", error)
        if not drop_oldest_client():
            ep.modify(listener, 0)
            pause.set(1)


def resume(events: Event) -> None:
    pause.read()
    ep.modify(listener, Event.IN)


def act(events: Event) -> None:
    for signum in signals.read():
        restart_all(stop=signum != signal.SIGHUP)


def listen(path: str) -> None:
    listener.setblocking(False)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        if Path(path).is_socket() and probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)  # left by a supervisor that was killed
    listener.bind(path)
    os.chmod(path, 0o600)  # before listen(), every connect fails
    listener.listen()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("commands", nargs="+", metavar="COMMAND")
    parser.add_argument("--socket", required=True, metavar="PATH")
    parser.add_argument("--delay", type=float, default=2, help="seconds before a command is started again")
    parser.add_argument("--limit", type=float, default=10, help="seconds between SIGTERM and SIGKILL")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    clients: list[Client] = []
    with (
        socket.socket(socket.AF_UNIX) as listener,
        Signals(signal.SIGHUP, signal.SIGINT, signal.SIGTERM) as signals,
        Epoll[Callable[[Event], None]]() as ep,
        Timer() as pause,
    ):
        try:
            listen(options.socket)
        except OSError as error:
            parser.error(f"{options.socket}: {error}")
        ep.register(signals, Event.IN, data=act)
        ep.register(listener, Event.IN, data=accept)
        ep.register(pause, Event.IN, data=resume)
        commands = [Command(text) for text in options.commands]
        try:
            while not Command.stopping or any(command.child for command in commands):
                for handle, events in ep.wait():
                    handle(events)
        finally:
            for command in commands:
                if command.child:
                    kill(command.child.pid)
            while drop_oldest_client():
                pass
            Path(options.socket).unlink(missing_ok=True)
            signals.read()  # one that has come too late
