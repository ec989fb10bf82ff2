"""A pipe's transport that has no memory for data loses none of it in silence."""

import os
from typing import Any

from support.loops import Plain, complaints, soon, turns
from support.no_memory import with_each_allocation_failing, without_memory
from test_aio_pipes import drained_until, reading, writing


def test_write_closes_the_transport_or_writes_all() -> None:
    async def once(start: int) -> tuple[bool, bool, bool]:
        problems = complaints()
        read, write = os.pipe()
        protocol, data = Plain(), os.urandom(1000) * 100
        async with writing(protocol, write, read) as transport:
            done = without_memory(start, lambda: transport.write(data))
            got = await drained_until(
                read, lambda: transport.is_closing() or transport.get_write_buffer_size() == 0
            )
            assert got == data[: len(got)]
            failed = not done or bool(problems)
            assert failed or got == data
            assert failed or not transport.is_closing()
        return not failed, failed, len(got) == len(data)

    results = with_each_allocation_failing(once)
    assert any(failed for _, failed, _ in results)
    assert results[-1] == (True, False, True)


def test_reading_delivers_or_reports() -> None:
    async def once(start: int) -> tuple[bool, bool, bool]:
        problems = complaints()
        read, write = os.pipe()
        protocol = Plain()
        async with reading(protocol, read, write) as transport:
            os.write(write, b"data" * 1000)
            ready: Any = transport._read_ready
            done = without_memory(start, ready)
            await turns()
            failed = not done or bool(problems)
            if not transport.is_closing():
                await soon(lambda: protocol.has(4000))
            assert protocol.has(4000) or failed
        return not failed, failed, protocol.has(4000)

    results = with_each_allocation_failing(once)
    assert any(failed for _, failed, _ in results)
    assert results[-1] == (True, False, True)
