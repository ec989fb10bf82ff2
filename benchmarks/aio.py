"""The rate of asyncio servers on pyepoll, uvloop and the stock event loop, and of a server in C, per core.

A loop that is not installed is left out, and so are the figures that need it. The round trips are those of a
server that is never idle: their median adds little to the rate, for all connections are in flight and each
waits for the others. The 99th percentile shows how much longer a connection may wait.
"""

import asyncio
import pkgutil
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter_ns
from typing import NamedTuple

from .compiler import compiled
from .machine import allow_fds, pinned
from .measure import Spread, in_turns, ratio, spread
from .messages import BODY, REQUEST
from .report import Bar, Figure
from .server_rounds import SATURATED, Command, Turn, message_load, seconds_for, turns

__all__ = ["measure"]

LOOPS = {
    "stock": "asyncio:new_event_loop",
    "uvloop": "uvloop:new_event_loop",
    "pyepoll": "pyepoll.aio:new_event_loop",
}
BURST_MS = 150
SLEEP_US = 100
SLEEPS = 4
"""How many sleeps a turn has."""


class Scenario(NamedTuple):
    name: str
    kind: str
    """Which server of aio_servers.py it is."""
    connections: int
    bars: Mapping[str, Bar]
    """The bar for pyepoll's rate, as a multiple of another's."""
    tail: Bar | None = None
    """The bar for the 99th percentile of its round trips, as a multiple of uvloop's."""
    depth: int = 1
    floor: bool = False
    """Whether the same is there in C."""


NO_WORSE = Bar("<=", 1)
SCENARIOS = (
    Scenario(
        "Protocol echo", "protocol", 64, {"uvloop": Bar(">=", 1), "stock": Bar(">=", 5)}, NO_WORSE, floor=True
    ),
    Scenario("Protocol echo", "protocol", 1000, {"uvloop": Bar(">=", 0.97)}, NO_WORSE, floor=True),
    Scenario(
        "Protocol echo, 16 in flight", "protocol", 64, {"uvloop": Bar(">=", 0.97)}, NO_WORSE, 16, floor=True
    ),
    Scenario("Protocol, a write for each of 16", "messages", 64, {}, depth=16),
    Scenario("Streams echo", "streams", 64, {"stock": Bar(">=", 2)}),
    Scenario("TLS echo", "tls", 64, {"stock": Bar(">=", 1)}),
    Scenario("uvicorn", "http", 64, {"stock": Bar(">=", 1.04)}),
)


def leave_out(what: str, why: str) -> None:
    print(f"aio: without {what}: {why}", file=sys.stderr)


def loops() -> dict[str, str]:
    """Return the loops that are installed, and tell of the others."""
    found = {name: factory for name, factory in LOOPS.items() if find_spec(factory.partition(":")[0])}
    for name in LOOPS:
        if name not in found:
            leave_out(name, "not installed")
    return found


def certificate(directory: Path) -> str:
    """Make a key and a certificate in one file; return its path, or "" where that cannot be done."""
    if shutil.which("openssl") is None:
        return ""
    key, cert = directory / "key.pem", directory / "cert.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -days 2"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    both = directory / "both.pem"
    both.write_text(key.read_text() + cert.read_text())
    return str(both)


def tls_program() -> Path:
    return compiled("load.c", "-DTLS", "-lssl", name="load_tls")


def missing_for(scenario: Scenario, pem: str) -> str:
    """Return the reason why a scenario cannot be measured here, or ""."""
    if scenario.kind == "tls":
        if find_spec("_ssl") is None:
            return "this Python has no ssl"
        if not pem:
            return "no openssl to make a certificate with"
        try:
            tls_program()
        except subprocess.CalledProcessError:
            return "the load needs OpenSSL's headers"
    if scenario.kind == "http" and not (find_spec("uvicorn") and find_spec("httptools")):
        return "uvicorn or httptools is not installed"
    return ""


def http_load(connections: int, seconds: int) -> Callable[[str], Command]:
    """Return the command of a load, a function of the port, of requests on connections that stay open."""

    def answer_size(port: str) -> int:
        with (
            socket.create_connection(("127.0.0.1", int(port)), timeout=20) as conn,
            conn.makefile("rb") as lines,
        ):
            conn.sendall(REQUEST.encode())
            head = 0
            while line := lines.readline():
                head += len(line)
                if line == b"\r\n":
                    return head + len(BODY)
        raise RuntimeError("the server hung up")

    def command(port: str) -> Command:
        sizes = [str(connections), "1", str(seconds)]
        return [compiled("load.c"), port, *sizes, REQUEST, "HTTP/1.1 200 ", str(answer_size(port))]

    return command


def load_of(scenario: Scenario, seconds: int) -> Callable[[str], Command]:
    match scenario.kind:
        case "tls":
            return message_load(scenario.connections, seconds, program=tls_program())
        case "http":
            return http_load(scenario.connections, seconds)
        case _:
            return message_load(scenario.connections, seconds, scenario.depth)


def results_of(
    scenario: Scenario, factories: Mapping[str, str], pem: str, rounds: int, milliseconds: int
) -> dict[str, list[Turn]]:
    seconds = seconds_for(1 + len(factories), rounds, milliseconds)
    python = [sys.executable, "-m", "benchmarks.aio_servers", scenario.kind]
    servers: dict[str, Command] = {"C": [compiled("echo.c"), str(seconds)]} if scenario.floor else {}
    for name, factory in factories.items():
        servers[name] = [*python, factory, pem, str(seconds)]
    return turns(servers, load_of(scenario, seconds), rounds, milliseconds)


def figures_of(scenario: Scenario, results: Mapping[str, list[Turn]]) -> list[Figure]:
    rates = {name: [turn.rate for turn in of_one] for name, of_one in results.items()}
    cpus = {name: [turn.cpu for turn in of_one] for name, of_one in results.items()}
    tails = {name: [turn.tail for turn in of_one] for name, of_one in results.items()}
    figures: list[Figure] = []

    def add(name: str, value: Spread, bar: Bar | None = None, unit: str = "") -> None:
        figures.append(Figure("aio", f"{scenario.name}, {name}", value, bar, scenario.connections, unit))

    for name in ("uvloop", "stock"):
        if {name, "pyepoll"} <= rates.keys():
            add(f"pyepoll / {name}", ratio(rates["pyepoll"], rates[name]), scenario.bars.get(name))
            add(f"CPU time, {name} / pyepoll", ratio(cpus[name], cpus["pyepoll"]))
    if {"uvloop", "stock"} <= rates.keys():
        add("uvloop / stock", ratio(rates["uvloop"], rates["stock"]))
    if {"uvloop", "pyepoll"} <= rates.keys():
        add("p99, pyepoll / uvloop", ratio(tails["pyepoll"], tails["uvloop"]), scenario.tail)
    if scenario.floor:
        for name in rates:
            if name != "C":
                add(f"{name} / C", ratio(rates[name], rates["C"]))
    for name, of_one in results.items():
        add(name, spread(rates[name]), unit="/s")
        add(f"{name}: p50", spread([turn.median for turn in of_one]), unit="µs")
        add(f"{name}: p99", spread(tails[name]), unit="µs")
        add(f"{name}: had its core", spread([turn.busy for turn in of_one]), SATURATED)
    return figures


async def sleeps(count: int) -> list[float]:
    """Return how many microseconds each of some short sleeps took."""
    times = []
    for _ in range(count):
        start = perf_counter_ns()
        await asyncio.sleep(SLEEP_US / 1e6)
        times.append((perf_counter_ns() - start) / 1000)
    return times


def sleep_figures(factories: Mapping[str, str], rounds: int) -> Iterator[Figure]:
    times: dict[str, list[float]] = {name: [] for name in factories}
    with pinned(), ExitStack() as stack:
        runners = {
            name: stack.enter_context(asyncio.Runner(loop_factory=pkgutil.resolve_name(factory)))
            for name, factory in factories.items()
        }
        for name in in_turns(factories, rounds):
            times[name] += runners[name].run(sleeps(SLEEPS))
    for name, of_one in times.items():
        ours = name == "pyepoll"
        title = f"asyncio.sleep({SLEEP_US / 1e6:.4f}), {name}"
        yield Figure("aio", title, spread(of_one), Bar("<=", 2.5 * SLEEP_US) if ours else None, unit="µs")
        shortest = spread([min(of_one)])
        yield Figure(
            "aio", f"{title}: the shortest", shortest, Bar(">=", SLEEP_US) if ours else None, unit="µs"
        )


def measure(rounds: int) -> list[Figure]:
    allow_fds(max(scenario.connections for scenario in SCENARIOS))
    factories, figures = loops(), []
    with TemporaryDirectory() as directory:
        pem = certificate(Path(directory))
        for scenario in SCENARIOS:
            if why := missing_for(scenario, pem):
                leave_out(scenario.name, why)
                continue
            results = results_of(scenario, factories, pem, max(5, rounds // 5), BURST_MS)
            figures += figures_of(scenario, results)
    return [*figures, *sleep_figures(factories, rounds)]
