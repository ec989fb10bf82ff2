"""``python -m benchmarks.aio.threads``: two loops in two threads against one, each on a core of its own.

Both threads do the same work at the same moment; the factor is how much more is done than by one alone, 2 at
most. It needs a free-threaded build: with a GIL the factor is 1. Other programs on the cores make a round
longer, so the quickest of many short rounds counts.
"""

import argparse
import asyncio
import math
import os
import pkgutil
import socket
import sysconfig
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter_ns
from typing import Any

from ..machine import describe, server_and_load_cores
from .files import FILES, Work
from .loops import LOOPS
from .scheduling import SCHEDULING

__all__: list[str] = []

COUNTS = {
    "call_soon": 10_000,
    "call_soon with 2 arguments": 10_000,
    "call_soon_threadsafe": 10_000,
    "timer scheduled and cancelled": 10_000,
    "timer fired": 10_000,
    "sleep(0)": 3_000,
    "1,000 tasks, each sleep(0)": 1_000,
    "two tasks, two queues": 500,
    "asyncio.timeout": 1_000,
    "add_reader + remove_reader": 5_000,
    "Protocol echo": 500,
    "sock_recv/sock_sendall": 200,
}
"""How often each is done in a round: for a few milliseconds."""

AHEAD = 1_000_000
"""The nanoseconds after which the threads start their round, while both of them spin."""

SKEW = 50_000
"""How many nanoseconds apart the threads may start in a round that counts."""


@asynccontextmanager
async def protocol_echo() -> AsyncIterator[Work]:
    """Two transports of the same loop; one unit is a message there and back."""
    loop = asyncio.get_running_loop()

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    class Client(Echo):
        def start(self, count: int) -> asyncio.Future[int]:
            self.left = self.count = count
            self.done: asyncio.Future[int] = loop.create_future()
            self.transport.write(b"x" * 64)
            return self.done

        def data_received(self, data: bytes) -> None:
            self.left -= 1
            if self.left > 0:
                self.transport.write(data)
            else:
                self.done.set_result(self.count)

    ours, theirs = socket.socketpair()
    server, _ = await loop.create_connection(Echo, sock=theirs)
    transport, client = await loop.create_connection(Client, sock=ours)

    async def work(count: int) -> int:
        return await client.start(count)

    yield work
    transport.abort()
    server.abort()


@asynccontextmanager
async def work_of(name: str) -> AsyncIterator[Work]:
    if name in SCHEDULING:
        yield SCHEDULING[name]
    else:
        async with (protocol_echo if name == "Protocol echo" else FILES[name])() as work:
            yield work


class Rounds:
    """The rounds of one kind of work, in which one thread or both take part."""

    def __init__(self, factory: str, name: str) -> None:
        self.factory, self.name = factory, name
        self.cores = server_and_load_cores()
        self.begin, self.end = threading.Barrier(3), threading.Barrier(3)
        self.taking_part = 0
        self.start = 0
        self.errors: list[BaseException] = []
        self.spans = [(0, 0), (0, 0)]
        self.threads = [
            threading.Thread(target=self.thread, args=(number,), daemon=True) for number in range(2)
        ]
        for thread in self.threads:
            thread.start()

    def thread(self, number: int) -> None:
        os.sched_setaffinity(0, {self.cores[number]})
        try:
            with asyncio.Runner(loop_factory=pkgutil.resolve_name(self.factory)) as runner:
                runner.run(self.take_part(number))
        except BaseException as error:
            self.errors.append(error)
            # The others would wait for this thread indefinitely.
            self.begin.abort()
            self.end.abort()

    async def take_part(self, number: int) -> None:
        count = COUNTS[self.name]
        async with work_of(self.name) as work:
            while True:
                self.begin.wait()
                if self.taking_part == 0:
                    return
                if number < self.taking_part:
                    start = self.start
                    while perf_counter_ns() < start:
                        pass
                    start = perf_counter_ns()
                    done = await work(count)
                    self.spans[number] = start, perf_counter_ns()
                    if done != count:
                        raise RuntimeError(f"done {done} times, not {count}")
                self.end.wait()

    def round(self, threads: int) -> float:
        """Return the nanoseconds from the first start to the last end; inf if they started apart."""
        self.taking_part, self.start = threads, perf_counter_ns() + AHEAD
        self.begin.wait()
        self.end.wait()
        starts, ends = zip(*self.spans[:threads], strict=True)
        return max(ends) - min(starts) if max(starts) - min(starts) <= SKEW else math.inf

    def close(self) -> None:
        self.taking_part = 0
        self.begin.wait()
        for thread in self.threads:
            thread.join()


def measure(factory: str, name: str, rounds: int) -> str:
    """Return a line with the nanoseconds of one unit, alone and beside another loop, and the factor."""
    running = Rounds(factory, name)
    times: dict[int, list[float]] = {1: [], 2: []}
    try:
        for _ in range(rounds):
            for threads, taken in times.items():
                taken.append(running.round(threads))
        running.close()
    except threading.BrokenBarrierError:
        # What failed first; the other thread fails of the barrier.
        raise running.errors[0] from None
    alone, both = (min(taken) for taken in times.values())
    each = [f"{taken / COUNTS[name]:9.0f} ns" for taken in (alone, both)]
    return f"{each[0]} alone {each[1]} beside another, factor {2 * alone / both:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="of each kind of work on each loop")
    parser.add_argument("--only", action="append", help="the work whose name contains this", default=[])
    parser.add_argument("--loops", default="stock,pyepoll", help="as of benchmarks aio")
    args = parser.parse_args()
    for what, text in describe().items():
        print(f"{what}: {text}")
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        print("A build with a GIL: the threads take turns.")
    for name in COUNTS:
        if not args.only or any(part in name for part in args.only):
            for loop in args.loops.split(","):
                line = measure(LOOPS[loop], name, args.rounds)
                print(f"{name:30} {loop:8} {line}", flush=True)


if __name__ == "__main__":
    main()
