"""The list of asyncio's private names that pyepoll.aio uses: complete, and the same in docs/asyncio.md.

`NAMES` is the list. A name that the code no longer needs is deleted here and in docs/asyncio.md; a name that
it begins to use is added to both. The meaning of each is checked in test_aio_private.py.
"""

import ast
import asyncio
import asyncio.base_events
import asyncio.constants
import asyncio.format_helpers
import asyncio.selector_events
import asyncio.sslproto
import asyncio.streams
import asyncio.unix_events
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from support.loops import Plain, connection, on
from support.pages import ROOT

NAMES: dict[str, list[str]] = {
    "loop": [
        "_accept_connection",
        "_accept_connection2",
        "_add_callback",
        "_add_reader",
        "_add_writer",
        "_asyncgens",
        "_asyncgens_shutdown_called",
        "_call_soon",
        "_check_closed",
        "_check_thread",
        "_child_watcher_callback",
        "_clock_resolution",
        "_close_self_pipe",
        "_closed",
        "_connect_sock",
        "_coroutine_origin_tracking_enabled",
        "_coroutine_origin_tracking_saved_depth",
        "_create_connection_transport",
        "_csock",
        "_current_handle",
        "_debug",
        "_default_executor",
        "_ensure_fd_no_transport",
        "_ensure_resolved",
        "_exception_handler",
        "_executor_shutdown_called",
        "_internal_fds",
        "_make_datagram_transport",
        "_make_read_pipe_transport",
        "_make_self_pipe",
        "_make_socket_transport",
        "_make_ssl_transport",
        "_make_subprocess_transport",
        "_make_write_pipe_transport",
        "_old_agen_hooks",
        "_process_events",
        "_process_self_data",
        "_read_from_self",
        "_ready",
        "_remove_reader",
        "_remove_writer",
        "_run_once",
        "_scheduled",
        "_selector",
        "_sendfile_native",
        "_signal_handlers",
        "_sock_connect_cb",
        "_sock_sendall",
        "_ssock",
        "_start_serving",
        "_stopping",
        "_task_factory",
        "_thread_id",
        "_timer_cancelled_count",
        "_timer_handle_cancelled",
        "_transports",
        "_unix_server_sockets",
        "_watcher",
        "_write_to_self",
    ],
    "transport": [
        "_address",
        "_buffer",
        "_buffer_size",
        "_call_connection_lost",
        "_closing",
        "_conn_lost",
        "_empty_waiter",
        "_eof",
        "_extra",
        "_fatal_error",
        "_force_close",
        "_header_size",
        "_high_water",
        "_low_water",
        "_make_empty_waiter",
        "_maybe_pause_protocol",
        "_maybe_resume_protocol",
        "_paused",
        "_protocol",
        "_protocol_paused",
        "_read_ready",
        "_read_ready_cb",
        "_reset_empty_waiter",
        "_sendfile_compatible",
        "_sendto_ready",
        "_server",
        "_sock",
        "_sock_fd",
        "_start_tls_compatible",
        "_write_ready",
    ],
    "unix_events": [
        "_UnixDefaultEventLoopPolicy",
        "_UnixReadPipeTransport",
        "_UnixSubprocessTransport",
        "_UnixWritePipeTransport",
    ],
    "pipe": [
        "_fileno",
    ],
    "subprocess": [
        "_check_proc",
        "_wait",
    ],
    "handle": [
        "_args",
        "_callback",
        "_cancelled",
        "_context",
        "_repr",
        "_run",
        "_source_traceback",
        "_when",
    ],
    "ssl protocol": [
        "_app_protocol",
        "_app_transport",
        "_call_eof_received",
        "_do_read__copied",
        "_handshake_start_time",
        "_incoming",
        "_ssl_buffer",
        "_ssl_buffer_view",
        "_sslobj",
        "_start_handshake",
        "_start_shutdown",
        "_transport",
    ],
    "streams": [
        "_limit",
        "_stream_reader",
        "_stream_reader_wr",
        "_waiter",
        "_wakeup_waiter",
    ],
    "server": [
        "_attach",
        "_detach",
    ],
    "format_helpers": [
        "_format_callback_source",
    ],
    "asyncio": [
        "_get_running_loop",
    ],
    "socket": [
        "_io_refs",
        "_real_close",
    ],
}
NEWER = {
    "_header_size": (3, 14),
    "_old_agen_hooks": (3, 13),
    "_unix_server_sockets": (3, 13),
    "_watcher": (3, 14),
}
"""The CPython that brought a name, where that is not the oldest."""
SHARED = {"_loop", "_file", "_pid", "_wait", "_fd", "_start", "_stop", "_epoll", "_events", "_reads"}
"""Names of asyncio's that the code uses for attributes of objects of its own."""

MODULES = ("aio", "_datagram", "_loop_selector", "_pipes", "_processes", "_sock_calls", "_tls")
SOURCES = [*(ROOT / f"pyepoll/{name}.py" for name in MODULES), *sorted((ROOT / "csrc/aio").rglob("*.[ch]"))]
PRIVATE = re.compile(r"_[a-zA-Z]\w*")

pytestmark = pytest.mark.skipif(not (ROOT / "csrc/aio").is_dir(), reason="the sources are not here")


def owners() -> dict[str, list[Any]]:
    """Objects of asyncio's own, in which the names are looked up."""

    async def find() -> dict[str, list[Any]]:
        loop = asyncio.get_running_loop()
        async with connection(Plain()) as (transport, _):
            members = dir(transport)
            udp: Any = (
                await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
            )[0]
            datagram = dir(udp)
            udp.abort()
        read, write = os.pipe()
        pipes: list[Any] = [
            (await loop.connect_read_pipe(asyncio.Protocol, open(read, "rb", 0)))[0],
            (await loop.connect_write_pipe(asyncio.Protocol, open(write, "wb", 0)))[0],
        ]
        of_pipes = [name for pipe in pipes for name in dir(pipe)]
        for pipe in pipes:
            pipe.close()
        unix_events: Any = asyncio.unix_events
        ssl_protocol: Any = asyncio.sslproto.SSLProtocol
        assigned = re.findall(r"self\.(_\w+) =", Path(asyncio.sslproto.__file__ or "").read_text())
        return {
            "selector_events": dir(asyncio.selector_events),
            "transport": [*members, *datagram],
            "loop": dir(loop),
            "unix_events": dir(asyncio.unix_events),
            "pipe": of_pipes,
            "subprocess": dir(unix_events._UnixSubprocessTransport),
            "handle": [*dir(asyncio.Handle), *dir(asyncio.TimerHandle)],
            "ssl protocol": [*dir(ssl_protocol), *assigned],
            "format_helpers": dir(asyncio.format_helpers),
            "asyncio": dir(asyncio),
            "socket": dir(socket.socket),
            "streams": [
                *dir(reader := asyncio.StreamReader(loop=loop)),
                *dir(asyncio.StreamReaderProtocol(reader)),
            ],
            "server": dir(asyncio.base_events.Server),
        }

    found: dict[str, list[Any]] = on("asyncio", find)
    return found


def used() -> set[str]:
    """Private names in the code: attributes in Python, strings in both."""
    names: set[str] = set()
    for file in SOURCES:
        text = file.read_text()
        if file.suffix == ".py":
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Attribute):
                    names.add(node.attr)
                elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    names.add(node.name)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    names.add(node.value)
        else:
            names.update(re.findall(r'"(_\w+)"', text))
    return {name for name in names if PRIVATE.fullmatch(name)}


LISTED = {name for names in NAMES.values() for name in names}


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in NAMES.items() for name in names]
)
def test_asyncio_has_each_name(owner: str, name: str) -> None:
    assert sys.version_info < NEWER.get(name, (3, 11)) or name in owners()[owner]


def test_the_list_has_each_name_of_asyncios_that_the_code_uses() -> None:
    of_asyncio = {name for names in owners().values() for name in names}
    assert (used() & of_asyncio) - SHARED - LISTED == set(), "used, but not in NAMES"


def test_the_code_uses_each_name_of_the_list() -> None:
    assert used() >= LISTED, f"no longer used: {LISTED - used()}"


def test_the_documentation_lists_the_same_names() -> None:
    """docs/asyncio.md, "Private parts of asyncio that it uses"."""
    page = (ROOT / "docs/asyncio.md").read_text()
    section = page.partition("## Private parts of asyncio that it uses")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`(_[a-zA-Z]\w*)", section))
    assert documented == LISTED


def test_a_new_private_name_would_be_found() -> None:
    """The search sees attributes and methods in Python, and strings in C."""
    assert {"_make_socket_transport", "_get_running_loop", "_sock_fd"} <= used()
