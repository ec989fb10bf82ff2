"""Search the built pages as a reader does: ``python tools/search_docs.py docs/_build QUERY…``.

It opens the page of Sphinx's own search in a headless Chromium, which has to be installed, and prints the
first three results of each query.
"""

import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import quote

RESULT = re.compile(r'<li class="kind-\w+"><a href="([^"?#]*)[^"#]*(#[^"]*)?"[^>]*>(.*?)</a>')


def search(pages: Path, query: str) -> list[tuple[str, str]]:
    """Return the address and the title of each result."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("search_docs: neither chromium nor google-chrome is installed")
    # A page that is read from a file has no server to wait for: two seconds of its own time are enough.
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    address = f"{(pages / 'search.html').resolve().as_uri()}?q={quote(query)}"
    page = subprocess.run(
        [browser, *options, address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    ).stdout
    return [
        (found[1] + (found[2] or ""), unescape(re.sub(r"<.*?>", "", found[3])))
        for found in RESULT.finditer(page)
    ]


def main(pages: Path, queries: list[str]) -> None:
    for query in queries:
        print(query)
        for address, title in search(pages, query)[:3]:
            print(f"    {address:<60} {title}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
