"""The machine under the figures: its description, and the requirements of a measurement."""

import os
import platform
import resource
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyepoll

__all__ = ["Unfit", "allow_fds", "describe", "eventfds", "pinned", "server_and_load_cores"]


class Unfit(Exception):
    """This machine cannot run a measurement; the text names the missing requirement."""


def describe() -> dict[str, str]:
    """Return the facts that a reader needs to judge the figures."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    build = "free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else "GIL"
    return {
        "machine": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()) or "unknown",
        "python": f"{platform.python_implementation()} {platform.python_version()}, {build}",
        "pyepoll": pyepoll.__version__,
        "built with": platform.python_compiler(),
        "load": " ".join(f"{average:.2f}" for average in os.getloadavg()),
    }


def server_and_load_cores() -> tuple[int, int]:
    """Return the two cores that a server and its load get; Unfit if there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Unfit("a server and its load need a core each")
    return cores[0], cores[1]


@contextmanager
def pinned() -> Iterator[None]:
    """Keep this thread on one core, so that a move to the other is not measured."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def allow_fds(count: int) -> None:
    """Raise the soft limit on open files to ``count`` and some for the interpreter, or raise Unfit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 100
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise Unfit(f"{wanted} open files are needed, and the hard limit (ulimit -Hn) is {hard}")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def eventfds(count: int, *, ready: bool) -> Iterator[list[int]]:
    """Open ``count`` eventfds, readable if ``ready``; close them in the end."""
    allow_fds(count)
    with ExitStack() as stack:
        fds = []
        for _ in range(count):
            fds.append(os.eventfd(int(ready), os.EFD_NONBLOCK | os.EFD_CLOEXEC))
            stack.callback(os.close, fds[-1])
        yield fds
