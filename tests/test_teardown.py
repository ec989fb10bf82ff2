"""Objects may outlive their module and types, in whatever order an exit or a collection tears things down.

Each program runs in an interpreter of its own whose allocator overwrites what is freed, so that reads show.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap

import pytest
from conftest import HANG, SANITIZED

LIVE = {
    "Epoll": "self.held = self.ep",
    "a handle of fromfd": "self.held = pyepoll.Epoll.fromfd(self.ep.fileno())",
    "iterator": "self.held = iter(self.ep); next(self.held)",
    "iterator of wait": "self.held = self.ep.wait(0)",
    "one-shots not handed out": """
        for _ in range(3):
            self.ep.register(os.eventfd(1), pyepoll.Event.IN | pyepoll.Event.ONESHOT, self)
        self.held = self.ep.wait(0)
        next(self.held)
    """,
    "pair": "self.held = self.ep.poll(0)",
    "registrations": "self.held = self.ep.registrations",
    "Waker": """
        self.held = pyepoll.Waker()
        self.ep.register(self.held, pyepoll.Event.IN, self)
    """,
    "EventBuffer": "self.held = [pyepoll.raw.EventBuffer(8), self]",
    "EpollSelector": """
        self.held = pyepoll.EpollSelector()
        self.held.register(os.eventfd(1), 1, self)
        self.held.select(0)
    """,
    "loop": """
        self.held = pyepoll.aio.EventLoop()
        self.held.call_soon(self.held.stop)
        self.held.run_forever()
        self.held.set_exception_handler(lambda loop, context: self)
    """,
    "loop with a transport": """
        import asyncio, socket
        class Protocol(asyncio.Protocol):
            def data_received(protocol, data):
                asyncio.get_running_loop().stop()
        self.held = pyepoll.aio.EventLoop()
        a, b = self.pair = socket.socketpair()
        a.setblocking(False)
        b.send(b"x")
        self.held.run_until_complete(self.held.create_connection(Protocol, sock=a))
        self.held.run_forever()
        self.write = self.held._transports[a.fileno()].write
    """,
}
"""What a server object holds, each of which holds the server in turn."""

SERVER = """
import warnings
warnings.simplefilter("ignore", ResourceWarning)
import gc, os, sys, weakref
gc.disable()  # The order in which the last collection clears what it finds is that of the making.
import pyepoll{more}

class Server:
    def __init__(self):
        self.ep = pyepoll.Epoll()
        self.ep.register(os.eventfd(1), pyepoll.Event.IN, data=self)
        self.ep.poll(0)
        self.hold()

    def hold(self):
        {hold}

server = Server()
"""

DROP = """
for name in [name for name in sys.modules if name.partition(".")[0] == "pyepoll"]:
    del sys.modules[name]
"""

ENDS = {
    "exit": "",
    "collection": DROP + "del pyepoll, server, Server\ngc.collect()",
    "module first": DROP + "del pyepoll\ngc.collect()\nserver.ep.poll(0)\ndel server, Server\ngc.collect()",
    "module last": DROP + "del server, Server\ngc.collect()\ndel pyepoll\ngc.collect()",
    "interpreter": "",
    "thread": """
import threading
threading.Thread(target=server.ep.poll, args=(3600,), daemon=True).start()
server.ep.unregister(next(iter(server.ep.registrations)))
""",
}
"""How it all goes."""


def run_debug(program: str) -> str:
    """Run a program with the debugging allocator; fail with what it complains of, or with how it died."""
    done = subprocess.run(
        [sys.executable, "-P", "-X", "faulthandler", "-c", program],
        env={
            **os.environ,
            "PYTHONMALLOC": "debug",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        capture_output=True,
        text=True,
        timeout=HANG / 2,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def server(hold: str) -> str:
    more = ", pyepoll.aio" if "aio" in hold else ""
    return SERVER.format(more=more, hold=textwrap.indent(textwrap.dedent(hold).strip(), " " * 8).strip())


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("live", LIVE)
def test_a_cycle_of_a_server_and_what_it_holds(live: str, end: str) -> None:
    program = server(LIVE[live]) + textwrap.dedent(ENDS[end])
    if end == "interpreter":
        if "aio" in program and sys.version_info[:2] == (3, 12):
            pytest.skip("in 3.12 an interpreter that has imported asyncio ends so by itself")
        program = f"from test_subinterpreters import run_in_interpreter\nrun_in_interpreter({program!r})"
    run_debug(program)


CALLBACK = """
import _thread, io
class Watch:
    def __init__(self, log):
        self.log = log
        self.refs = []
    def __call__(self, ref):
        # The lock died while the collector cleared the server: what is half torn down is still to be found.
        ours = [each for each in gc.get_objects() if self.is_ours(each)]
        for calls in CALLS:
            for each in ours:
                for call in calls:
                    try:
                        call(each)
                    except Exception as error:
                        self.log.append(type(error))
        self.log.append([object() for _ in range(1000)])
    def is_ours(self, each):
        kind = each if isinstance(each, type) else type(each)
        return str(kind.__dict__.get("__module__")).partition(".")[0] == "pyepoll"
CALLS = [
    [
        lambda each: each(), lambda each: each.poll(0), iter, lambda each: list(each.wait(0)),
        lambda each: each.register(0), lambda each: each.select(0), lambda each: each.register(0, 1), repr,
        lambda each: each.fromfd(epfd), lambda each: each.stats(), lambda each: each.registrations,
        lambda each: each.fileno(), lambda each: each.close(), lambda each: setattr(each, "_selector", each),
    ],
    [next],  # After close(), so that it does not wait.
]
import select
stock = select.epoll()
epfd = stock.fileno()
log = []
watch = Watch(log)
def attach():
    lock = _thread.allocate_lock()
    watch.refs.append(weakref.ref(lock, watch))
    return lock
"""


@pytest.mark.parametrize("end", ["exit", "collection"])
def test_a_weak_reference_whose_callback_uses_everything(end: str) -> None:
    """It is called while the collector clears the module, the types and the objects, in any order."""
    program = server(LIVE["EpollSelector"]) + CALLBACK
    program += """
for i in range(8):
    server.ep.register(os.eventfd(1), pyepoll.Event.IN, [attach(), server])
Server.lock = attach()
pyepoll.lock = attach()
pyepoll._epoll.lock = attach()
pyepoll.Epoll.lock = attach()
pyepoll.EpollSelector.lock = attach()
"""
    if end == "collection":
        program += DROP + "del pyepoll, server, Server\ngc.collect()\nprint(len(log) > 0)"
        assert run_debug(program) == "True\n"
    else:
        run_debug(program)


def test_valgrind_is_told_of_no_read_after_free() -> None:
    """The debugging allocator sees only what is read as an address; valgrind sees each read."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("no valgrind")
    if SANITIZED or sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("its memory is not malloc's")
    program = server(LIVE["EpollSelector"])
    done = subprocess.run(
        [
            valgrind,
            "--error-exitcode=9",
            "--exit-on-first-error=no",
            "-q",
            sys.executable,
            "-P",
            "-c",
            program,
        ],
        env={
            **os.environ,
            "PYTHONMALLOC": "malloc",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        capture_output=True,
        text=True,
        timeout=10 * HANG,
    )
    assert "Invalid" not in done.stderr, done.stderr[-5000:]
