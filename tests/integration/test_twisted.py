"""Twisted, on the loop of ``pyepoll.aio`` and on two reactors with a ``pyepoll.Epoll``.

A process has one reactor for good, so the client has a process of its own too.
"""

import json
import textwrap
from pathlib import Path

import pytest
from content import body
from proof import ASYNCIO
from serving import AT_ONCE, SIZES, exercise, finish, python, runs_on

pytest.importorskip("twisted")

INSTALL = {
    "asyncio": """
        from twisted.internet import asyncioreactor
        import pyepoll.aio
        asyncioreactor.install(pyepoll.aio.new_event_loop())
        from proof import running_loop as proof
    """,
    "epoll": """
        from twisted.internet import epollreactor
        import pyepoll
        epollreactor.epoll = pyepoll.Epoll
        epollreactor.install()
        from twisted.internet import reactor
        from proof import polled
        proof = lambda: polled(reactor._poller)
    """,
    "plugin": """
        import twisted_reactor
        twisted_reactor.install()
        from twisted.internet import reactor
        from proof import polled
        proof = lambda: polled(reactor.epoll)
    """,
}
PROOF = {"asyncio": ASYNCIO, "epoll": {"epoll": "pyepoll"}, "plugin": {"epoll": "pyepoll"}}

SERVER = """
    import json
    from content import STREAM
    from twisted.internet import endpoints, reactor, task
    from twisted.web import resource, server

    class Proof(resource.Resource):
        def render_GET(self, request):
            return json.dumps(proof()).encode()

    class Echo(resource.Resource):
        def render_POST(self, request):
            return request.content.read()

    class Stream(resource.Resource):
        def render_GET(self, request):
            pieces = iter(STREAM)
            def send():
                for piece in pieces:
                    request.write(piece)
                    return reactor.callLater(0, send)
                request.finish()
            send()
            return server.NOT_DONE_YET

    root = resource.Resource()
    root.putChild(b"proof", Proof())
    root.putChild(b"echo", Echo())
    root.putChild(b"stream", Stream())

    def listening(port):
        print("listening on 127.0.0.1:%d" % port.getHost().port, flush=True)
        reactor.addSystemEventTrigger("before", "shutdown", port.stopListening)

    endpoint = endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    endpoint.listen(server.Site(root)).addCallback(listening)
    reactor.run()
"""

CLIENT = """
    import io, json, warnings
    # Twisted's own transport of an answer that has come already is such a one.
    warnings.filterwarnings("ignore", "Using readBody with a transport that does not have an abortConnection")
    from content import STREAM, body
    from twisted.internet import defer, reactor, task
    from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, readBody

    async def fetch(agent, seed):
        for size in SIZES:
            sent = FileBodyProducer(io.BytesIO(body(seed, size)))
            answer = await agent.request(b"POST", URL + b"/echo", bodyProducer=sent)
            assert await readBody(answer) == body(seed, size)
        answer = await agent.request(b"GET", URL + b"/stream")
        assert await readBody(answer) == b"".join(STREAM)

    async def main(reactor):
        pool = HTTPConnectionPool(reactor)
        agent = Agent(reactor, pool=pool)
        await defer.gatherResults([defer.ensureDeferred(fetch(agent, seed)) for seed in range(AT_ONCE)])
        await pool.closeCachedConnections()
        print(json.dumps(proof()))

    task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
"""

CHILD = """
    import os, sys
    from content import body
    from twisted.internet import abstract, defer, fdesc, reactor, task, utils

    class File(abstract.FileDescriptor):
        def __init__(self, path):
            super().__init__(reactor)
            self.fd = os.open(path, os.O_RDONLY)
            self.read = b""
            self.done = defer.Deferred()
            self.startReading()

        def fileno(self):
            return self.fd

        def doRead(self):
            piece = os.read(self.fd, 50_000)
            self.read += piece
            if not piece:
                self.stopReading()
                os.close(self.fd)
                self.done.callback(self.read)

    async def main(reactor):
        out, err, code = await utils.getProcessOutputAndValue(
            sys.executable, ["-c", "import sys; sys.stdout.write(sys.stdin.read() * 200_000)"],
            os.environ, reactor=reactor, stdinBytes=b"abc",
        )
        assert (out, err, code) == (b"abc" * 200_000, b"", 0)
        assert await File(PATH).done == body(1, 300_000)

    task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
"""

every_reactor = pytest.mark.parametrize("reactor", INSTALL)


def program(reactor: str, text: str, **values: object) -> str:
    assignments = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    return textwrap.dedent(INSTALL[reactor]) + assignments + textwrap.dedent(text)


@every_reactor
def test_twisted_serves(tmp_path: Path, reactor: str) -> None:
    with python(tmp_path, "-c", program(reactor, SERVER)) as server:
        assert runs_on(server) == PROOF[reactor]
        exercise(server)
        server.stop()


@every_reactor
def test_twisted_fetches(tmp_path: Path, reactor: str) -> None:
    with python(tmp_path, "-c", program(reactor, SERVER)) as server:
        url = b"http://127.0.0.1:%d" % server.port
        done = finish(program(reactor, CLIENT, URL=url, SIZES=SIZES, AT_ONCE=AT_ONCE))
        assert json.loads(done) == PROOF[reactor]
        server.stop()


@every_reactor
def test_twisted_runs_a_process_and_reads_a_file(tmp_path: Path, reactor: str) -> None:
    """The kernel watches the pipes of the one and refuses the other; both are for Twisted to read."""
    (tmp_path / "file").write_bytes(body(1, 300_000))
    finish(program(reactor, CHILD, PATH=str(tmp_path / "file")))
