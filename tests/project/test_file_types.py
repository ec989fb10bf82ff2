"""The tables of docs/reference/file-types.md are what its programs print, on this kernel."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.pages import PATIENCE, ROOT, anchor_of, blocks_of

PAGE = ROOT / "docs/reference/file-types.md"
OVERVIEW, *SECTIONS = re.split(r"(?m)^## ", PAGE.read_text())
PRELUDE, *PROGRAMS = [block.text for block in blocks_of(PAGE) if block.language == "python"]
BY_TITLE = {section.partition("\n")[0]: section for section in SECTIONS}
NONE = "\N{EN DASH}"
MISSING = (
    r"ModuleNotFoundError|FileNotFoundError|PermissionError|StopIteration|AttributeError: .*undefined symbol"
    # EROFS, ENOSYS, EPROTONOSUPPORT, EOPNOTSUPP, EAFNOSUPPORT
    r"|OSError: \[Errno (30|38|93|95|97)\]"
)
"""The last line on stderr where the machine, or the user, lacks the file; each is a reason to skip only in a
section that says what it needs."""


def table(section: str) -> list[tuple[str, ...]]:
    """The cells of the rows of the only table, without its head."""
    _, _, *rows = re.findall(r"(?m)^\|(.*)\|$", section)
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", row)) for row in rows]


def measured(title: str) -> set[str]:
    """The bits in the table of a section."""
    return set(re.findall(r"[A-Z]+", " ".join(events for _, events in table(BY_TITLE[title]))))


@pytest.mark.parametrize(
    ("title", "program"), list(zip(BY_TITLE, PROGRAMS, strict=True)), ids=[*map(anchor_of, BY_TITLE)]
)
def test_program_prints_the_table(title: str, program: str, tmp_path: Path) -> None:
    section = BY_TITLE[title]
    assert program in section
    expected = [
        f"{state}: {events.strip('`').replace(' ', '').replace(chr(92), '')}"
        for state, events in table(section)
    ]
    assert len(expected) == len(set(expected)) >= 2
    needs = re.search(r"(?m)^\*Needs:\* (.*)", section)
    # A busy machine may deliver a packet later than the program expects.
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PRELUDE + program],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if done.returncode and needs and re.match(MISSING, done.stderr.splitlines()[-1]):
            pytest.skip(f"needs {needs[1]}")
        printed = done.stdout.splitlines()
        if done.returncode == 0 and printed == expected:
            break
    assert done.returncode == 0, done.stderr
    assert printed == expected


def test_each_section_has_a_row_of_the_overview_and_a_source() -> None:
    rows = {link: cells for file, *cells in table(OVERVIEW) for link in re.findall(r"\(#(.*)\)", file)}
    assert list(rows) == [anchor_of(title) for title in BY_TITLE]
    for title, section in BY_TITLE.items():
        assert "\n*Source:* " in section, title
        readable, writable, others = rows[anchor_of(title)]
        if readable == "refused":
            assert measured(title) == {"EPERM"}
            continue
        assert (readable != NONE) == ("IN" in measured(title)), title
        assert (writable != NONE) == ("OUT" in measured(title)), title
        assert set(re.findall(r"`([A-Z]+)`", others)) == measured(title) - {"IN", "OUT"}, title
