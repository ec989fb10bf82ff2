"""Every block of code on the pages runs as it stands, or says why not; every link leads somewhere."""

import doctest
import re
import sys
from pathlib import Path

import pytest
from support.conformance import CANNOT_HOLD
from support.pages import (
    PAGES,
    PORT,
    ROOT,
    Block,
    Session,
    anchor_of,
    blocks_of,
    commands,
    run_alone,
    serve_echo,
)

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
DIRECTIVES = {"{eval-rst}", "{include}", "{literalinclude}", "{toctree}"}

by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def run_by_ci() -> list[str]:
    """The commands of README.md that .ci/run runs to the letter; their shape is tested in test_readme.py."""
    return [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("tools/venv ")]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block_is_of_a_kind_that_is_run(block: Block) -> None:
    assert block.language.partition(" ")[0] in {"python", "sh", "console", "text"} | DIRECTIVES
    if block.note.startswith("not run"):
        assert block.excused
    if block.note.startswith("run by"):
        assert block.run_by
        assert "from support.pages import" in block.run_by.read_text()
    if block.program:
        calls = [
            command
            for other in blocks_of(block.page)
            if other.language == "console" and not other.excused
            for command, _ in commands(other)
        ]
        name = re.compile(rf"(^|\s){block.program.removesuffix('.py')}(\.py|:app)(\s|$)")
        assert any(name.search(command) for command in calls), "no console block runs this program"


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language == "python" and not block.program and not block.run_by],
    ids=str,
)
def test_python_block_runs(block: Block, tmp_path: Path) -> None:
    if needs := re.fullmatch(r"needs Python (\d+)\.(\d+)", block.note):
        if sys.version_info < tuple(map(int, needs.groups())):
            pytest.skip(block.note)
    elif block.missing:
        pytest.skip(block.note)
    if ">>>" in block.text:
        examples = doctest.DocTestParser().get_doctest(block.text, {}, "the block", None, None)
        assert doctest.DocTestRunner().run(examples).failed == 0
    elif PORT in block.text:
        serve_echo(block.text, tmp_path)
    else:
        run_alone(block.text, tmp_path)


@by_name
def test_each_session_prints_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    blocks = blocks_of(page)
    session = [block for block in blocks if block.language == "console" and not block.excused]
    Session(blocks, tmp_path).run([block for block in session if not block.missing])
    if missing := {block.missing for block in session if block.missing}:
        pytest.skip(f"all but the parts that need {', '.join(sorted(missing))}")


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language == "sh" and not block.excused and not block.run_by],
    ids=str,
)
def test_sh_block_runs(block: Block, tmp_path: Path) -> None:
    session = Session(blocks_of(block.page), tmp_path)
    for line in block.text.splitlines():
        if line not in run_by_ci():
            status, printed = session.finish(line)
            assert status == 0, printed


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return set(map(anchor_of, re.findall(r"^#+ (.*)$", text, re.MULTILINE)))


@by_name
def test_every_link_and_path_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    for path, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", text):
        target = page.parent / path if path else page
        if path.startswith("../csrc/") and not (ROOT / "csrc").exists():
            continue  # The tests of a wheel have no sources of C.
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"
    text = re.sub(r"^```\{toctree\}.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"(?:examples|docs|\.ci|tests)/[\w./-]*\w", text))
    missing = sorted(name for name in named if not (ROOT / name).exists())
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert not missing
    assert set(re.findall(r"\btest_\w+\.py", text)) <= tests


def test_each_search_phrase_leads_to_one_heading() -> None:
    """docs/conf.py puts it into the index, which the search compares with the query in lower case."""
    found: list[str] = []
    for page in PAGES:
        text = page.read_text()
        comments = re.findall(r"(?m)^<!-- search: (.*) -->\n\n##+ ", text)
        assert len(comments) == text.count("<!-- search:"), f"{page}: not before a heading"
        found += [phrase for comment in comments for phrase in comment.split(", ")]
    assert len(found) > 30
    assert len(found) == len(set(found))
    assert all(phrase == phrase.lower().strip() for phrase in found)


def test_each_surprise_of_the_kernel_has_a_program_and_a_source() -> None:
    text = (ROOT / "docs/kernel.md").read_text()
    *surprises, rest = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert rest.startswith("And some more")
    assert len(surprises) > 20
    for surprise in surprises:
        title, _, body = surprise.partition("\n")
        assert "```python\n" in body, title
        assert "\n*Source:* " in body, title
        assert f"(#{anchor_of(title)})" in text, f"the list at the top leaves out: {title}"


def test_asyncio_page_names_the_tests_that_cannot_pass() -> None:
    _, _, rest = (ROOT / "docs/asyncio.md").read_text().partition("\n## CPython's own tests\n")
    section, _, _ = rest.partition("\n## ")
    default, _, base_classes = section.partition("A second run")
    assert CANNOT_HOLD.keys() == {"bases"}
    assert not re.findall(r"^- `(\w+)`$", default, re.MULTILINE)
    names = {test.rpartition(".")[2] for test in CANNOT_HOLD["bases"]}
    assert set(re.findall(r"^- `(\w+)`$", base_classes, re.MULTILINE)) == names
    for test in CANNOT_HOLD["bases"]:
        assert ".".join(test.split(".")[2:4]) in section


def test_each_example_has_a_page() -> None:
    """It is in the sidebar and in the search, and links to the program lead there."""
    programs = {path.relative_to(ROOT).with_suffix("") for path in (ROOT / "examples").glob("**/*.py")}
    folder = ROOT / "docs" / "examples"
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in folder.glob("**/*.md")}
    assert pages - {Path("examples/index")} == programs
    for program in programs:
        assert f"../{program}.py\n" in (ROOT / "docs" / f"{program}.md").read_text()


def test_every_page_of_the_docs_is_tested() -> None:
    strays = [path for path in (ROOT / "docs").glob("**/*") if path.suffix in {".rst", ".txt", ".ipynb"}]
    assert not [path for path in strays if "_build" not in path.parts]


def test_no_page_installs_another_projects_package() -> None:
    for page in PAGES:
        assert not re.search(r"install\s+(-\S+\s+)*pyepoll\b", page.read_text()), page
