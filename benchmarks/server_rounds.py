"""Servers under load, each in a process of its own, turn by turn.

All servers are up at once, each with its own load and all its connections, and sleep in their waits
except for the one under load. That one has a core to itself, its load has the other. Whether it did
is measured too: a server that had not its core nearly all of the time waited for its load, or for
another program, and its rate says little about it.
"""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from select import select
from tempfile import TemporaryFile
from time import perf_counter_ns
from typing import Any, NamedTuple

from .compiler import compiled
from .machine import server_and_load_cores
from .measure import in_turns, starts
from .messages import MESSAGE
from .report import Bar

__all__ = [
    "SATURATED",
    "Command",
    "Failed",
    "Process",
    "Turn",
    "hear",
    "message_load",
    "running",
    "say",
    "seconds_for",
    "turns",
]

SATURATED = Bar(">=", 0.9)
"""The share of the time that a server must have had its core."""

SILENCE = 30
"""For how many seconds a program may say nothing when its turn has come."""

Process = subprocess.Popen[str]
Command = list[str | Path]


class Failed(Exception):
    """A program ended or did not answer; the text says why."""


class Turn(NamedTuple):
    """The result of one burst of load."""

    rate: float
    """Answers per second."""
    cpu: float
    """Nanoseconds of the server's core for each."""
    busy: float
    """The share of the time that the server had its core."""
    median: float
    """Microseconds from a request to its answer. All connections are in flight: it waits for theirs."""
    tail: float
    """The 99th percentile of the same."""


def seconds_for(contenders: int, rounds: int, milliseconds: int) -> int:
    """Return for how long, at the most, a process may live that is there for all turns."""
    return 60 + contenders * rounds * milliseconds // 200


def message_load(
    connections: int, seconds: int, depth: int = 1, program: Path | None = None
) -> Callable[[str], Command]:
    """Return the command of a load, a function of the port, that awaits an echo of each message."""
    load = program or compiled("load.c")
    sizes = [str(connections), str(depth), str(seconds)]
    return lambda port: [load, port, *sizes, MESSAGE, MESSAGE, str(len(MESSAGE))]


@contextmanager
def running(command: Command, core: int) -> Iterator[Process]:
    """Start a program on ``core``, and kill it in the end. Its errors are kept for ``hear``."""
    errors = TemporaryFile("w+", errors="replace")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
    with subprocess.Popen(command, text=True, **pipes) as process:
        process.stderr = errors
        os.sched_setaffinity(process.pid, {core})
        try:
            yield process
        finally:
            process.kill()


def say(process: Process, line: str) -> None:
    assert process.stdin is not None
    # If the program has ended, ``hear`` says so. Nothing stays in a buffer that could not be flushed later.
    with suppress(BrokenPipeError):
        os.write(process.stdin.fileno(), f"{line}\n".encode())


def last_words(process: Process) -> str:
    """Return the last line that a program wrote to standard error, or ""."""
    assert process.stderr is not None
    process.stderr.seek(0)
    return ([""] + [line.strip() for line in process.stderr if line.strip()])[-1]


def hear(process: Process) -> str:
    """Return the next line of a program that prints one for each that it gets, or raise Failed."""
    assert process.stdout is not None
    if not select([process.stdout], [], [], SILENCE)[0]:
        raise Failed(f"no answer in {SILENCE} seconds")
    if line := process.stdout.readline():
        return line
    process.wait()
    raise Failed(last_words(process) or f"ended with status {process.returncode}")


def cpu_ns(process: Process) -> int:
    """Return for how long a process has had a core."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0])


def turn(server: Process, load: Process, milliseconds: int) -> Turn:
    start, cpu_start = perf_counter_ns(), cpu_ns(server)
    say(load, str(milliseconds))
    answers, nanoseconds, median, tail = map(int, hear(load).split())
    cpu, elapsed = cpu_ns(server) - cpu_start, perf_counter_ns() - start
    return Turn(answers * 1e9 / nanoseconds, cpu / answers, cpu / elapsed, median / 1000, tail / 1000)


def turns_of_start(
    servers: Mapping[str, Command], load_on: Callable[[str], Command], rounds: int, milliseconds: int
) -> tuple[dict[str, list[Turn]], dict[str, str]]:
    """Start each server, which prints its port, and its load, and burst each in turn. Return as turns()."""
    server_core, load_core = server_and_load_cores()
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        pairs = {}
        for name, command in servers.items():
            server = stack.enter_context(running(command, server_core))
            try:
                port = hear(server).strip()
                load = stack.enter_context(running(load_on(port), load_core))
                hear(load)
                turn(server, load, milliseconds)
            except (Failed, OSError) as reason:
                # A server that is about to end says why; one that goes on has nothing to say.
                with suppress(subprocess.TimeoutExpired):
                    server.wait(2)
                failed[name] = last_words(server) or str(reason)
                server.kill()
            else:
                pairs[name] = server, load
        results: dict[str, list[Turn]] = {name: [] for name in pairs}
        for name in in_turns(pairs, rounds):
            if name not in failed:
                try:
                    results[name].append(turn(*pairs[name], milliseconds))
                except Failed as reason:
                    failed[name] = str(reason)
    return {name: of_one for name, of_one in results.items() if name not in failed}, failed


def turns(
    servers: Mapping[str, Command], load_on: Callable[[str], Command], rounds: int, milliseconds: int
) -> tuple[dict[str, list[Turn]], dict[str, str]]:
    """Burst each server in turn, ``rounds`` times, which are divided among a few starts of all servers.

    Return the turns of each server, and the reasons of those that failed, which have none.
    """
    results: dict[str, list[Turn]] = {name: [] for name in servers}
    failed: dict[str, str] = {}
    for rounds_of_start in starts(rounds):
        going = {name: command for name, command in servers.items() if name not in failed}
        of_start, failed_now = turns_of_start(going, load_on, rounds_of_start, milliseconds)
        failed |= failed_now
        for name, of_one in of_start.items():
            results[name] += of_one
    return {name: of_one for name, of_one in results.items() if name not in failed}, failed
