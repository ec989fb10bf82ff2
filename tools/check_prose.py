"""Count words that make prose hard to read: ``python tools/check_prose.py [FILE…]``.

Two figures for each page, per 1,000 words: relative clauses without a noun ("what", "who", "whose"), and
words that are not today's idiom. Above 5 of the former, or with any of the latter, a page of documentation
fails; so does a folder, for its docstrings and comments. Code, tables and links are not counted.
"""

import io
import re
import subprocess
import sys
import tokenize
from collections import defaultdict
from pathlib import Path

LIMIT = 5
CLAUSES = re.compile(r"\b(what|who|whoever|whom|whose|of which|that which)\b", re.IGNORECASE)
OLD = re.compile(
    r"\b(for ever|anew|by now|is told|are told|lets? go of|strangers?|newcomers?|lives on|to be had|nobody|"
    r"mend(?:s|ed)?|dear|the herd|ghosts?|orphans?)\b",
    re.IGNORECASE,
)


def prose_of_page(text: str) -> str:
    text = re.sub(r"(?ms)^```.*?^```|^\|.*?$|^ {4,}.*?$|<!--.*?-->", "", text)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`+[^`]*`+", "X", text))


def prose_of_c(text: str) -> str:
    return "\n".join(re.findall(r"/\*.*?\*/|//.*", text, re.DOTALL))


def prose_of_python(text: str) -> str:
    """Comments, and strings of three quotes."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    wanted = (tokenize.COMMENT, tokenize.STRING)
    return "\n".join(t.string for t in tokens if t.type in wanted and t.string.startswith(("#", '"""')))


PROSE = {
    ".md": prose_of_page,
    ".c": prose_of_c,
    ".h": prose_of_c,
    ".py": prose_of_python,
    ".pyi": prose_of_python,
}


def main(names: list[str]) -> int:
    names = (
        names or subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], text=True).split()
    )
    texts: dict[str, str] = defaultdict(str)
    for path in (Path(name) for name in names):
        if path.suffix in PROSE and path.is_file() and path != Path(__file__).relative_to(Path.cwd()):
            row = str(path) if path.suffix == ".md" else f"{path.parent}/*{path.suffix}"
            texts[row] += PROSE[path.suffix](path.read_text()) + "\n"
    failed = 0
    print(f"{'page':<36} {'words':>6} {'what/who':>8} {'old':>5}")
    for row, text in texts.items():
        words = max(len(text.split()), 200)  # in a short page one word would decide
        clauses = 1000 * len(CLAUSES.findall(text)) / words
        old = OLD.findall(text)
        bad = row != "CHANGELOG.md" and (clauses > LIMIT or bool(old))
        failed += bad
        found = ", ".join(sorted({word.lower() for word in old}))
        print(f"{row:<36} {words:>6} {clauses:>8.1f} {1000 * len(old) / words:>5.1f} {'FAIL ' * bad}{found}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
