"""Operations of a loop that need no file: callbacks, timers, tasks.

Each is an asynchronous function that does its work ``count`` times and returns how often it was done: the
callbacks count their own calls. The collector works as in any program.
"""

import asyncio
import threading
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable

__all__ = ["BATCH", "SCHEDULING"]

BATCH = 100
"""How many callbacks or timers a turn of the loop gets; every ``count`` is a multiple."""
TASKS = 1000


class Calls:
    """A callback that counts."""

    def __init__(self) -> None:
        self.count = 0

    def without_arguments(self) -> None:
        self.count += 1

    def with_arguments(self, _first: object, _second: object) -> None:
        self.count += 1


async def call_soon(count: int) -> int:
    loop, calls = asyncio.get_running_loop(), Calls()
    schedule, callback = loop.call_soon, calls.without_arguments
    for _ in range(count // BATCH):
        for _ in range(BATCH):
            schedule(callback)
        await asyncio.sleep(0)
    return calls.count


async def call_soon_with_arguments(count: int) -> int:
    loop, calls = asyncio.get_running_loop(), Calls()
    schedule, callback = loop.call_soon, calls.with_arguments
    for _ in range(count // BATCH):
        for _ in range(BATCH):
            schedule(callback, None, None)
        await asyncio.sleep(0)
    return calls.count


async def call_soon_threadsafe(count: int) -> int:
    """From the loop's own thread: the cost of the call and of the callback, not of a switch of threads."""
    loop, calls = asyncio.get_running_loop(), Calls()
    schedule, callback = loop.call_soon_threadsafe, calls.without_arguments
    for _ in range(count // BATCH):
        for _ in range(BATCH):
            schedule(callback)
        await asyncio.sleep(0)
    while calls.count < count:  # zloop's may be a turn late.
        await asyncio.sleep(0)
    return calls.count


async def thread_and_back(count: int) -> int:
    """Another thread wakes the waiting loop, and waits itself until the loop has called back."""
    loop, calls, finished = asyncio.get_running_loop(), Calls(), asyncio.Event()
    called = threading.Lock()
    called.acquire()

    def callback() -> None:
        calls.count += 1
        called.release()

    def work() -> None:
        for _ in range(count):
            loop.call_soon_threadsafe(callback)
            called.acquire()
        loop.call_soon_threadsafe(finished.set)

    thread = threading.Thread(target=work)
    thread.start()
    await finished.wait()
    thread.join()
    return calls.count


async def timer_cancelled(count: int) -> int:
    loop, calls = asyncio.get_running_loop(), Calls()
    cancelled = 0
    for _ in range(count // BATCH):
        timers = [loop.call_later(1000, calls.without_arguments) for _ in range(BATCH)]
        for timer in timers:
            timer.cancel()
        cancelled += sum(timer.cancelled() for timer in timers)
        await asyncio.sleep(0)
    return cancelled - calls.count


async def timer_fired(count: int) -> int:
    """All timers of a batch are due as soon as the loop looks at them."""
    loop, calls = asyncio.get_running_loop(), Calls()
    for batch in range(1, count // BATCH + 1):
        for _ in range(BATCH):
            loop.call_later(0, calls.without_arguments)
        while calls.count < batch * BATCH:
            await asyncio.sleep(0)
    return calls.count


async def sleep_0(count: int) -> int:
    done = 0
    for _ in range(count):
        await asyncio.sleep(0)
        done += 1
    return done


async def many_sleep_0(count: int) -> int:
    """Tasks that are created, sleep once and end; one unit is one task."""
    done = 0

    async def work() -> None:
        nonlocal done
        await asyncio.sleep(0)
        done += 1

    for _ in range(count // TASKS):
        await asyncio.gather(*(work() for _ in range(TASKS)))
    return done


async def two_queues(count: int) -> int:
    """A message to another task and its answer."""
    there, back = asyncio.Queue[int](), asyncio.Queue[int]()
    answered = 0

    async def answer() -> None:
        nonlocal answered
        for _ in range(count):
            await back.put(await there.get())
            answered += 1

    other = asyncio.create_task(answer())
    for number in range(count):
        await there.put(number)
        if await back.get() != number:
            raise RuntimeError("the answer to another message")
    await other
    return answered


async def timeout(count: int) -> int:
    """A timeout around something that suspends the task and is quick enough."""
    done = 0
    for _ in range(count):
        async with asyncio.timeout(1000):
            await asyncio.sleep(0)
            done += 1
    return done


async def getaddrinfo(count: int) -> int:
    loop: AbstractEventLoop = asyncio.get_running_loop()
    done = 0
    for _ in range(count):
        (info,) = await loop.getaddrinfo("127.0.0.1", 80, type=1)
        done += info[4] == ("127.0.0.1", 80)
    return done


SCHEDULING: dict[str, Callable[[int], Awaitable[int]]] = {
    "call_soon": call_soon,
    "call_soon with 2 arguments": call_soon_with_arguments,
    "call_soon_threadsafe": call_soon_threadsafe,
    "from another thread and back": thread_and_back,
    "timer scheduled and cancelled": timer_cancelled,
    "timer fired": timer_fired,
    "sleep(0)": sleep_0,
    "1,000 tasks, each sleep(0)": many_sleep_0,
    "two tasks, two queues": two_queues,
    "asyncio.timeout": timeout,
    "getaddrinfo, numeric": getaddrinfo,
}
