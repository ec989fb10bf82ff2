"""Everything that can be run on this checkout: `nox -l` lists it, `nox -s NAME` runs it.

Arguments after `--` go to the program that a session runs, mostly pytest: `nox -s tests-3.13 -- -x -k fork`.
A session is skipped if its interpreter is missing. `tools/interpreters` installs those that most machines
lack in PYEPOLL_INTERPRETERS (~/.cache/pyepoll/interpreters).
"""

import ctypes
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nox

EXTRA = Path(os.environ.get("PYEPOLL_INTERPRETERS", Path.home() / ".cache/pyepoll/interpreters"))
ADDED = [*Path.home().glob(".pyenv/versions/*/bin"), EXTRA / "sid/usr/local/bin", EXTRA / "nogil/bin"]
os.environ["PATH"] = os.pathsep.join([*map(str, ADDED), os.environ["PATH"]])
# The newest releases of the tests' needs may have no wheel for an unusual interpreter: take older ones.
os.environ["PIP_PREFER_BINARY"] = "1"

PROJECT = nox.project.load_toml("pyproject.toml")
RELEASES = ["3.11", "3.12", "3.13", "3.14", "3.15"]
FREE_THREADED = ["3.13t", "3.14t", "3.15t"]
LONG = ["3.13", "3.14", "3.15", *FREE_THREADED]
WARNINGS = "-Wall -Wextra -Wshadow -Wvla -Wundef -Wstrict-prototypes -Werror"
ASAN = "-fsanitize=address,undefined -fno-sanitize-recover=undefined"
FROM_ELSEWHERE = r"""(<(script|img|iframe)[^>]* src="|<link[^>]* href="|url\(["']?)(https?:)?//"""
NOT_OF_C = (
    "benchmarks conformance doctor examples file_types guard layers pages procfs ps publishing readme "
    "recipes setup wheel"
)
QUICK = "errors events flags maxevents package raw registrations select_dropin selector waker"

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["quick", "lint", "typing"]
nox.options.reuse_venv = "yes"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False


def groups(*names: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, *names))


def files(names: str) -> list[str]:
    """The test files of these names, each of which has to be in one folder of tests/."""
    found = {name: list(Path("tests").glob(f"*/test_{name}.py")) for name in names.split()}
    return [str(path) for (path,) in found.values()]


def install(session: nox.Session, *names: str, cflags: str = "", ldflags: str = "") -> None:
    """Install dependency groups and, editable, the checkout; without a network if nothing is missing."""
    session.install("setuptools>=77", *groups(*names))
    # As in /usr/include, warnings about the headers of CPython itself are not wanted.
    headers = f"-isystem {EXTRA}/sid/usr/include/python{session.python}"
    flags = {"PYEPOLL_CFLAGS": f"{WARNINGS} {headers} {cflags}", "PYEPOLL_LDFLAGS": ldflags}
    session.install("--no-build-isolation", "--no-deps", "-e", ".", env=flags)


def go_to_copy(session: nox.Session) -> Path:
    """Go to a copy of the checkout, in which other files can be built under the same names."""
    copy = session.cache_dir.resolve() / session.name
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    listed = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"])
    subprocess.run(["xargs", "-0", "cp", "--parents", "-t", copy], input=listed, check=True)
    session.chdir(copy)
    return copy


def report_our_frames(session: nox.Session, copy: Path, separator: str = r"\n *\n") -> None:
    """Fail if a report has a frame of the extension; CPython has some of its own.

    Three kinds are no errors. ThreadSanitizer takes for a race that tests use an fd while another thread
    closes it, and CPython 3.13 has races of its own where an interpreter is made; LeakSanitizer takes for
    lost the names that a module has, which CPython 3.12 and later intern indefinitely.
    """
    for file in copy.glob("report*"):
        text = re.sub(r"(?m)^==\d+== ?", "", file.read_text(errors="replace"))
        for report in re.split(separator, text):
            ours = re.search(r"csrc/|_(epoll|aio)\.cpython", report)
            accepted = (
                r"(?s)Location is file descriptor|_PyStaticType_InitBuiltin|"
                r"PyUnicode_New.*(module_exec|aio_load)"
            )
            if ours and not re.search(accepted, report):
                session.error(f"a report with frames of the extension:\n{report}")


def sanitized(session: nox.Session, options: str, *arguments: str) -> Path:
    """Run pytest on a copy with AddressSanitizer and UndefinedBehaviorSanitizer, which write report*."""
    copy = go_to_copy(session)
    install(session, "test", cflags=f"-g -O1 {ASAN} -fno-omit-frame-pointer", ldflags=ASAN)
    find = "gcc -print-file-name=libasan.so && gcc -print-file-name=libubsan.so"
    libraries = subprocess.check_output(find, shell=True, text=True)
    env = {"LD_PRELOAD": libraries.replace("\n", " "), "PYTHONMALLOC": "malloc"}
    env |= {"ASAN_OPTIONS": f"log_path=report:{options}", "UBSAN_OPTIONS": "print_stacktrace=1"}
    # It does not capture fd 2, or the report of a crash would be lost.
    session.run("pytest", "--capture=sys", *arguments, env=env)
    return copy


def check_wheel(session: nox.Session, system: str, *arguments: str, **env: str) -> None:
    """Build a wheel by way of the sdist, and test it where nothing else of the checkout is."""
    session.run("python", "-m", "build", "--no-isolation", silent=True, env=env)
    # auditwheel offers the tags of musl only where that is the system's libc; `auto` finds them elsewhere.
    tag = "auto" if "musl" in system else f"{system}_{platform.machine()}"
    session.run("auditwheel", "repair", f"--plat={tag}", *map(str, Path("dist").glob("*.whl")), silent=True)
    # pip must not compile anything.
    (wheel,) = Path("wheelhouse").resolve().glob(f"*{system}_*")
    session.install("--no-deps", "--force-reinstall", "--only-binary=:all:", str(wheel))
    Path("elsewhere").mkdir()
    session.run("cp", "-rt", "elsewhere", *PROJECT["tool"]["cibuildwheel"]["test-sources"], external=True)
    session.chdir("elsewhere")
    session.run("pytest", *arguments, *session.posargs, env={"PYTHONPATH": None})


@nox.session(python=RELEASES)
def tests(session: nox.Session) -> None:
    """All tests in their quick form."""
    install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session
def quick(session: nox.Session) -> None:
    """Tests of the core in less than 20 seconds, without a network (`nox -R -s quick`: without pip)."""
    install(session, "test")
    session.run("pytest", "-q", "-n", "2", *files(QUICK), *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """The hooks of .pre-commit-config.yaml on all files."""
    session.install(*groups("lint"))
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure", *session.posargs)


@nox.session
def typing(session: nox.Session) -> None:
    """mypy on everything, stubtest on the extension, mypy and pyright on programs that use pyepoll."""
    install(session, "lint")
    session.run("mypy", *session.posargs)
    session.run("python", "-m", "mypy.stubtest", "--ignore-disjoint-bases", "pyepoll")
    session.run("pytest", "-rsfE", *files("types"))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages in docs/_build; warnings are errors, and the pages load nothing from another host."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "docs", "docs/_build", *session.posargs)
    # It fails unless grep finds nothing.
    search = ["grep", "-rE", "--include=*.html", "--include=*.css", FROM_ELSEWHERE, "docs/_build"]
    session.run(*search, external=True, success_codes=[1])


@nox.session
def package(session: nox.Session) -> None:
    """Build the sdist and a wheel, and check their files, metadata and symbols."""
    session.install(*groups("package"))
    session.run("check-sdist", "--no-isolation", silent=True)
    go_to_copy(session)
    session.run("validate-pyproject", "pyproject.toml")
    session.run("python", "-m", "build", "--no-isolation", silent=True)
    wheel, sdist = map(str, sorted(Path("dist").iterdir()))
    session.run("twine", "check", "--strict", wheel, sdist)
    session.run("check-wheel-contents", wheel)
    session.run("auditwheel", "repair", f"--plat=manylinux_2_28_{platform.machine()}", wheel)
    identifiers = session.run("cibuildwheel", "--platform=linux", "--print-build-identifiers", silent=True)
    # 3.11 to 3.15, 3.14t and 3.15t, with glibc and with musl.
    if len(str(identifiers).split()) != 14:
        session.error(f"cibuildwheel would not build 14 wheels:\n{identifiers}")


@nox.session(python=[*RELEASES, *FREE_THREADED])
def wheel(session: nox.Session) -> None:
    """Build a wheel from the sdist, and test it without a source tree."""
    go_to_copy(session)
    session.install(*groups("wheel"))
    check_wheel(session, "manylinux_2_28")


@nox.session
def asan(session: nox.Session) -> None:
    """The tests of the extension with AddressSanitizer and UndefinedBehaviorSanitizer."""
    chosen = session.posargs or [f"--ignore={file}" for file in files(NOT_OF_C)]
    copy = sanitized(session, "detect_leaks=0", "-n", "2", *chosen)
    if reports := sorted(copy.glob("report*")):
        session.error("".join(report.read_text(errors="replace") for report in reports))


@nox.session
def leaks(session: nox.Session) -> None:
    """Memory of C that is lost, with LeakSanitizer. Lost Python objects are counted by tests."""
    # CPython has no frame pointers: the fast unwinder would not reach frames of the extension.
    options = "detect_leaks=1:fast_unwind_on_malloc=0:malloc_context_size=12:exitcode=0"
    chosen = session.posargs or files(
        "leaks memory_errors stale_registrations stale_events raw aio_leaks aio_no_memory aio_gather"
    )
    copy = sanitized(session, options, *chosen)
    report_our_frames(session, copy)


@nox.session
def valgrind(session: nox.Session) -> None:
    """Memory errors in a few tests, with valgrind. It has no epoll_pwait2, so no exact waits."""
    copy = go_to_copy(session)
    install(session, "test", cflags="-g -O1")
    # Hypothesis, a plugin that these tests do not use, takes half a minute to import.
    env = {"PYTHONMALLOC": "malloc", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    options = ["--quiet", "--num-callers=12", "--fullpath-after=", "--log-file=report.%p"]
    command = ["valgrind", *options, f"{session.bin}/python", "-m", "pytest"]
    session.run(*command, *session.posargs or files("registrations maxevents"), env=env, external=True)
    report_our_frames(session, copy)


@nox.session(venv_backend="none")
def tsan(session: nox.Session) -> None:
    """The tests of what threads share, with a free-threaded CPython built with ThreadSanitizer."""
    python = EXTRA / "tsan/bin/python3"
    if not python.exists():
        session.skip(f"{python} is missing: tools/interpreters builds it")
    # Its shadow memory needs a fixed layout of the address space: personality(ADDR_NO_RANDOMIZE).
    ctypes.CDLL(None).personality(0x0040000)
    copy = go_to_copy(session)
    flags = "-fsanitize=thread"
    build = {"PYEPOLL_CFLAGS": f"{WARNINGS} -g -O1 {flags}", "PYEPOLL_LDFLAGS": flags}
    options = f"suppressions={EXTRA}/tsan/suppressions_free_threading.txt die_after_fork=0 exitcode=0"
    env = {"PYTHON": str(python), "TSAN_OPTIONS": options, **build}
    session.run("tools/venv", ".venv", env=env)
    session.run(".venv/bin/pip", "install", "-q", "--group", "test-anywhere", "-e", ".", env=env)
    chosen = session.posargs or files(
        "changes_at_once threads waker close fork stale_events stale_registrations registrations raw "
        "aio_threads aio_wake_event aio_stats"
    )
    command = [".venv/bin/pytest", "--capture=sys", "-k", "not late_calls_of_stock", *chosen]
    # Reports go to fd 2: the tests would find the fd of a log file.
    with open(copy / "report", "w") as report:
        session.run(*command, env=env, stderr=report)
    report_our_frames(session, copy, "={10,}\n")


@nox.session(python="python3.14d")
def debug(session: nox.Session) -> None:
    """All tests with a debug build of CPython, which checks assertions and counts references."""
    go_to_copy(session)
    install(session, "test-anywhere")
    session.run("pytest", *session.posargs)


@nox.session(python=FREE_THREADED)
def nogil(session: nox.Session) -> None:
    """All tests with free-threaded CPythons."""
    install(session, "test-anywhere")
    session.run("pytest", *session.posargs)


@nox.session(python=RELEASES)
def conformance(session: nox.Session) -> None:
    """CPython's own tests of epoll, selectors and asyncio, with the classes swapped."""
    install(session, "test")
    session.run("pytest", "-rsfE", "tests/compat/test_conformance.py", *session.posargs)


@nox.session(python=RELEASES)
def integration(session: nox.Session) -> None:
    """Other packages on pyepoll: tests/integration, docs/clients.md and the program for ZMQ."""
    install(session, "test", "clients")
    where = ["tests/integration", *files("pages file_types"), "-k", "integration or clients or zmq"]
    session.run("pytest", "-rsfE", *where, *session.posargs)


@nox.session(python=RELEASES)
def upstream(session: nox.Session) -> None:
    """The suites of other packages, with stock and with pyepoll (`-- -k "tornado or trio"`: these only)."""
    install(session, "test", "clients", "upstream")
    session.run("pytest", "-v", "--long", "tests/integration/upstream.py", *session.posargs)


@nox.session(name="uvloop-suite", python=RELEASES)
def uvloop_suite(session: nox.Session) -> None:
    """uvloop's own test suite, with asyncio's loop and with ours."""
    install(session, "test", "uvloop")
    session.run("pytest", "-rsfE", "--long", "tests/integration/uvloop_suite.py", *session.posargs)


@nox.session(python=RELEASES)
def faults(session: nox.Session) -> None:
    """The faults of asyncio, uvloop and ours side by side: a table at the end."""
    install(session, "test", "uvloop")
    tests = sorted(map(str, Path("tests/aio").glob("test_aio_fault_*.py")))
    session.run("pytest", "-q", "-n", "2", *tests, *session.posargs)


@nox.session(python=LONG)
def soak(session: nox.Session) -> None:
    """The long form of every attack, and a soak of half an hour (PYEPOLL_SOAK: its seconds)."""
    install(session, "test-anywhere")
    session.run("pytest", "--long", "--ignore=tests/project/test_examples.py", *session.posargs)


@nox.session(python=RELEASES)
def load(session: nox.Session) -> None:
    """All tests again and again for ten minutes (PYEPOLL_LOAD: seconds) beside a load on every core."""
    install(session, "test")
    end = time.monotonic() + float(os.environ.get("PYEPOLL_LOAD", "600"))
    loads = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(os.cpu_count() or 1)]
    try:
        while time.monotonic() < end:
            session.run("pytest", "-q", *session.posargs)
    finally:
        for process in loads:
            process.kill()


@nox.session
def bench(session: nox.Session) -> None:
    """The figures of docs/performance.md (`-- --quick wait`: fewer rounds of one part)."""
    install(session, "aio-peers")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=f"{EXTRA}/musl/bin/python3")
def musl(session: nox.Session) -> None:
    """A musllinux wheel and its tests, with a CPython linked with musl."""
    copy = go_to_copy(session)
    # That CPython has no OpenSSL, so it reaches no index: the one that runs nox downloads for it.
    release = session.run("python", "-c", "import sys; print(*sys.version_info[:2], sep='.')", silent=True)
    musllinux = [f"--platform=musllinux_1_{minor}_{platform.machine()}" for minor in (1, 2)]
    wanted = ["--only-binary=:all:", "--platform=any", *musllinux]
    wanted += [f"--python-version={str(release).strip()}", "--dest=needs", *groups("wheel")]
    session.run(sys.executable, "-m", "pip", "download", "-q", *wanted, external=True)
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{copy}/needs", "PIP_CONFIG_FILE": "/dev/null"}
    session.install(*groups("wheel"), env=offline)
    # On Alpine, where musllinux wheels are built and used, musl has this name.
    library = copy / f"libc.musl-{platform.machine()}.so.1"
    library.symlink_to(f"/lib/ld-musl-{platform.machine()}.so.1")
    linked = {"PYEPOLL_LDFLAGS": f"-Wl,--as-needed -L{copy} -l:{library.name}"}
    # Left out: tests that need OpenSSL, as do the examples with work for threads.
    need_ssl = "test_examples and (wake_from_thread or pool) or test_conformance and ssl"
    need_ssl += " or test_pages and buffers.md"
    import_ssl = [path for path in Path("tests").glob("*/test_*.py") if "\nimport ssl" in path.read_text()]
    left_out = ["-k", f"not ({need_ssl})", *(f"--ignore={path}" for path in import_ssl)]
    check_wheel(session, "musllinux_1_2", *left_out, **linked)


@nox.session
def aarch64(session: nox.Session) -> None:
    """A wheel for aarch64, and the tests that differ there, under qemu."""
    go_to_copy(session)
    session.install(*groups("wheel"))
    session.run("tools/aarch64", str(EXTRA), external=True)
