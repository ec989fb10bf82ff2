"""The process that does one kind of work on one loop: ``python -m benchmarks.aio.worker FACTORY WORK``.

For each count read from standard input it does the work so often, and prints the nanoseconds of CPU time
that the process took, all its threads included.
"""

import asyncio
import pkgutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import process_time_ns

from .files import FILES, Work
from .scheduling import SCHEDULING

__all__: list[str] = []

SECONDS = 20
"""How long it may take to do the work once."""

LARGE = 4 << 20


@asynccontextmanager
async def work_of(name: str) -> AsyncIterator[Work]:
    if name in SCHEDULING:
        yield SCHEDULING[name]
    else:
        async with FILES[name]() as work:
            yield work


async def serve(name: str) -> None:
    async with work_of(name) as work:
        for line in sys.stdin:
            signal.alarm(SECONDS)
            count = int(line)
            start = process_time_ns()
            done = await work(count)
            taken = process_time_ns() - start
            if done != count:
                raise RuntimeError(f"done {done} times, not {count}")
            print(taken, flush=True)
            signal.alarm(0)


def main() -> None:
    factory, name = sys.argv[1:]
    # A large block that was freed once makes glibc keep the memory of smaller ones, as in a program that has
    # run for a while. Without it, a loop that reads with a large buffer would pay for page faults.
    bytes(LARGE)
    with asyncio.Runner(loop_factory=pkgutil.resolve_name(factory)) as runner:
        runner.run(serve(name))


if __name__ == "__main__":
    main()
