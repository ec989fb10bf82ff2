"""uvloop's own test suite with our loop: it passes each test that asyncio's own loop passes.

The session ``uvloop-suite`` of noxfile.py runs this file. The tests that neither passes ask for uvloop or
libuv; `NOT_FOR_ASYNCIO` has them with the reasons.
"""

import importlib
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS_PER_TEST = 30
"""Some of the tests that ask for libuv hang on other loops."""

NOT_FOR_ASYNCIO = {
    "asks for libuv": """
        test_fs_event.Test_UV_FS_Event::test_fs_event_change
        test_fs_event.Test_UV_FS_Event::test_fs_event_rename
        test_process.Test_UV_Process_Delayed::test_process_delayed_stdio__paused__no_stdin
        test_process.Test_UV_Process_Delayed::test_process_delayed_stdio__paused__stdin_pipe
    """,
    "uvloop's TransportSocket, and sockets that it closes when the last wait for them has ended": """
        test_sockets.TestUVSockets::test_pseudosocket
        test_sockets.TestUVSockets::test_socket_close_loop_and_close
        test_sockets.TestUVSockets::test_socket_connect_and_close
        test_sockets.TestUVSockets::test_socket_recv_and_close
        test_sockets.TestUVSockets::test_socket_recv_into_and_close
        test_sockets.TestUVSockets::test_socket_sync_remove
        test_tcp.Test_UV_TCP::test_create_connection_open_con_sock
        test_unix.Test_UV_Unix::test_epollhup
    """,
    "calls some methods of a protocol in the context of connection_made(), which it has changed": """
        test_context.Test_UV_Context::test_create_connection_protocol
        test_context.Test_UV_Context::test_create_ssl_server_connection_protocol
        test_context.Test_UV_Context::test_create_ssl_server_manual_connection_lost
    """,
    "arguments, errors and names of threads that only uvloop has": """
        test_base.TestBaseUV::test_thread_name_prefix_in_default_executor
        test_signals.Test_UV_Signals::test_signals_no_SIGCHLD
        test_udp.Test_UV_UDP::test_create_datagram_endpoint_reuse_address_error
        test_udp.Test_UV_UDP::test_create_datagram_endpoint_reuse_address_warning
        test_udp.Test_UV_UDP::test_create_datagram_endpoint_wrong_sock
        test_udp.Test_UV_UDP::test_udp_sendto_dns
    """,
    "uvloop's order of calls at the end of a connection, and its reports": """
        test_tcp.Test_UV_TCP::test_create_server_1
        test_tcp.Test_UV_TCP::test_create_server_buffered_1
        test_tcp.Test_UV_TCP::test_create_server_buffered_2
        test_tcp.Test_UV_TCP::test_tcp_handle_abort_in_connection_made
        test_tcp.Test_UV_TCPSSL::test_bpo_39951_discard_trailing_data
        test_tcp.Test_UV_TCPSSL::test_first_data_after_wakeup
        test_tcp.Test_UV_TCPSSL::test_flush_before_shutdown
        test_tcp.Test_UV_TCPSSL::test_shutdown_timeout_handler_not_set
        test_tcp.Test_UV_TCPSSL::test_shutdown_while_pause_reading
        test_tcp.Test_UV_TCPSSL::test_start_tls_client_buf_proto_1
    """,
    "an argument of CPython 3.14 and later": """
        test_base.TestBaseAIO::test_loop_create_task_eager_start
        test_base.TestBaseUV::test_loop_create_task_eager_start
    """,
    "the output of a process that is lost without a terminal; uvloop fails it too": """
        test_process.Test_AIO_Process::test_process_streams_redirect
        test_process.Test_UV_Process::test_process_streams_redirect
    """,
    "checks uvloop's sources with the tools of its developers": """
        test_sourcecode.TestSourceCode::test_flake8
        test_sourcecode.TestSourceCode::test_mypy
    """,
}
"""Tests that need not pass, by reason. Asyncio's own loop fails them as well on CPython 3.13."""


def unpack_tests(folder: Path) -> Path:
    """The tests of the installed release, from its source distribution."""
    release = f"uvloop-{importlib.import_module('uvloop').__version__}"
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "uvloop"]
    subprocess.run([*download, "-d", folder, release.replace("-", "==")], check=True)
    with tarfile.open(folder / f"{release}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    # Away from the sources, which hide the installed package.
    (folder / "work").mkdir()
    return (folder / release / "tests").rename(folder / "work" / "tests")


def outcomes(tests: Path, loop: str) -> dict[str, str]:
    """Each test and its outcome: passed, failed or skipped."""
    report = tests.parent / f"{loop}.xml"
    options = ["-q", "-n", "2", f"--timeout={SECONDS_PER_TEST}", "-p", "uvloop_plugin"]
    options += ["-p", "no:cacheprovider", f"--junitxml={report}", "tests"]
    env = {**os.environ, "PYTHONPATH": str(HERE), "PYEPOLL_UVLOOP_SUITE": loop}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tests.parent,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
    )
    assert report.exists(), done.stdout[-5000:]
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        name = f"{case.get('classname')}::{case.get('name')}"
        bad = bool(kinds & {"failure", "error"})
        found[name] = "failed" if bad or found.get(name) == "failed" else "skipped" if kinds else "passed"
    return found


def failures(found: dict[str, str]) -> set[str]:
    return {name for name, outcome in found.items() if outcome == "failed"}


@pytest.mark.lasts(3600)
def test_uvloops_own_tests_pass_as_with_asyncios_loop(tmp_path: Path, show: Callable[[str], None]) -> None:
    tests = unpack_tests(tmp_path)
    stock = outcomes(tests, "stock")
    ours = outcomes(tests, "pyepoll")
    for name, found in ("stock", stock), ("pyepoll", ours):
        show(f"{name}: {dict(Counter(found.values()))}")
    assert ours.keys() == stock.keys()
    worse = failures(ours) - failures(stock)
    better = failures(stock) - failures(ours)
    show(f"pass with ours only: {sorted(better)}")
    assert worse == set()
    explained = {f"tests.{name}" for names in NOT_FOR_ASYNCIO.values() for name in names.split()}
    assert failures(ours) - explained == set(), "failed, but not in NOT_FOR_ASYNCIO"
