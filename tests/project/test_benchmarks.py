"""The benchmarks run and print each figure beside its bar. The figures are not judged here."""

import contextlib
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.guard import started
from support.processes import HANG

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="the floor is built with cc"),
    pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="not in this copy of the tests"),
]

# Every kind of server once, but with few bursts, and short ones.
SHORT_AIO = """
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from benchmarks.aio import loops, servers, sleeps

factories = loops.installed(["stock", "uvloop", "pyepoll"])
figures = [figure for figure in sleeps.figures(factories, 2)]
with TemporaryDirectory() as directory:
    pem = servers.certificate(Path(directory))
    for scenario in servers.SCENARIOS:
        if scenario.connections == 64 and not servers.missing_for(scenario, pem):
            figures += servers.figures_of(scenario, servers.results_of(scenario, factories, pem, 1, 10))
print(json.dumps([[figure.name, figure.value.median, figure.bar is not None] for figure in figures]))
"""

# Every operation once.
OPERATIONS = """
import json
from benchmarks.aio import loops, operations

factories = loops.installed(["stock", "pyepoll"])
print(json.dumps({
    operation.name: sorted(operations.times_of(operation, factories, 1))
    for operation in operations.OPERATIONS
}))
"""


def output_of(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG - 10)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_figure_has_a_bar(tmp_path: Path) -> None:
    report = tmp_path / "figures.json"
    printed = output_of(sys.executable, "-m", "benchmarks", "flags", "ctl", "--quick", "--json", report)
    figures = json.loads(report.read_text())["figures"]
    assert {figure["part"] for figure in figures} == {"flags", "ctl"}
    # A difference of two times can be below 0 on a busy machine.
    assert all(math.isfinite(figure["value"]["median"]) for figure in figures)
    assert sum(figure["bar"] is not None for figure in figures) >= 3
    assert all(figure["name"] in printed for figure in figures)


def test_the_pages_show_the_measured_figures() -> None:
    output_of(sys.executable, "-m", "benchmarks.update_docs", "--check")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a server and its load need a core each")
def test_asyncio_servers_answer_their_loads() -> None:
    figures = json.loads(output_of(sys.executable, "-c", SHORT_AIO))
    assert all(value > 0 for _, value, _ in figures)
    names = {name for name, _, _ in figures}
    for server in (
        "Protocol echo",
        "Protocol echo, 16 in flight",
        "Streams echo",
        "sock_recv and sock_sendall echo",
    ):
        assert {f"{server}, stock{what}" for what in ("", ": p50", ": p99", ": had its core")} <= names
    assert {"Protocol echo, stock / C", "asyncio.sleep(0.0001), stock"} <= names
    assert any(has_bar for _, _, has_bar in figures)


def test_both_loops_do_every_operation() -> None:
    done = json.loads(output_of(sys.executable, "-c", OPERATIONS))
    assert {"call_soon", "UDP round trip", "subprocess"} <= done.keys()
    assert all(loops == ["pyepoll", "stock"] for loops in done.values()), done


# A loop that cannot be made.
LEFT_OUT = """
import json
from benchmarks.aio import operations, servers

factories = {"stock": "asyncio:new_event_loop", "broken": "no_such_package:new_event_loop"}
by_name = {operation.name: operation for operation in operations.OPERATIONS}
done = [sorted(operations.times_of(by_name["UDP round trip"], factories, 1))]
(scenario,) = [each for each in servers.SCENARIOS if each.name == "Streams echo"]
done.append(sorted(servers.results_of(scenario, factories, "", 1, 10)))
print(json.dumps(done))
"""


def test_a_loop_that_fails_is_left_out_with_a_reason() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OUT], cwd=ROOT, capture_output=True, text=True, timeout=HANG - 10
    )
    assert json.loads(done.stdout) == [["stock"], ["stock"]], done.stderr
    reasons = [line for line in done.stderr.splitlines() if line.startswith("aio: without ")]
    assert [line.count("broken") for line in reasons] == [1, 1]
    assert all("No module named 'no_such_package'" in line for line in reasons), reasons


def test_the_worker_refuses_work_that_was_not_done() -> None:
    command = [sys.executable, "-m", "benchmarks.aio.worker", "asyncio:new_event_loop", "call_soon"]
    # They are done in batches of a hundred.
    done = subprocess.run(
        command, cwd=ROOT, input="200\n150\n", capture_output=True, text=True, timeout=HANG - 10
    )
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert "done 100 times, not 150" in done.stderr


def test_rows_and_loops_can_be_chosen(tmp_path: Path) -> None:
    report = tmp_path / "figures.json"
    chosen = ["--only", "TIMER FIRED", "--only", "asyncio.timeout", "--loops", "stock,pyepoll"]
    printed = output_of(sys.executable, "-m", "benchmarks", "aio", "--quick", "--json", report, *chosen)
    names = [figure["name"] for figure in json.loads(report.read_text())["figures"]]
    assert names == [
        f"{row}, {what}"
        for row in ("timer fired", "asyncio.timeout")
        for what in ("CPU time, stock / pyepoll", "stock", "pyepoll")
    ]
    # The last table has a row for each, and a column for each loop.
    assert [line.count("|") for line in printed.splitlines()[-4:]] == [5] * 4
    assert printed.splitlines()[-1].startswith("| asyncio.timeout, ns | ")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="each of two threads needs a core")
def test_two_threads_are_compared_with_one() -> None:
    chosen = ["--rounds", "3", "--only", "timer fired", "--loops", "pyepoll"]
    printed = output_of(sys.executable, "-m", "benchmarks.aio.threads", *chosen)
    assert re.fullmatch(r"timer fired +pyepoll .* ns alone .* factor \S+", printed.splitlines()[-1]), printed


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="each of two threads needs a core")
def test_a_thread_that_fails_ends_the_comparison() -> None:
    measure = "from benchmarks.aio.threads import measure; measure('no_such_package:loop', 'timer fired', 1)"
    done = subprocess.run(
        [sys.executable, "-c", measure], cwd=ROOT, capture_output=True, text=True, timeout=HANG - 10
    )
    assert done.returncode == 1
    assert "No module named 'no_such_package'" in done.stderr


MEMORY = """
from benchmarks.aio import memory
(figure,) = memory.figures(memory.KINDS[0]._replace(connections=400), {"stock": "asyncio:new_event_loop"}, 1)
print(figure.value.median, figure.unit)
"""


def test_an_idle_connection_takes_memory() -> None:
    size, unit = output_of(sys.executable, "-c", MEMORY).split()
    # Its transport, protocol and socket objects alone take more than half a KiB.
    assert 0.5 < float(size) < 20
    assert unit == "KiB"


def load(listener: socket.socket, answer: bytes, delay: float) -> subprocess.CompletedProcess[str]:
    """Run the load with 3 connections and 4 requests in flight on each, which are answered after a delay."""

    def serve(conn: socket.socket) -> None:
        # A load that does not like an answer just goes.
        with conn, contextlib.suppress(ConnectionError):
            while conn.recv(4 * 64, socket.MSG_WAITALL):
                time.sleep(delay)
                conn.sendall(4 * answer)

    program = output_of(
        sys.executable, "-c", "from benchmarks.compiler import compiled; print(compiled('load.c'), end='')"
    )
    port, message = str(listener.getsockname()[1]), "x" * 64
    command = [program, port, "3", "4", str(HANG), message, message, "64"]
    with started(command, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        servers = [threading.Thread(target=serve, args=(listener.accept()[0],)) for _ in range(3)]
        for server in servers:
            server.start()
        stdout, stderr = process.communicate("60\n", timeout=HANG - 10)
        for server in servers:
            server.join(timeout=HANG - 10)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def test_the_load_measures_round_trips() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(HANG - 10)
        done = load(listener, b"x" * 64, 0.02)
    assert done.returncode == 0, done.stderr
    ready, result = done.stdout.splitlines()
    assert ready == "ready"
    answers, nanoseconds, median, tail = map(int, result.split())
    assert answers > 0
    assert answers % 4 == 0
    assert nanoseconds >= 60_000_000
    # The histogram is good to 0.4 %.
    assert 19_900_000 <= median <= tail
    # Each connection has at most one burst of requests in flight at a time, and one began before the clock.
    assert answers <= 3 * 4 * (nanoseconds / 20_000_000 + 1)


def test_the_load_refuses_another_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(HANG - 10)
        done = load(listener, b"y" * 64, 0)
    assert done.returncode == 1
    assert "not the answer expected" in done.stderr
