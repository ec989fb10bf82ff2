"""Servers under load, each in a process of its own, turn by turn.

All servers are up at once, each with its own load and all its connections, and sleep in their waits
except for the one under load. That one has a core to itself, its load has the other. Whether it did
is measured too: a server that had not its core nearly all of the time waited for its load, or for
another program, and its rate says little about it.
"""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import NamedTuple

from .compiler import compiled
from .machine import server_and_load_cores
from .measure import in_turns
from .messages import MESSAGE
from .report import Bar

__all__ = ["SATURATED", "Command", "Turn", "message_load", "seconds_for", "turns"]

SATURATED = Bar(">=", 0.9)
"""The share of the time that a server must have had its core."""

Process = subprocess.Popen[str]
Command = list[str | Path]


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
    """Start a program on ``core``, and kill it in the end."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        os.sched_setaffinity(process.pid, {core})
        try:
            yield process
        finally:
            process.kill()


def say(process: Process, line: str) -> None:
    assert process.stdin is not None
    print(line, file=process.stdin, flush=True)


def hear(process: Process) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended with status {process.wait()}")
    return line


def cpu_ns(process: Process) -> int:
    """Return for how long a process has had a core."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0])


def turn(server: Process, load: Process, milliseconds: int) -> Turn:
    start, cpu_start = perf_counter_ns(), cpu_ns(server)
    say(load, str(milliseconds))
    answers, nanoseconds, median, tail = map(int, hear(load).split())
    cpu, elapsed = cpu_ns(server) - cpu_start, perf_counter_ns() - start
    return Turn(answers * 1e9 / nanoseconds, cpu / answers, cpu / elapsed, median / 1000, tail / 1000)


def turns(
    servers: Mapping[str, Command], load_on: Callable[[str], Command], rounds: int, milliseconds: int
) -> dict[str, list[Turn]]:
    """Start each server, which prints its port, and its load, and burst each in turn, ``rounds`` times."""
    server_core, load_core = server_and_load_cores()
    with ExitStack() as stack:
        pairs = {}
        for name, command in servers.items():
            server = stack.enter_context(running(command, server_core))
            port = hear(server).strip()
            load = stack.enter_context(running(load_on(port), load_core))
            hear(load)
            pairs[name] = server, load
        for server, load in pairs.values():
            turn(server, load, milliseconds)
        results: dict[str, list[Turn]] = {name: [] for name in pairs}
        for name in in_turns(pairs, rounds):
            results[name].append(turn(*pairs[name], milliseconds))
    return results
