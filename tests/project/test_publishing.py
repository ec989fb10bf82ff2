"""The name on the public index is another project's: nothing is published to it by mistake."""

import importlib.metadata
import os
import shutil
import subprocess
from pathlib import Path

import pytest

MAY_PUBLISH = Path(__file__).parents[2] / "tools" / "may_publish"
INDEX = "https://packages.example.org/legacy/"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the guard is a script of bash's")


def test_an_index_refuses_the_package() -> None:
    """Whatever else fails, an index that knows the classifier takes no such file."""
    assert "Private :: Do Not Upload" in (importlib.metadata.metadata("pyepoll").get_all("Classifier") or [])


def may_publish(index: str, ref: str = "refs/tags/v0.1.0", variable: str | None = None) -> str:
    """The complaint of the release's guard about an upload: empty if it is allowed."""
    environment = {"GITHUB_REF": ref, "PUBLISH_INDEX": index if variable is None else variable}
    done = subprocess.run(
        ["bash", MAY_PUBLISH, index], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == (1 if done.stderr else 0)
    return done.stderr


@pytest.mark.parametrize("index", [INDEX, "https://packages.example.org", "https://mypypi.org/upload"])
def test_publishing_to_the_maintainers_index_is_allowed(index: str) -> None:
    assert may_publish(index) == ""


@pytest.mark.parametrize(
    "index",
    [
        "https://upload.pypi.org/legacy/",
        "https://pypi.org/legacy/",
        "https://test.pypi.org/legacy/",
        "https://UPLOAD.PYPI.ORG/legacy/",
        "https://upload.pypi.org./legacy/",
        "https://upload.pypi.org:443/legacy/",
        "https://somebody@upload.pypi.org/legacy/",
        "https://packages.example.org@upload.pypi.org/",
        "http://packages.example.org/legacy/",
        " https://packages.example.org/legacy/",
        "https://packages.example.org/legacy/\n",
        "packages.example.org",
        "",
    ],
)
def test_publishing_to_another_project_is_refused(index: str) -> None:
    """Not even by a person who sets the repository's variable."""
    assert may_publish(index).startswith("refused: ")


@pytest.mark.parametrize("ref", ["", "refs/heads/main", "refs/heads/v1", "refs/pull/1/merge"])
def test_publishing_without_a_release_is_refused(ref: str) -> None:
    assert "not the tag of a release" in may_publish(INDEX, ref)


@pytest.mark.parametrize("variable", ["", "https://elsewhere.example.org/", INDEX + "x"])
def test_an_index_must_be_named_twice(variable: str) -> None:
    assert "PUBLISH_INDEX" in may_publish(INDEX, variable=variable)
