"""The installed package is complete, with its types, and needs nothing but CPython."""

import importlib
import importlib.metadata
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.processes import SANITIZED

import pyepoll

INSTALLED = Path(pyepoll.__file__).parent
METADATA = importlib.metadata.metadata("pyepoll")


def test_the_version_is_the_same_everywhere() -> None:
    assert METADATA["Version"] == pyepoll.__version__


def test_the_package_has_no_dependencies() -> None:
    """Whatever is asked for is an extra."""
    needs = [Requirement(text) for text in importlib.metadata.requires("pyepoll") or []]
    assert [str(need) for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})] == []


@pytest.mark.parametrize("module", ["pyepoll", "pyepoll.raw", "pyepoll.aio"])
def test_the_import_loads_nothing_from_elsewhere(module: str) -> None:
    """With the packages of the extras installed or not."""
    # -S: modules that site adds, an editable install's finder too, are not the package's doing.
    program = f"""
import sys
sys.path.append({str(INSTALLED.parent)!r})
before = set(sys.modules)
import {module}
print(*{{name.partition(".")[0] for name in sys.modules.keys() - before}} - sys.stdlib_module_names)
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The module of a distributor's messages, which CPython 3.15 imports and leaves out of the list of names.
    assert set(done.stdout.split()) - {"_missing_stdlib_info"} == {"pyepoll"}


MODULES = ["pyepoll", "pyepoll.aio", "pyepoll.doctor", "pyepoll.procfs", "pyepoll.raw"]


def test_public_modules_are_these_and_no_other() -> None:
    """All other modules have an underscore: an import shows that it is private."""
    found = {
        ".".join(("pyepoll", *path.relative_to(INSTALLED).with_suffix("").parts))
        for path in INSTALLED.rglob("*.py")
    }
    public = {name for name in found if not re.search(r"\._", name)}
    assert public == {*MODULES} - {"pyepoll"}


@pytest.mark.parametrize("name", ["epoll", "events", "selector", "ps", "screen"])
def test_no_module_is_shadowed_by_a_class(name: str) -> None:
    """``import pyepoll.epoll as m`` yielded the class."""
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"pyepoll.{name}")


@pytest.mark.parametrize("name", MODULES)
def test_public_classes_are_of_the_module_that_exports_them(name: str) -> None:
    if name == "pyepoll.procfs":
        pytest.importorskip(name, exc_type=ImportError)
    module = importlib.import_module(name)
    classes = [
        thing
        for each in module.__all__
        if isinstance(thing := getattr(module, each), type) and thing is not OSError
    ]
    assert all(each.__module__ == name for each in classes), [each.__module__ for each in classes]
    assert all(pickle.loads(pickle.dumps(each)) is each for each in classes)
    assert not [each for each in vars(module) if each.startswith("_public")]


def test_main_module_is_three_lines() -> None:
    lines = (INSTALLED / "__main__.py").read_text().splitlines()
    assert len([line for line in lines if line]) == 3


def test_the_stubs_are_installed() -> None:
    """An extension module has its stub, and the package says that its types count."""
    assert (INSTALLED / "py.typed").is_file()
    # In an editable install the extensions may be anywhere; the names are those that CPython loaded.
    extensions = {
        name.removeprefix("pyepoll.")
        for name, module in sys.modules.items()
        if name.startswith("pyepoll.") and not str(module.__file__).endswith(".py")
    }
    assert "_epoll" in extensions
    assert {f"{name}.pyi" for name in extensions} <= {path.name for path in INSTALLED.iterdir()}


@pytest.mark.skipif(SANITIZED, reason="the sanitizer's own symbols are exported as well")
@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
@pytest.mark.parametrize("name", ["_epoll"])
def test_extensions_export_their_init_function_only(name: str) -> None:
    """What else they exported could be taken for the same name of another library."""
    extension = importlib.import_module(f"pyepoll.{name}").__file__
    listed = subprocess.check_output(["nm", "-D", "--defined-only", str(extension)], text=True)
    of_musl = {"_init", "_fini"}  # In every library that is linked with it.
    assert {line.split()[-1] for line in listed.splitlines()} - of_musl == {f"PyInit_{name}"}
