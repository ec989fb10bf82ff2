"""The set-up commands have their shape, and the server is short; that its code runs is in test_pages.py."""

import re
import shlex

from pages import PORT, ROOT, blocks_of


def blocks(language: str) -> list[str]:
    return [block.text for block in blocks_of(ROOT / "README.md") if block.language == language]


def setup_commands() -> list[str]:
    """The lines of README.md that make a virtual environment."""
    lines = "".join(blocks("sh")).splitlines()
    return [line for line in lines if ".ci/venv" in line]


def test_readme_has_a_server_block() -> None:
    servers = [code for code in blocks("python") if PORT in code]
    assert len(servers) == 1
    assert len([line for line in servers[0].splitlines() if line]) <= 15


def test_the_two_commands_set_up_everything() -> None:
    """Each is one line, makes its own environment, and installs into that one alone."""
    main, test = setup_commands()
    for command, venv in ((main, ".venv"), (test, ".venv-test")):
        first, install, *_ = command.split(" && ")
        assert shlex.split(first) == [".ci/venv", venv]
        assert shlex.split(install)[:2] == [f"{venv}/bin/pip", "install"]
        assert "." in shlex.split(install), "it must install this tree, not a stranger's package"
        assert not set(re.findall(r"\.venv[-\w]*", command)) - {venv}
    assert " install -q -e . " in main, "or what runs in the checkout finds a tree without extension"
    script = re.search(r"examples/\w+\.py", main)
    assert script, "the main job is a program of examples/"
    assert (ROOT / script[0]).is_file()
    assert test.endswith(" && .venv-test/bin/pytest")


def test_the_figures_are_the_same_on_both_pages() -> None:
    def figures(page: str) -> str:
        _, _, rest = (ROOT / page).read_text().partition("<!-- benchmarks: begin -->")
        part, end, _ = rest.partition("<!-- benchmarks: end -->")
        assert end
        return part.replace("](docs/", "](")

    assert figures("README.md") == figures("docs/performance.md")
