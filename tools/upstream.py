"""Run the suites of other packages with stock and with pyepoll: ``python tools/upstream.py FOLDER [SUITE…]``.

The outcome must be the same, to the names of the tests that fail. The session ``upstream`` of noxfile.py runs
it, in an environment that has the packages. The suites write to FOLDER.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTEST = ["pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-q", "-rfE"]
IN_PARALLEL = ["-n", str(os.cpu_count())]
SUITES = {
    "tornado": [sys.executable, "-m", "tornado.test"],
    # Left out: the loop is of a module whose name begins with asyncio or uvloop.
    "uvicorn": [*PYTEST, *IN_PARALLEL, "--deselect=tests/test_auto_detection.py::test_loop_auto", "tests"],
    "aiohttp": [
        *[*PYTEST, *IN_PARALLEL, "-m", "not dev_mode and not autobahn and not internal"],
        *["--ignore-glob=tests/test_benchmarks*", "tests"],
    ],
    # Half of the tests are made once for each reactor that there is.
    "twisted_asyncio": ["trial", "--reactor=asyncio", "twisted.internet"],
    "twisted_epoll": ["trial", "--reactor=epoll", "twisted.internet"],
    "twisted_plugin": [sys.executable, __file__, "--trial"],
    # Left out: the text of an OSError, which in pyepoll names the operation, and tools of trio's developers.
    "trio": [
        *[*PYTEST, "-W", "ignore", "-p", "trio._tests.pytest_plugin", "-m", "not redistributors_should_skip"],
        *["-k", "not test_wait_on_invalid_object", "--ignore-glob=*/_tests/tools/*", "--pyargs", "trio"],
    ],
}
SOURCES = {
    "aiohttp": ["tests", "examples", "pytest.ini", "README.rst"],
    "uvicorn": ["tests", "pyproject.toml"],
}
"""Parts of the source distribution; the other packages bring their tests in the wheel."""

OUTCOME = re.compile(r"^(FAIL|ERROR|OK|PASSED|Ran |twisted\.internet\.test\.)|[0-9]+ passed")


def fetch(name: str, folder: Path) -> None:
    version = importlib.import_module(name).__version__
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--no-binary",
        name,
        "-d",
        str(folder),
    ]
    subprocess.run([*command, f"{name}=={version}"], check=True)
    with tarfile.open(folder / f"{name}-{version}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    (folder / f"{name}-{version}").rename(folder / name)


def outcome(suite: str, what: str, folder: Path) -> set[str]:
    """Counts and failures of a suite; tests/integration/everywhere lets all its processes use pyepoll."""
    work, tally = folder / "work", folder / "tally"
    shutil.rmtree(work, ignore_errors=True)
    tally.unlink(missing_ok=True)
    work.mkdir()
    for part in SOURCES.get(suite, ()):
        source = folder / "sources" / suite / part
        shutil.copytree(source, work / part) if source.is_dir() else shutil.copy(source, work)
    everywhere = [str(ROOT / "tests/integration/everywhere")] if what == "pyepoll" else []
    path = [*everywhere, str(ROOT / "examples/plugins")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    env |= {"PYEPOLL_TALLY": str(tally)} if what == "pyepoll" else {}
    command = [*SUITES[suite], *([what] if suite == "twisted_plugin" else [])]
    done = subprocess.run(
        ["nice", *command],
        cwd=work,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,
    )
    lines = filter(OUTCOME.search, done.stdout.splitlines())
    found = {re.sub(r" in [0-9.]+s.*| - .*|^=+ ", "", line) for line in lines}
    if not found:
        sys.exit(f"{suite} with {what} ended with status {done.returncode}:\n{done.stdout[-5000:]}")
    if what == "pyepoll" and not tally.exists():
        sys.exit(f"{suite} has not used pyepoll")
    return found


def compare(suite: str, folder: Path) -> None:
    """Fail if the outcome differs three times: on a busy machine some tests fail by themselves."""
    for _ in range(3):
        stock, ours = outcome(suite, "stock", folder), outcome(suite, "pyepoll", folder)
        if stock == ours:
            print(f"{suite}, the same with stock and with pyepoll:", *sorted(ours), sep="\n  ")
            return
        print(f"{suite} differs:", *sorted(f"stock: {line}" for line in stock - ours), sep="\n  ")
        print(*sorted(f"  pyepoll: {line}" for line in ours - stock), sep="\n", flush=True)
    sys.exit(f"{suite} fails with pyepoll")


def trial(what: str) -> None:
    """Twisted's tests with the reactor of examples/plugins, under the name of Twisted's own, or with that."""
    from twisted.internet import epollreactor, main
    from twisted.internet.test.reactormixins import ReactorBuilder
    from twisted.scripts import trial as program

    if what == "pyepoll":
        import twisted_reactor

        # One test knows by this name that epoll cannot pass it.
        reactor = type("EPollReactor", (twisted_reactor.PyepollReactor,), {"__module__": "twisted_reactor"})
        vars(twisted_reactor)["EPollReactor"] = reactor
        main.installReactor(reactor())
        ReactorBuilder._reactors[:] = ["twisted_reactor.EPollReactor"]
    else:
        epollreactor.install()
        ReactorBuilder._reactors[:] = ["twisted.internet.epollreactor.EPollReactor"]
    sys.argv = ["trial", "twisted.internet"]
    program.run()


if __name__ == "__main__":
    if sys.argv[1] == "--trial":
        trial(sys.argv[2])
    else:
        into = Path(sys.argv[1]).resolve()
        chosen = sys.argv[2:] or list(SUITES)
        shutil.rmtree(into / "sources", ignore_errors=True)
        for package in set(chosen) & set(SOURCES):
            fetch(package, into / "sources")
        for name in chosen:
            compare(name, into)
