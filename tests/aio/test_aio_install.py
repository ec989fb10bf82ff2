"""install() makes asyncio's own functions use our loop, as far as the version has event loop policies."""

import sys

import pytest
from support.processes import run

PROGRAM = """
    import asyncio, io, threading, unittest, warnings
    from pyepoll import aio

    async def kind():
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, print)
        process = await asyncio.create_subprocess_exec("true")
        assert await process.wait() == 0
        return type(loop).__module__

    before = asyncio.run(kind())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        aio.install()
    print(before, asyncio.run(kind()), [(what.category.__name__, what.filename) for what in caught])

    def in_thread():
        loop = asyncio.new_event_loop()
        print(type(loop).__module__)
        loop.close()

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()

    class Test(unittest.IsolatedAsyncioTestCase):
        async def test(self):
            print(await kind())

    assert unittest.TextTestRunner(stream=io.StringIO()).run(Test("test")).wasSuccessful()
"""


@pytest.mark.skipif(sys.version_info >= (3, 16), reason="no event loop policies")
def test_asyncio_makes_our_loops_after_install() -> None:
    warned = [("DeprecationWarning", "<string>")] if sys.version_info >= (3, 14) else []
    lines = run(PROGRAM).split("\n")
    assert [line for line in lines if line] == [
        f"asyncio.unix_events pyepoll.aio {warned}",
        "pyepoll.aio",
        "pyepoll.aio",
    ]


@pytest.mark.skipif(sys.version_info < (3, 16), reason="has event loop policies")
def test_install_names_the_factory_where_there_are_no_policies() -> None:
    from pyepoll import aio

    with pytest.raises(RuntimeError, match="loop factory"):
        aio.install()
