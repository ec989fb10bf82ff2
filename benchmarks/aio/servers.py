"""The rate of asyncio servers on each event loop, and of a server in C, per core.

A loop that is not installed or that a server does not work on is left out, and so are the figures that need
it. The round trips are those of a server that is never idle: their median adds little to the rate, for all
connections are in flight and each waits for the others. The 99th percentile shows how much longer a
connection may wait.
"""

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ..compiler import compiled
from ..measure import Spread, ratio, spread
from ..messages import BODY, REQUEST
from ..report import Bar, Figure
from ..server_rounds import SATURATED, Command, Turn, message_load, seconds_for, turns
from .loops import OURS, leave_out

__all__ = ["SCENARIOS", "Scenario", "certificate", "figures_of", "missing_for", "results_of"]

BURST_MS = 150


NO_WORSE = Bar(">=", 1)


class Scenario(NamedTuple):
    name: str
    kind: str
    """Which server of serve.py it is."""
    connections: int = 64
    bars: Mapping[str, Bar] = MappingProxyType({})
    """The bar for pyepoll's rate as a multiple of another loop's, where it is not NO_WORSE."""
    depth: int = 1
    floor: bool = False
    """Whether the same is there in C."""

    @property
    def title(self) -> str:
        return f"{self.name}, {self.connections:,}"


# io_uring saves blazio system calls that epoll needs.
FRAMEWORK = {"blazio": Bar(">=", 0.97), "uvloop": Bar(">=", 1.4)}
ECHO = {"blazio": Bar(">=", 0.93)}
SCENARIOS = (
    Scenario("Protocol echo", "protocol", 64, {**ECHO, "stock": Bar(">=", 5)}, floor=True),
    Scenario("Protocol echo", "protocol", 1000, ECHO, floor=True),
    Scenario("Protocol echo, 16 in flight", "protocol", depth=16, floor=True),
    Scenario("Protocol, a write for each of 16", "messages", depth=16),
    Scenario("Protocol, a reply in two writes", "two_writes", bars={"blazio": Bar(">=", 0.97)}),
    Scenario("Streams echo", "streams", bars={"stock": Bar(">=", 2)}),
    Scenario("sock_recv and sock_sendall echo", "sock"),
    Scenario("TLS echo", "tls", bars={"stock": Bar(">=", 1.15)}),
    Scenario("uvicorn", "uvicorn", bars=FRAMEWORK),
    Scenario("aiohttp", "aiohttp", bars=FRAMEWORK),
    Scenario("aiohttp, a streamed response", "aiohttp_streamed", bars=FRAMEWORK),
)

NEEDS = {
    "uvicorn": ("uvicorn", "httptools"),
    "aiohttp": ("aiohttp",),
    "aiohttp_streamed": ("aiohttp",),
}
"""The packages of the servers that speak HTTP."""


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


def missing_for_tls(pem: str) -> str:
    """Return the reason why TLS cannot be measured here, or ""."""
    if find_spec("_ssl") is None:
        return "this Python has no ssl"
    if not pem:
        return "no openssl to make a certificate with"
    try:
        tls_program()
    except subprocess.CalledProcessError:
        return "the load needs OpenSSL's headers"
    return ""


def missing_for(scenario: Scenario, pem: str) -> str:
    """Return the reason why a scenario cannot be measured here, or ""."""
    if scenario.kind == "tls":
        return missing_for_tls(pem)
    needs = NEEDS.get(scenario.kind, ())
    missing = [package for package in needs if find_spec(package) is None]
    return f"{' and '.join(missing)} not installed" if missing else ""


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
        case kind if kind in NEEDS:
            return http_load(scenario.connections, seconds)
        case _:
            return message_load(scenario.connections, seconds, scenario.depth)


def results_of(
    scenario: Scenario, factories: Mapping[str, str], pem: str, rounds: int, milliseconds: int
) -> dict[str, list[Turn]]:
    seconds = seconds_for(1 + len(factories), rounds, milliseconds)
    python = [sys.executable, "-m", "benchmarks.aio.serve", scenario.kind]
    servers: dict[str, Command] = {"C": [compiled("echo.c"), str(seconds)]} if scenario.floor else {}
    for name, factory in factories.items():
        servers[name] = [*python, factory, pem, str(seconds)]
    results, failed = turns(servers, load_of(scenario, seconds), rounds, milliseconds)
    for name, why in failed.items():
        leave_out(f"{scenario.title}, on {name}", why)
    return results


def figures_of(scenario: Scenario, results: Mapping[str, list[Turn]]) -> list[Figure]:
    rates = {name: [turn.rate for turn in of_one] for name, of_one in results.items()}
    cpus = {name: [turn.cpu for turn in of_one] for name, of_one in results.items()}
    tails = {name: [turn.tail for turn in of_one] for name, of_one in results.items()}
    figures: list[Figure] = []

    def add(name: str, value: Spread, bar: Bar | None = None, unit: str = "") -> None:
        figures.append(Figure("aio", f"{scenario.name}, {name}", value, bar, scenario.connections, unit))

    for name in rates:
        if OURS in rates and name not in (OURS, "C"):
            add(f"{OURS} / {name}", ratio(rates[OURS], rates[name]), scenario.bars.get(name, NO_WORSE))
            add(f"CPU time, {name} / {OURS}", ratio(cpus[name], cpus[OURS]))
        if "stock" in rates and name not in (OURS, "C", "stock"):
            add(f"{name} / stock", ratio(rates[name], rates["stock"]))
        if "C" in rates and name != "C":
            add(f"{name} / C", ratio(rates[name], rates["C"]))
    if {"uvloop", OURS} <= rates.keys():
        add(f"p99, {OURS} / uvloop", ratio(tails[OURS], tails["uvloop"]), Bar("<=", 1))
    for name, of_one in results.items():
        add(name, spread(rates[name]), unit="/s")
        add(f"{name}: p50", spread([turn.median for turn in of_one]), unit="µs")
        add(f"{name}: p99", spread(tails[name]), unit="µs")
        add(f"{name}: had its core", spread([turn.busy for turn in of_one]), SATURATED)
    return figures
