"""pyepoll.Epoll behaves as select.epoll: each step is run on both, and the outcomes are compared."""

import contextlib
import decimal
import errno
import fractions
import os
import select
import socket
from collections.abc import Callable
from typing import Any

import pytest
from support.fds import Pipe
from support.kernel import fdinfo
from support.processes import run

import pyepoll

IN, OUT, ET = select.EPOLLIN, select.EPOLLOUT, select.EPOLLET


class File:
    """An object with fileno()."""

    def __init__(self, fd: Any) -> None:
        self.fd = fd

    def fileno(self) -> Any:
        if isinstance(self.fd, Exception):
            raise self.fd
        return self.fd


class Index:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def result_of(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


class Real:
    """A number by __float__ alone, which stock takes from CPython 3.15 on."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __float__(self) -> Any:
        return result_of(self.value)


class Both(Real):
    """As numpy's integers: an int by __index__, and a float by __float__."""

    def __init__(self, index: Any, value: Any) -> None:
        super().__init__(value)
        self.index = index

    def __index__(self) -> Any:
        return result_of(self.index)


class Text(str):
    def __float__(self) -> float:
        return 0.0


def closed_socket() -> socket.socket:
    sock = socket.socket()
    sock.close()
    return sock


def outcome(step: Callable[[], object]) -> object:
    """The result of a call, or its exception's type and errno."""
    try:
        result = step()
    except Exception as error:
        return type(error), getattr(error, "errno", None)
    return result


@pytest.fixture(params=[select.epoll, pyepoll.Epoll, pyepoll.epoll], ids=["select", "Epoll", "epoll"])
def cls(request: pytest.FixtureRequest) -> Any:
    return request.param


# The constructor.


@pytest.mark.parametrize(
    "make",
    [
        lambda cls: cls(),
        lambda cls: cls(-1),
        lambda cls: cls(1),
        lambda cls: cls(2**31 - 1),
        lambda cls: cls(True),
        lambda cls: cls(Index(5)),
        lambda cls: cls(sizehint=7),
        lambda cls: cls(-1, 0),
        lambda cls: cls(1, select.EPOLL_CLOEXEC),
        lambda cls: cls(flags=select.EPOLL_CLOEXEC),
        lambda cls: cls(flags=0, sizehint=-1),
        lambda cls: cls(0),
        lambda cls: cls(-2),
        lambda cls: cls(2**31),
        lambda cls: cls(-(2**31) - 1),
        lambda cls: cls(1.0),
        lambda cls: cls("1"),
        lambda cls: cls(None),
        lambda cls: cls(-1, 1),
        lambda cls: cls(-1, -1),
        lambda cls: cls(-1, select.EPOLL_CLOEXEC | 1),
        lambda cls: cls(-1, 2**31),
        lambda cls: cls(-1, "0"),
        lambda cls: cls(-1, 0, 0),
        lambda cls: cls(size=1),
        lambda cls: cls(0, 1),
    ],
)
def test_constructor_accepts_and_refuses_the_same_arguments(make: Callable[[Any], Any]) -> None:
    def step(cls: Any) -> object:
        with make(cls) as ep:
            return type(ep) is cls, os.get_inheritable(ep.fileno()), ep.closed, fdinfo(ep)

    stock, ours = outcome(lambda: step(select.epoll)), outcome(lambda: step(pyepoll.Epoll))
    if stock == (OSError, None):  # select's own check of the flags; ours has an errno.
        stock = (OSError, errno.EINVAL)
    assert ours == stock


# Every step below is handed an epoll, a pipe with data in it and room for more, and a closed fd.

STEPS: dict[str, Callable[[Any, Pipe, int], object]] = {
    # register
    "register": lambda ep, pipe, bad: ep.register(pipe.read),
    "register, positional": lambda ep, pipe, bad: ep.register(pipe.read, IN),
    "register, named": lambda ep, pipe, bad: ep.register(fd=pipe.read, eventmask=IN),
    "register, mask named": lambda ep, pipe, bad: ep.register(pipe.read, eventmask=OUT),
    "register, mask 0": lambda ep, pipe, bad: ep.register(pipe.read, 0),
    "register, mask of all": lambda ep, pipe, bad: ep.register(pipe.read, IN | ET | select.EPOLLONESHOT),
    "register, mask with __index__": lambda ep, pipe, bad: ep.register(pipe.read, Index(IN)),
    "register, mask bool": lambda ep, pipe, bad: ep.register(pipe.read, True),
    "register, object": lambda ep, pipe, bad: ep.register(File(pipe.read), IN),
    "register, twice": lambda ep, pipe, bad: (ep.register(pipe.read), ep.register(pipe.read)),
    "register, twice by object": lambda ep, pipe, bad: (ep.register(pipe.read), ep.register(File(pipe.read))),
    "register, nothing": lambda ep, pipe, bad: ep.register(),
    "register, too much": lambda ep, pipe, bad: ep.register(pipe.read, IN, None, None),
    "register, odd name": lambda ep, pipe, bad: ep.register(pipe.read, mask=IN),
    "register, closed fd": lambda ep, pipe, bad: ep.register(bad),
    "register, itself": lambda ep, pipe, bad: ep.register(ep),
    "register, its number": lambda ep, pipe, bad: ep.register(ep.fileno()),
    "register, negative": lambda ep, pipe, bad: ep.register(-1),
    "register, too large": lambda ep, pipe, bad: ep.register(2**31),
    "register, far too large": lambda ep, pipe, bad: ep.register(2**100),
    "register, str": lambda ep, pipe, bad: ep.register("1"),
    "register, float": lambda ep, pipe, bad: ep.register(1.0),
    "register, None": lambda ep, pipe, bad: ep.register(None),
    "register, __index__": lambda ep, pipe, bad: ep.register(Index(pipe.read)),
    "register, object()": lambda ep, pipe, bad: ep.register(object()),
    "register, fileno str": lambda ep, pipe, bad: ep.register(File("1")),
    "register, fileno negative": lambda ep, pipe, bad: ep.register(File(-1)),
    "register, fileno too large": lambda ep, pipe, bad: ep.register(File(2**40)),
    "register, fileno fails": lambda ep, pipe, bad: ep.register(File(KeyError("odd"))),
    "register, closed file": lambda ep, pipe, bad: ep.register(closed_socket()),
    "register, mask str": lambda ep, pipe, bad: ep.register(pipe.read, "1"),
    "register, mask float": lambda ep, pipe, bad: ep.register(pipe.read, 1.0),
    "register, mask None": lambda ep, pipe, bad: ep.register(pipe.read, None),
    # modify
    "modify": lambda ep, pipe, bad: (ep.register(pipe.read), ep.modify(pipe.read, OUT)),
    "modify, named": lambda ep, pipe, bad: (ep.register(pipe.read), ep.modify(fd=pipe.read, eventmask=0)),
    "modify, object": lambda ep, pipe, bad: (ep.register(pipe.read), ep.modify(File(pipe.read), OUT)),
    "modify, no mask": lambda ep, pipe, bad: (ep.register(pipe.read), ep.modify(pipe.read)),
    "modify, mask None": lambda ep, pipe, bad: (ep.register(pipe.read), ep.modify(pipe.read, None)),
    "modify, mask str": lambda ep, pipe, bad: (ep.register(pipe.read), ep.modify(pipe.read, "1")),
    "modify, not registered": lambda ep, pipe, bad: ep.modify(pipe.read, IN),
    "modify, closed fd": lambda ep, pipe, bad: ep.modify(bad, IN),
    "modify, negative": lambda ep, pipe, bad: ep.modify(-1, IN),
    "modify, str": lambda ep, pipe, bad: ep.modify("1", IN),
    # unregister
    "unregister": lambda ep, pipe, bad: (ep.register(pipe.read), ep.unregister(pipe.read)),
    "unregister, named": lambda ep, pipe, bad: (ep.register(pipe.read), ep.unregister(fd=pipe.read)),
    "unregister, object": lambda ep, pipe, bad: (ep.register(pipe.read), ep.unregister(File(pipe.read))),
    "unregister, twice": lambda ep, pipe, bad: [
        outcome(step)
        for step in (
            lambda: ep.register(pipe.read),
            lambda: ep.unregister(pipe.read),
            lambda: ep.unregister(pipe.read),
        )
    ],
    "unregister, not registered": lambda ep, pipe, bad: ep.unregister(pipe.read),
    "unregister, closed fd": lambda ep, pipe, bad: ep.unregister(bad),
    "unregister, negative": lambda ep, pipe, bad: ep.unregister(-1),
    "unregister, str": lambda ep, pipe, bad: ep.unregister("1"),
    "unregister, nothing": lambda ep, pipe, bad: ep.unregister(),
    # poll
    "poll": lambda ep, pipe, bad: ep.poll(0),
    "poll, positional": lambda ep, pipe, bad: ep.poll(0, 1),
    "poll, named": lambda ep, pipe, bad: ep.poll(timeout=0, maxevents=1),
    "poll, float": lambda ep, pipe, bad: ep.poll(0.001, -1),
    "poll, __index__": lambda ep, pipe, bad: ep.poll(Index(0), Index(5)),
    "poll, __float__": lambda ep, pipe, bad: ep.poll(Real(0.001)),
    "poll, __float__ -1": lambda ep, pipe, bad: (ep.register(pipe.read, IN), ep.poll(Real(-1.0))),
    "poll, __float__ -2": lambda ep, pipe, bad: (ep.register(pipe.read, IN), ep.poll(Real(-2.0))),
    "poll, __float__ nan": lambda ep, pipe, bad: ep.poll(Real(float("nan"))),
    "poll, __float__ not a float": lambda ep, pipe, bad: ep.poll(Real("0")),
    "poll, __float__ raises": lambda ep, pipe, bad: ep.poll(Real(LookupError("odd"))),
    "poll, __float__ and __index__": lambda ep, pipe, bad: ep.poll(Both(0, LookupError("odd"))),
    "poll, __float__ and a wrong __index__": lambda ep, pipe, bad: ep.poll(Both("0", 0.0)),
    "poll, __float__ of a str": lambda ep, pipe, bad: ep.poll(Text("0")),
    "poll, Decimal": lambda ep, pipe, bad: ep.poll(decimal.Decimal("0.001")),
    "poll, Decimal nan": lambda ep, pipe, bad: ep.poll(decimal.Decimal("nan")),
    "poll, Fraction": lambda ep, pipe, bad: ep.poll(fractions.Fraction(1, 1000)),
    "poll, complex": lambda ep, pipe, bad: ep.poll(0j),
    "poll, bool": lambda ep, pipe, bad: ep.poll(False, True),
    "poll, timeout str": lambda ep, pipe, bad: ep.poll("0"),
    "poll, timeout nan": lambda ep, pipe, bad: ep.poll(float("nan")),
    "poll, maxevents 0": lambda ep, pipe, bad: ep.poll(0, 0),
    "poll, maxevents -2": lambda ep, pipe, bad: ep.poll(0, -2),
    "poll, maxevents str": lambda ep, pipe, bad: ep.poll(0, "1"),
    "poll, maxevents float": lambda ep, pipe, bad: ep.poll(0, 1.0),
    "poll, maxevents None": lambda ep, pipe, bad: ep.poll(0, None),
    "poll, too much": lambda ep, pipe, bad: ep.poll(0, 1, None),
    "poll, odd name": lambda ep, pipe, bad: ep.poll(0, max=1),
    "poll, ready": lambda ep, pipe, bad: (ep.register(pipe.read, IN), ep.poll(), ep.poll(-1), ep.poll(0)),
    "poll, two ready": lambda ep, pipe, bad: (ep.register(pipe.read), ep.register(pipe.write), ep.poll(0)),
    "poll, edge": lambda ep, pipe, bad: (ep.register(pipe.read, IN | ET), ep.poll(0), ep.poll(0)),
    "poll, by object": lambda ep, pipe, bad: (ep.register(File(pipe.read)), ep.poll(0)),
    "poll, types": lambda ep, pipe, bad: (
        ep.register(pipe.read),
        type(ep.poll(0)),
        [type(event) for event in ep.poll(0)],
        [isinstance(part, int) for event in ep.poll(0) for part in event],
    ),
    # the object
    "closed": lambda ep, pipe, bad: (ep.closed, ep.close(), ep.closed, ep.close(), ep.closed),
    "closed is read-only": lambda ep, pipe, bad: setattr(ep, "closed", True),
    "bool": lambda ep, pipe, bad: (bool(ep), ep.close(), bool(ep)),
    "fileno": lambda ep, pipe, bad: os.readlink(f"/proc/self/fd/{ep.fileno()}"),
    "with": lambda ep, pipe, bad: (ep.__enter__() is ep, ep.__exit__(None, None, None), ep.closed),
    "with, no arguments": lambda ep, pipe, bad: (ep.__exit__(), ep.closed),
    "with, an error": lambda ep, pipe, bad: (ep.__exit__(KeyError, KeyError(), None), ep.closed),
    "with, too much": lambda ep, pipe, bad: ep.__exit__(None, None, None, None),
    "equal to itself alone": lambda ep, pipe, bad: (ep == ep, ep == 1, hash(ep) == hash(ep)),
    "no attributes": lambda ep, pipe, bad: setattr(ep, "name", 1),
    # closed
    "closed: fileno": lambda ep, pipe, bad: (ep.close(), ep.fileno()),
    "closed: register": lambda ep, pipe, bad: (ep.close(), ep.register(pipe.read)),
    "closed: modify": lambda ep, pipe, bad: (ep.close(), ep.modify(pipe.read, IN)),
    "closed: unregister": lambda ep, pipe, bad: (ep.close(), ep.unregister(pipe.read)),
    "closed: poll": lambda ep, pipe, bad: (ep.close(), ep.poll(0)),
    "closed: with": lambda ep, pipe, bad: (ep.close(), ep.__enter__()),
    "closed: exit": lambda ep, pipe, bad: (ep.close(), ep.__exit__(None, None, None)),
    # fromfd
    "fromfd": lambda ep, pipe, bad: shared(ep, pipe),
    "fromfd, str": lambda ep, pipe, bad: type(ep).fromfd("1"),
    "fromfd, float": lambda ep, pipe, bad: type(ep).fromfd(1.0),
    "fromfd, nothing": lambda ep, pipe, bad: type(ep).fromfd(),
    "fromfd, too large": lambda ep, pipe, bad: type(ep).fromfd(2**31),
    "fromfd, named": lambda ep, pipe, bad: type(ep).fromfd(fd=ep.fileno()),
}


def shared(ep: Any, pipe: Pipe) -> object:
    """Two objects of one fd see the same registrations; the first to close it closes it for both."""
    other = type(ep).fromfd(ep.fileno())
    ep.register(pipe.read, IN)
    seen = [type(other) is type(ep), other is ep, other.fileno() == ep.fileno(), other.poll(0), ep.poll(0)]
    other.modify(pipe.read, IN | ET)
    seen += [ep.poll(0), other.poll(0)]
    other.unregister(pipe.read)
    other.register(pipe.write, OUT)
    seen += [ep.poll(0), outcome(lambda: ep.modify(pipe.read, IN))]
    other.close()
    seen += [other.closed, ep.closed, outcome(other.fileno)]
    seen += [outcome(lambda: ep.register(pipe.read)), outcome(lambda: ep.poll(0))]
    with contextlib.suppress(OSError):  # CPython 3.15 raises EBADF; ours has closed the fd, and does nothing.
        ep.close()
    return [*seen, ep.closed]


@pytest.mark.parametrize("step", STEPS)
def test_each_step_has_the_outcome_of_stock(closed_fd: int, step: str) -> None:
    outcomes = []
    both: tuple[Any, Any] = (select.epoll, pyepoll.Epoll)
    for cls in both:
        pipe = Pipe()
        os.write(pipe.write, b"x")
        with cls() as ep:
            result = outcome(lambda: STEPS[step](ep, pipe, closed_fd))  # noqa: B023
            watched = None if ep.closed else {fd: events for fd, (events, _) in fdinfo(ep).items()}
            outcomes.append((result, watched))
        pipe.close()
    stock, ours = outcomes
    assert ours == stock


def test_with_does_not_suppress_exceptions(cls: Any) -> None:
    with pytest.raises(KeyError), cls() as ep:
        raise KeyError
    assert ep.closed


def test_garbage_collection_closes_the_epoll(cls: Any) -> None:
    ep = cls()
    fd = ep.fileno()
    del ep
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


# Programs.

PROGRAM = """
import socket
{imports}

with socket.create_server(("127.0.0.1", 0)) as server, select.epoll() as ep:
    server.setblocking(False)
    ep.register(server.fileno(), select.EPOLLIN)
    client = socket.create_connection(server.getsockname())
    connections = {{}}
    client.sendall(b"hello")
    log = []
    while len(log) < 5:
        for fd, event in ep.poll(10, maxevents=16):
            if fd == server.fileno():
                connection, _ = server.accept()
                connection.setblocking(False)
                ep.register(connection.fileno(), select.EPOLLIN | select.EPOLLRDHUP)
                connections[connection.fileno()] = connection
                log.append("accepted")
            elif event & select.EPOLLIN and (data := connections[fd].recv(1024)):
                connections[fd].sendall(data.upper())
                ep.modify(fd, select.EPOLLOUT)
                log.append(f"in {{data!r}}")
            elif event & select.EPOLLOUT:
                ep.modify(fd, select.EPOLLIN | select.EPOLLRDHUP)
                log.append(f"out {{client.recv(1024)!r}}")
                client.shutdown(socket.SHUT_WR)
            elif event & select.EPOLLRDHUP:
                log.append(f"end {{event:#x}}")
                ep.unregister(fd)
                connections.pop(fd).close()
                log.append(f"left {{ep.poll(0)}}")
    client.close()
    print(log, ep.closed)
print(ep.closed, sorted(name for name in dir(select) if name in {names!r}))
"""


def test_import_as_select_works() -> None:
    names = [name for name in dir(select) if name.startswith(("EPOLL", "epoll"))]
    stock, ours = (
        run(PROGRAM.format(imports=imports, names=names))
        for imports in ("import select", "import pyepoll as select")
    )
    assert "accepted" in stock
    assert "left []" in stock
    assert ours == stock


def test_error_is_select_error() -> None:
    assert pyepoll.error is select.error is OSError
    assert "error" in pyepoll.__all__


def test_error_for_a_closed_socket_names_a_way_out() -> None:
    """The type of the exception is stock's. The way out that the text names works."""
    a, b = socket.socketpair()
    with b, pyepoll.Epoll[object]() as ep, select.epoll() as stock:
        number = a.fileno()
        for each in ep, stock:
            each.register(a, select.EPOLLIN)
        a.close()
        with pytest.raises(ValueError):
            stock.unregister(a)
        with pytest.raises(
            ValueError,
            match=r"^unregister\(\): the socket object is closed.* before you close it, or pass the int",
        ):
            ep.unregister(a)
        assert number in ep, "the closed object has no fd, so the registration is there"
        with pytest.raises(OSError) as gone:
            ep.unregister(number)
        assert gone.value.errno == errno.EBADF
        assert number not in ep
        for refused in (
            lambda: ep.register(a),
            lambda: ep.modify(a, 1),
            lambda: ep.rearm(a),
            lambda: a in ep,
        ):
            with pytest.raises(
                ValueError, match=r"\(\): the socket object is closed, its fileno\(\) is negative$"
            ):
                refused()


class Misleading:
    """fileno() is called again for the text of the error; its first result or exception counts."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    def fileno(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize("operation", ["register", "modify", "unregister", "rearm", "__contains__"])
def test_wrong_fd_names_operation_and_type(operation: str) -> None:
    def refusal(error: type[Exception], fd: object) -> str:
        with pytest.raises(error) as refused:
            getattr(ep, operation)(fd, *([1] if operation == "modify" else []))
        return str(refused.value)

    with pyepoll.Epoll[object]() as ep:
        wrong = f"{operation}(): fd must be an int or an object with fileno(), not "
        assert refusal(TypeError, "x") == f"{wrong}str"
        assert refusal(TypeError, None) == f"{wrong}NoneType"
        assert refusal(ValueError, -1) == f"{operation}(): an fd cannot be negative: -1"
        assert "fileno()" in refusal(TypeError, Misleading("x"))
        assert refusal(TypeError, Misleading(TypeError("its own"))) == "its own"
        assert refusal(ValueError, Misleading(ValueError("its own"), 5)) == "its own"
        assert refusal(ValueError, Misleading(ValueError("its own"), ValueError("other"))) == "its own"
        assert refusal(ZeroDivisionError, Misleading(ZeroDivisionError("its own"))) == "its own"
        assert "Misleading object is closed" in refusal(ValueError, Misleading(-1, -1))
        assert "negative" in refusal(ValueError, Misleading(-1, 5))
        assert refusal(OverflowError, 2**40)
