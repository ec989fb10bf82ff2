"""Objects may outlive their module and types, in whatever order an exit or a collection tears things down.

Each program runs in an interpreter of its own whose allocator overwrites freed memory, so that reads show.
"""

import itertools
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import textwrap

import pytest
from support.processes import HANG, SANITIZED
from support.thirds import thirds

LIVE = {
    "Epoll": "self.held = self.ep",
    "a handle of fromfd": "self.held = pyepoll.Epoll.fromfd(self.ep.fileno())",
    "front": "self.held = self.ep.fileno()",
    "front of a selector": """
        self.held = pyepoll.EpollSelector()
        self.held.register(self.ep, 1, self)
        self.held.fileno()
        self.held.select(0)
    """,
    "inner": """
        self.held = pyepoll.Epoll()
        self.held.register(os.eventfd(1), pyepoll.Event.IN, self)
        self.ep.register(self.held, pyepoll.Event.IN, [self.held, self])
        self.ep.poll(0)
    """,
    "outer": """
        self.held = pyepoll.Epoll()
        self.held.register(self.ep, pyepoll.Event.IN, [self.ep, self])
        self.held.poll(0)
    """,
    "three levels": """
        middle, top = self.held = [pyepoll.Epoll(), pyepoll.Epoll()]
        middle.register(self.ep, pyepoll.Event.IN, top)
        top.register(middle, pyepoll.Event.IN, self)
        self.iterators = [iter(top), middle.wait(0), iter(self.ep)]
        for each in self.iterators:
            next(each)
    """,
    "a shared inner, and a stock epoll": """
        import select
        self.held = pyepoll.Epoll()
        self.stock = select.epoll()
        for each in self.held, self.stock:
            each.register(self.ep.fileno(), 1)
        self.held.modify(self.ep, 1, self)
        self.other = pyepoll.Epoll.fromfd(os.dup(self.stock.fileno()))
        self.other.register(self.held, 1, self)
        self.other.poll(0)
    """,
    "inner with a stale registration": """
        self.held = pyepoll.Epoll()
        fd = os.eventfd(1)
        self.held.register(fd, pyepoll.Event.IN, self)
        self.ep.register(self.held, pyepoll.Event.IN, [self.held, self])
        self.kept = os.dup(fd)
        os.close(fd)
        for _ in range(9):
            self.held.poll(0)
    """,
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
    "Timer": """
        self.held = pyepoll.Timer(interval=0.001)
        self.ep.register(self.held, pyepoll.Event.IN, self)
    """,
    "Signals": """
        self.held = pyepoll.Signals(10, 40, 64)
        self.ep.register(self.held, pyepoll.Event.IN, self)
        os.kill(os.getpid(), 10)
        assert self.held.read() == [10]
    """,
    "Signals in a cycle": """
        import signal
        signal.Signals(10).holder = self
        self.held = pyepoll.Signals(10)
    """,
    "Child": """
        self.held = pyepoll.Child(os.getpid())
        self.ep.register(self.held, pyepoll.Event.IN, self)
    """,
    "EventBuffer": "self.held = [pyepoll.raw.EventBuffer(8), self]",
    "EpollSelector": """
        self.held = pyepoll.EpollSelector()
        self.held.register(os.eventfd(1), 1, self)
        self.held.select(0)
    """,
    "registrations of an inner": """
        inner = pyepoll.Epoll()
        inner.register(os.eventfd(1), pyepoll.Event.IN, self)
        self.ep.register(inner, pyepoll.Event.IN, self)
        self.held = [inner.registrations, inner.stats(), inner.registrations[next(iter(inner.registrations))]]
    """,
    "Waker in an inner": """
        self.held = pyepoll.Waker()
        inner = pyepoll.Epoll()
        inner.register(self.held, pyepoll.Event.IN, self)
        self.held.wake()
        self.ep.register(inner, pyepoll.Event.IN, inner)
        self.ep.poll(0)
    """,
    "BusyPoll and events": "self.held = [pyepoll.BusyPoll(1), pyepoll.Event(5), pyepoll.Event.IN, self]",
    "loop that watches": """
        self.held = pyepoll.aio.EventLoop()
        self.held.add_reader(self.ep.fileno(), lambda: self)
        self.held.call_soon(self.held.stop)
        self.held.run_forever()
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
"""The attributes of a server object, each of which refers to the server in turn."""

SERVER = """
import warnings
warnings.simplefilter("ignore", ResourceWarning)
import gc, os, sys, weakref
gc.disable()  # The last collection clears its objects in the order in which they were made.
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
    """Run a program with the debugging allocator; fail with its complaints, or with how it died."""
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


@pytest.mark.parametrize(("live", "end"), thirds(itertools.product(LIVE, ENDS)))
def test_a_cycle_of_a_server_and_its_objects_is_freed_safely(live: str, end: str) -> None:
    program = server(LIVE[live]) + textwrap.dedent(ENDS[end])
    if end == "interpreter":
        if "aio" in program and sys.version_info[:2] == (3, 12):
            pytest.skip("in 3.12 an interpreter that has imported asyncio ends so by itself")
        program = f"from support.interpreters import run_in_interpreter\nrun_in_interpreter({program!r})"
    run_debug(program)


NESTED = """
import warnings
warnings.simplefilter("ignore", ResourceWarning)
import gc, itertools, os, select, sys
import pyepoll

class Data:
    def __init__(self, *held):
        self.held = held
    def __del__(self):
        for each in self.held:  # They may be closed, or about to be.
            try:
                each.fileno(), (each.select if hasattr(each, "get_map") else each.poll)(0)
            except (ValueError, OSError):
                pass

def nest(make):
    fd = os.eventfd(1)
    inner, outer = pyepoll.Epoll(), make()
    inner.register(fd, pyepoll.Event.IN, Data(inner))
    if isinstance(outer, select.epoll):
        outer.register(inner.fileno(), 1)
    else:
        outer.register(inner, 1, Data(inner, outer))
    use(outer)
    return fd, inner, outer

def use(each):
    (each.select if hasattr(each, "get_map") else each.poll)(0)

def end(each, how):
    if how == "close":
        each.close()
    # Else the last reference goes, but for those of a cycle.

made, alive = (
    [nest(make) for make in (pyepoll.Epoll, pyepoll.EpollSelector, select.epoll)] for _ in range(2)
)
"""

DEATHS = {
    "inner first": "[inner, outer]",
    "outer first": "[outer, inner]",
}


@pytest.mark.parametrize(
    ("order", "how", "end"),
    thirds(itertools.product(DEATHS, ["close", "drop"], ["exit", "collection", "module first"])),
)
def test_either_of_two_nested_epolls_can_be_freed_first(order: str, how: str, end: str) -> None:
    """The other works on, and a duplicate of the dead one is never ready. The rest stays open to the end."""
    program = (
        NESTED
        + f"""
while made:
    fd, inner, outer = made.pop()
    order = {DEATHS[order]}
    duplicate = os.dup(inner.fileno())
    del inner, outer
    while order:
        each = order.pop(0)
        end(each, {how!r})
        del each
        for _ in range(2):  # A finalizer's poll() makes what the first collection does not know.
            gc.collect()
        for left in order:
            use(left)
        left = None
    assert select.select([duplicate], [], [], 0)[0] == []
    os.close(duplicate), os.close(fd)
"""
    )
    if end == "collection":
        program += DROP + "del pyepoll, alive\ngc.collect()\n"
    elif end == "module first":
        program += (
            DROP + "del pyepoll\ngc.collect()\nfor _, *both in alive:\n    for each in both: use(each)\n"
        )
        program += "del alive, both, each\ngc.collect()\n"
    run_debug(program)


CALLBACK = """
import _thread, io
class Watch:
    def __init__(self, log):
        self.log = log
        self.refs = []
    def __call__(self, ref):
        # The lock died while the collector cleared the server: half-cleared objects can still be found.
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
def test_a_callback_of_a_weak_reference_can_use_every_object(end: str) -> None:
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="valgrind replaces the malloc of glibc only")
def test_valgrind_reports_no_read_after_free() -> None:
    """The debugging allocator detects only reads that are used as an address; valgrind detects each read."""
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
