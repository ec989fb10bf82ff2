"""Set-up: tools/venv never asks for a password, and refuses a Python or a system that cannot run pyepoll."""

import ast
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support.fresh_extension import outdated
from support.pages import ROOT

import pyepoll

SCRIPT = ROOT / "tools" / "venv"
SETUP = ROOT / "setup.py"
PYTHON3 = f"python{sys.version_info[0]}.{sys.version_info[1]}"
NEEDS = "pyepoll needs Linux and CPython 3.11 or later"

CALLED = """#!/bin/sh
echo "${0##*/} $*" >>"$CALLS"
"""

ENVIRONMENT = """#!/bin/sh
echo "environment's ${0##*/} $*" >>"$CALLS"
"""

FAKE_PYTHON = f"""#!/bin/sh
# This Python, without venv until apt-get has been called; environments are made without the network.
case "$1 $2" in
"-c import ensurepip"*)
    grep -q "^apt-get install" "$CALLS" ;;
"-m venv")
    mkdir -p "$3/bin"
    cp "$ENVIRONMENT" "$3/bin/python" ;;
*)
    exec {sys.executable} -I "$@" ;;
esac
"""


class Machine:
    """Commands in the place of those that change the machine: each writes down that it was called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tools = directory / "tools"
        self.tools.mkdir()
        self.calls = directory / "calls"
        self.calls.touch()
        (directory / "environment").write_text(ENVIRONMENT)
        (directory / "environment").chmod(0o755)
        for name in "apt-get", "sudo":
            self.put(name, CALLED)
        self.put("python3", FAKE_PYTHON)

    def put(self, name: str, script: str) -> None:
        (self.tools / name).write_text(script)
        (self.tools / name).chmod(0o755)

    def make_venv(
        self, uid: int, target: str = "there", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        self.put("id", f"#!/bin/sh\necho {uid}\n")
        variables |= {"CALLS": str(self.calls), "ENVIRONMENT": str(self.directory / "environment")}
        return subprocess.run(
            ["sh", str(SCRIPT), target],
            cwd=self.directory,
            env={"PATH": f"{self.tools}:/usr/bin:/bin", **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
        )

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a refused set-up says."""
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_root_gets_the_missing_packages(machine: Machine) -> None:
    done = machine.make_venv(0)
    assert done.returncode == 0, done.stderr
    assert machine.called() == [
        "apt-get update -qq",
        f"apt-get install -qq -y --no-install-recommends {PYTHON3}-venv {PYTHON3}-dev",
        "environment's python -m pip install -q --upgrade pip",
    ]


def test_the_user_sees_the_command_for_root(machine: Machine) -> None:
    command = f"apt-get update && apt-get install -y {PYTHON3}-venv {PYTHON3}-dev"
    assert refusal(machine.make_venv(1000)).endswith(f"as root, run: {command}")
    assert machine.called() == []
    assert not (machine.directory / "there").exists()
    # Once root has run it, the user goes on.
    machine.calls.write_text(f"apt-get install {PYTHON3}-venv {PYTHON3}-dev\n")
    assert machine.make_venv(1000).returncode == 0
    assert machine.called()[1:] == ["environment's python -m pip install -q --upgrade pip"]


def test_packages_that_do_not_help_are_an_error(machine: Machine) -> None:
    machine.put("apt-get", "#!/bin/sh\n")
    done = machine.make_venv(0)
    assert done.returncode != 0
    assert "still lacks venv" in done.stderr


def test_script_does_not_know_sudo() -> None:
    assert "sudo" not in SCRIPT.read_text()


def an_environment_of(python: str, directory: Path) -> None:
    """The file of python -m venv that names the interpreter of an environment."""
    (directory / "bin").mkdir(parents=True)
    (directory / "pyvenv.cfg").touch()
    (directory / "bin" / "python").write_text(python)
    (directory / "bin" / "python").chmod(0o755)


def test_environment_of_another_python_is_left_alone(machine: Machine) -> None:
    an_environment_of("#!/bin/sh\necho cpython 3.99 of /elsewhere on linux\n", machine.directory / "there")
    said = refusal(machine.make_venv(0))
    assert "there is an environment of cpython 3.99 of /elsewhere on linux, not of cpython 3." in said
    assert machine.called() == []


def test_environment_of_a_python_that_is_gone_is_left_alone(machine: Machine) -> None:
    an_environment_of("#!/nowhere/python\n", machine.directory / "there")
    assert "there is an environment of a Python that does not run any more" in refusal(machine.make_venv(0))
    assert machine.called() == []


def test_environment_of_the_same_python_is_used_again(machine: Machine) -> None:
    an_environment_of(f'#!/bin/sh\nexec {sys.executable} -I "$@"\n', machine.directory / "there")
    done = machine.make_venv(0)
    assert done.returncode == 0, done.stderr
    assert machine.called()[-1] == "environment's python -m pip install -q --upgrade pip"


PRETENCES = {
    r"pypy 3\.\d+[td]* of \S+ on linux": "sys.implementation.name = 'pypy'",
    r"cpython 3\.10[td]* of \S+ on linux": "sys.version_info = (3, 10, 13, 'final', 0)",
    r"cpython 3\.\d+[td]* of \S+ on darwin": "sys.platform = 'darwin'",
    r"graalpy 3\.\d+[td]* of \S+ on linux": "sys.implementation.name = 'graalpy'",
}


def pretender(change: str) -> str:
    """A Python that takes itself for another one."""
    change = change.replace("'", '"')
    return f"""#!/bin/sh
[ "$1" = -c ] || exit 9
exec {sys.executable} -I -c 'import sys; {change}
'"$2"
"""


@pytest.mark.parametrize("why", PRETENCES)
def test_unsuitable_python_is_refused_at_once(machine: Machine, why: str) -> None:
    machine.put("other", pretender(PRETENCES[why]))
    said = refusal(machine.make_venv(0, PYTHON="other"))
    assert re.fullmatch(f"{SCRIPT}: {NEEDS}, but {machine.tools}/other is {why}", said)
    assert machine.called() == []


def test_unsuitable_python_on_the_path_is_passed_over(machine: Machine) -> None:
    machine.put("python3", pretender("sys.implementation.name = 'pypy'"))
    machine.put("python3.15", FAKE_PYTHON)
    assert machine.make_venv(0).returncode == 0


@pytest.mark.parametrize(
    ("python", "why"),
    [("no-such-python", "no-such-python is not found"), ("broken", "broken is a Python that does not run")],
)
def test_a_missing_python_is_reported(machine: Machine, python: str, why: str) -> None:
    machine.put("broken", "#!/bin/sh\nexit 1\n")
    assert refusal(machine.make_venv(0, PYTHON=python)).endswith(why)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        stdin=subprocess.DEVNULL,
    )


# setuptools is not installed beside the tests: these names are all that setup.py takes of it.
FAKE_SETUPTOOLS = """
import os, sys, types
from pathlib import Path
from types import SimpleNamespace

class CompileError(Exception): pass
class LinkError(Exception): pass
class build_ext:
    def build_extensions(self):
        for extension in self.extensions:
            print("to the compiler:", extension.name, *extension.extra_compile_args)

def succeed(*args, **options): return []
def fail(error):
    def function(*args, **options): raise error
    return function
compiler = SimpleNamespace(compiler_so=["cc"], compile=succeed, link_shared_object=succeed)

def Extension(name, **options): return SimpleNamespace(name=name, **options)
def setup(cmdclass, ext_modules):
    command = cmdclass["build_ext"]()
    command.extensions, command.compiler = ext_modules, compiler
    command.build_extensions()

for name, values in {
    "setuptools": {"Extension": Extension, "setup": setup},
    "setuptools.command": {},
    "setuptools.command.build_ext": {"build_ext": build_ext},
    "setuptools.errors": {"CompileError": CompileError, "LinkError": LinkError},
}.items():
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(values)
os.environ.pop("PYEPOLL_CFLAGS", None)
"""


def run_setup(change: str = "") -> subprocess.CompletedProcess[str]:
    """Run setup.py after another line of Python."""
    script = f"exec(compile(Path({str(SETUP)!r}).read_text(), 'setup.py', 'exec'))"
    return run_python("\n".join([FAKE_SETUPTOOLS, change, script]))


# The wheel's tests run beside none of the sources.
in_a_checkout = pytest.mark.skipif(not SETUP.exists(), reason="no setup.py here: not a checkout")


@in_a_checkout
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("sys.implementation.name = 'pypy'", "this is "),
        ("sys.platform = 'darwin'", " on darwin"),
        ("sys.version_info = (3, 10, 13, 'final', 0)", "this is "),
    ],
)
def test_setup_refuses_before_it_compiles(change: str, what: str) -> None:
    said = refusal(run_setup(change))
    assert said.startswith(NEEDS)
    assert what in said


@in_a_checkout
def test_setup_goes_on_to_the_compiler() -> None:
    said = "to the compiler: pyepoll._epoll -flto=auto -fno-plt -std=c11 -fvisibility=hidden\n"
    assert run_setup().stdout == said


@in_a_checkout
@pytest.mark.parametrize(
    "change",
    [
        "compiler.compile = fail(CompileError())",
        "compiler.link_shared_object = fail(LinkError())",
        "compiler.compiler_so.append('-fno-lto')",
    ],
    ids=["compiler", "linker", "CFLAGS=-fno-lto"],
)
def test_setup_does_not_optimize_across_files_where_that_fails_or_is_unwanted(change: str) -> None:
    done = run_setup(change)
    assert done.stdout == "to the compiler: pyepoll._epoll -std=c11 -fvisibility=hidden\n", done.stderr


INIT = Path(pyepoll.__file__)


@pytest.mark.parametrize("version", [(3, 8, 18), (3, 10, 13)])
def test_import_on_an_old_python_names_the_version(version: tuple[int, int, int]) -> None:
    """Of a tree without extension, with modules that an old Python cannot parse."""
    number = ".".join(map(str, version))
    done = run_python(f"""
import sys
sys.version_info = (*{version}, "final", 0)
sys.version = "{number} (default)"
code = compile(open({str(INIT)!r}).read(), "pyepoll/__init__.py", "exec")
exec(code, {{"__name__": "pyepoll", "__path__": []}})
""")
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last == f"ImportError: pyepoll needs CPython 3.11 or later; this is Python {number}"


def test_old_pythons_can_parse_the_version_checks() -> None:
    for path in INIT, SETUP:
        if path.exists():
            ast.parse(path.read_text(), feature_version=(3, 7))
    first = ast.parse(INIT.read_text()).body[1:3]
    assert isinstance(first[0], ast.Import)
    assert isinstance(first[1], ast.If), "the question about the version comes before any import of ours"


def test_setup_script_is_executable() -> None:
    assert os.access(SCRIPT, os.X_OK)
    assert SCRIPT.read_text().startswith("#!/bin/sh\n")


def test_extension_older_than_its_sources_is_reported(tmp_path: Path) -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    sources = ["csrc/core/wait.c", "csrc/core/wait.h", "csrc/aio/loop.c"]
    built = [f"pyepoll/_epoll{suffix}"]
    for name in sources + built:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def changed_last(name: str) -> str | None:
        for other in sources + built:
            os.utime(tmp_path / other, (1000, 2000 if other == name else 1000))
        return outdated(tmp_path)

    assert changed_last(built[0]) is None
    for name in sources:
        assert changed_last(name) == f"{tmp_path / built[0]} is older than {name}"
    assert changed_last(built[0]) is None
    (tmp_path / built[0]).unlink()
    assert outdated(tmp_path) == f"{tmp_path / built[0]} is missing"
