"""Sphinx: `sphinx-build -W docs docs/_build`, in an environment in which the package is installed."""

import ast
import builtins
import inspect
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import (
    desc_annotation,
    desc_parameter,
    desc_signature,
    download_reference,
    manpage,
    pending_xref,
)
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.inspect import stringify_signature

import pyepoll
import pyepoll.aio
import pyepoll.procfs

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("**/*.py"))

sys.path.insert(0, str(ROOT / "tests"))
from support.surface import surface  # noqa: E402

project = "pyepoll"
author = "The pyepoll authors"
copyright = f"2026, {author}"
version = release = pyepoll.__version__

# Sphinx reads the docstrings of attributes from the file that `__module__` names.
for module, names in (
    (pyepoll._core, "BusyPoll Epoll Registrations Stats"),
    (pyepoll._event, "Event"),
    (pyepoll._loop_stats, "LoopStats"),
    (pyepoll._selector, "EpollSelector"),
    (pyepoll._fdinfo, "EpollInfo FdHolder Watch"),
):
    for name in names.split():
        getattr(module, name).__module__ = module.__name__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True
show_warning_types = True

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

html_theme = "furo"
html_title = f"pyepoll {release}"
html_static_path = ["_static"]
html_css_files = ["pyepoll.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
# The Markdown is read as it is elsewhere too, where quotes are straight.
smartquotes = False

manpages_url = "https://man7.org/linux/man-pages/man{section}/{page}.{section}.html"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 90

PYTHON_DOCS = "https://docs.python.org/3/library/"
PYTHON_PAGES = {
    "AbstractEventLoop": "asyncio-eventloop.html#asyncio.AbstractEventLoop",
    "Any": "typing.html#typing.Any",
    "Coroutine": "collections.abc.html#collections.abc.Coroutine",
    "Iterable": "collections.abc.html#collections.abc.Iterable",
    "Iterator": "collections.abc.html#collections.abc.Iterator",
    "Mapping": "collections.abc.html#collections.abc.Mapping",
    "NamedTuple": "typing.html#typing.NamedTuple",
    "Self": "typing.html#typing.Self",
    "SupportsIndex": "typing.html#typing.SupportsIndex",
    "TracebackType": "types.html#types.TracebackType",
    "SelectorEventLoop": "asyncio-eventloop.html#asyncio.SelectorEventLoop",
    "asyncio.run": "asyncio-runner.html#asyncio.run",
    "bool": "functions.html#bool",
    "dict": "stdtypes.html#dict",
    "IntFlag": "enum.html#enum.IntFlag",
    "float": "functions.html#float",
    "int": "functions.html#int",
    "list": "stdtypes.html#list",
    "None": "constants.html#None",
    "object": "functions.html#object",
    "os.close": "os.html#os.close",
    "BaseSelector": "selectors.html#selectors.BaseSelector",
    "SelectorKey": "selectors.html#selectors.SelectorKey",
    "tuple": "stdtypes.html#tuple",
}
"""The addresses in Python's documentation of our references; a list: a build must not need the network."""
PLACEHOLDERS = {"T", "FileDescriptorLike"}
"""The text for a type in signatures, as in the reference."""

logger = logging.getLogger(__name__)


# The types of objects in C: they are in the stub, and nowhere else.


def stub_functions() -> dict[str, ast.FunctionDef]:
    """Every function and method of the stub by its dotted name; of overloads the last, which takes most."""
    (directory,) = find_spec("pyepoll").submodule_search_locations
    tree = ast.parse((Path(directory) / "_epoll.pyi").read_text())
    found = {}
    for scope in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))):
        prefix = f"{scope.name}." if isinstance(scope, ast.ClassDef) else ""
        found |= {prefix + node.name: node for node in scope.body if isinstance(node, ast.FunctionDef)}
    return found


STUB = stub_functions()
SHORT = {"_T": "T", "_FileDescriptorLike": "FileDescriptorLike"}
"""How the stub's private names are shown; the reference explains names for several types."""
LONG = {"_Seconds": "float", "_Timeout": "float | SupportsIndex | None", "_Sigmask": "Iterable[int] | None"}


def shown_type(annotation: ast.expr) -> str:
    return re.sub(r"\b_\w+", lambda name: (SHORT | LONG).get(name[0], name[0]), ast.unparse(annotation))


MADE_BY_THE_PACKAGE = {"Registrations", "aio.DatagramTransport", "aio.SocketTransport"}
"""Members of these that are implementation details."""


def typed_signature(function: ast.FunctionDef, runtime: inspect.Signature) -> tuple[str, str]:
    """The arguments, with the defaults of the function and the stub's types, and the result."""
    types = {node.arg: node.annotation for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    shown = runtime.replace(
        parameters=[
            parameter.replace(annotation=shown_type(types[name]))
            for name, parameter in runtime.parameters.items()
            if name != "self"
        ]
    )
    arguments = stringify_signature(shown, show_return_annotation=False).replace("Ellipsis", "...")
    return arguments, "" if function.name == "__new__" else shown_type(function.returns)


def add_types(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None] | None:
    path = name.removeprefix("pyepoll.").removeprefix("raw.").replace("EpollSelector.", "Selector.")
    if path in MADE_BY_THE_PACKAGE:
        return "", None
    function = STUB.get(f"{path}.__new__" if what == "class" else path)
    if function is None or not is_plain(thing) or inspect.isgetsetdescriptor(thing):
        return None
    return typed_signature(function, inspect.signature(thing))


# The help() text of C objects is plain text: here it becomes reStructuredText.

ERRNO = r"\bE(?:POLL|PIO)?[A-Z_\d]{2,}\b"
LINKED = re.compile(
    rf"(?P<manpage>\b[a-z]\w+\(\d\))|(?P<error>\b[A-Z]\w+Error\b)|(?P<literal>{ERRNO}|\b(?:CAP|CONFIG)_[A-Z_]+)"
)
MARKED = re.compile(
    rf"""{LINKED.pattern.removesuffix(")")}
        | /(?:proc|sys)/[\w/]+
        | \b(?:\w+\.)*\w+\(\)
        | \b(?:pyepoll|select|selectors|os)\.\w+(?:\.\w+)*
        | \bEVENT_[A-Z]+
        | \b(?:Event\.)?(?:IN|OUT|PRI|ERR|HUP|RDHUP|ET|ONESHOT|EXCLUSIVE|WAKEUP)\b(?:\s\|\s(?:IN|OUT|PRI)\b)*
        | \b__\w+__
        | \bNone\b
    )""",
    re.VERBOSE,
)
ROLES = {"argument": "*{}*", "manpage": ":manpage:`{}`", "error": ":exc:`{}`", "literal": "``{}``"}


def marked(text: str, names: set[str]) -> str:
    """Plain text with its arguments, errors, constants and manual pages marked up."""
    argument = rf"\b(?:{'|'.join(sorted(names))})\b(?!\()" if names else "(?!)"
    pieces, end = [], 0
    for match in re.finditer(rf"(?P<argument>{argument})|{MARKED.pattern}", text, re.VERBOSE):
        pieces += [escaped(text[end : match.start()]), "\\ ", ROLES[match.lastgroup].format(match[0]), "\\ "]
        end = match.end()
    return "".join([*pieces, escaped(text[end:])])


def escaped(text: str) -> str:
    return re.sub(r"([\\*`|_])", r"\\\1", text)


def linked(text: str) -> str:
    """reStructuredText with its errors and manual pages marked up."""
    pieces = re.split(r"(``.*?``|:\w+:`.*?`)", text, flags=re.DOTALL)
    for i in range(0, len(pieces), 2):
        pieces[i] = LINKED.sub(lambda match: ROLES[match.lastgroup].format(match[0]), pieces[i])
    return "".join(pieces)


def from_docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    if re.match(r"Alias for field number \d", "".join(lines)):  # a named tuple's own words for a field
        lines.clear()
        return
    mark = linked
    if is_plain(thing):
        has_arguments = callable(thing) and not inspect.isgetsetdescriptor(thing)
        names = set(inspect.signature(thing).parameters) - {"self"} if has_arguments else set()
        mark = partial(marked, names=names)
    lines[:] = "\n\n".join(from_part(part, mark) for part in parts("\n".join(lines).strip())).splitlines()


def parts(text: str) -> list[str]:
    """The paragraphs of a docstring. A block of code, which is indented, is one, with its empty lines."""
    found: list[str] = []
    for part in text.split("\n\n"):
        if found and found[-1].startswith("    ") and part.startswith("    "):
            found[-1] += f"\n\n{part}"
        else:
            found.append(part)
    return found


def from_part(part: str, mark: Callable[[str], str]) -> str:
    if part.startswith("    "):
        explained = [re.fullmatch(r" {4}(\S.*?) {3,}(\S.*)", line) for line in part.splitlines()]
        if all(explained):
            return "\n".join(f"- ``{match[1].rstrip(':')}``: {mark(match[2])}" for match in explained)
        return f".. code-block:: python\n\n{part}"
    if re.search(r"(?:^|\. )Raises ", part):
        return "\n".join(raises_list(part, mark))
    return mark(re.sub(r"::$", ":", part))


NEXT_ERROR = re.compile(
    r"; (?:and )?(?=\w+Error\b)|, and (?=\w+Error\b)|, (?=\w+Error (?:for|if|when)\b)(?![^()]*\))"
)
NEXT_ERRNO = re.compile(r", (?:and )?(?=E[A-Z]{3,}\b)")


def raises_list(part: str, mark: Callable[[str], str]) -> list[str]:
    """A paragraph with its errors as a list, and the errnos of OSError below it.

    A sentence with a single error after other text, or with a reference to another function, stays as it is.
    """
    before: list[str] = []
    lines: list[str] = []
    after: list[str] = []
    for sentence in re.split(r"(?<=\.) ", " ".join(part.split())):
        errors = NEXT_ERROR.split(sentence.removeprefix("Raises ").rstrip("."))
        if not re.match(r"Raises (?!what\b|as\b)", sentence) or (before and len(errors) == 1):
            (after if lines else before).append(sentence)
            continue
        for error in errors:
            name, colon, causes = error.partition(": ")
            if not colon or not re.fullmatch(r"\w+Error", name):
                lines += [f"- {mark(error)}", ""]
                continue
            lines += [f"- {mark(name)}", ""]
            lines += [f"  - {mark(cause)}" for cause in NEXT_ERRNO.split(causes)]
            lines.append("")
    head = ["Raises:", ""] if lines else []
    return [mark(" ".join(before)), "", *head, *lines, mark(" ".join(after))]


def is_plain(thing: Any) -> bool:
    """Whether a docstring is C's. The package's Epoll has the core's."""
    if isinstance(thing, type):
        objects = pyepoll.Waker, pyepoll.Timer, pyepoll.Signals, pyepoll.Child
        return thing in (pyepoll.Epoll, *objects, pyepoll.raw.EventBuffer)
    return inspect.isgetsetdescriptor(thing) or (inspect.isroutine(thing) and not inspect.isfunction(thing))


def values_of_bits(app: Sphinx, document: nodes.document) -> None:
    """The value of a bit or a constant, as linux/eventpoll.h has it: in hex."""
    for signature in document.findall(desc_signature):
        name = signature.get("fullname", "")
        bit = pyepoll.Event.__members__.get(name.removeprefix("Event."))
        if bit is not None and name.startswith("Event."):
            for value in signature.findall(desc_annotation):
                if value.astext().strip().startswith("="):
                    value.children = [nodes.Text(f" = {int(bit):#x}")]
        elif name.startswith(("EPOLL", "EPIOC")):
            signature += desc_annotation("", f" = {getattr(pyepoll.raw, name):#x}")


DEFAULTS = {
    ("register", "eventmask"): "IN|PRI|OUT",
    ("register", "data"): "<the fd>",
    ("modify", "data"): "<unchanged>",
}
"""Defaults of Epoll's methods in the words of a reader, who cannot know the meaning of 7 and `...`."""


def meanings_of_defaults(app: Sphinx, document: nodes.document) -> None:
    for signature in document.findall(desc_signature):
        method = signature.get("fullname", "").removeprefix("Epoll.")
        for parameter in signature.findall(desc_parameter):
            meaning = DEFAULTS.get((method, parameter.astext().partition(":")[0]))
            for value in parameter.findall(nodes.inline) if meaning else ():
                if "default_value" in value["classes"]:
                    value.children = [nodes.Text(meaning)]


# Links that are right on a forge, where the pages are read as they are, and here.


def unlink_files_without_page(app: Sphinx, document: nodes.document) -> None:
    """A folder of the checkout has no page here, nor has a page of another folder."""
    for node in list(document.findall(pending_xref)):
        if node["reftype"] == "myst":
            target = (Path(app.env.doc2path(node["refdoc"])).parent / node["reftarget"]).resolve()
            outside = target.with_suffix(".md").is_file() and ROOT / "docs" not in target.parents
            if target.is_dir() or outside:
                node.replace_self(node.children)


def add_search_terms(app: Sphinx, page: str, source: list[str]) -> None:
    """A comment ``<!-- search: a, b -->``: a search for such a phrase finds the heading after it first."""
    source[0] = re.sub(
        r"<!-- search: (.*) -->\n",
        lambda found: f"```{{index}} !{found[1].replace(', ', ', !')}\n```\n",
        source[0],
    )


def link_examples(app: Sphinx, document: nodes.document) -> None:
    """A link to a program leads to its page, and is no download."""
    for node in list(document.findall(download_reference)):
        path = (Path(app.env.doc2path(app.env.docname)).parent / node["reftarget"]).resolve()
        if path in EXAMPLES:
            page = str(path.relative_to(ROOT).with_suffix(""))
            uri = app.builder.get_relative_uri(app.env.docname, page)
            node.replace_self(nodes.reference("", "", *node.children, internal=True, refuri=uri))


def link_manual_pages(app: Sphinx, document: nodes.document) -> None:
    """Where a page says epoll(7), it means the manual."""
    for text in list(document.findall(nodes.Text)):
        if isinstance(text.parent, nodes.paragraph):
            pieces = re.split(r"\b([a-z]\w+\(\d\))", text)
            text.parent.replace(
                text, [manual_page(piece) if i % 2 else nodes.Text(piece) for i, piece in enumerate(pieces)]
            )


def manual_page(name: str) -> manpage:
    page, section = name.removesuffix(")").split("(")
    uri = manpages_url.format(page=page, section=section)
    return manpage("", "", nodes.reference("", name, internal=False, refuri=uri))


def to_python_docs(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contents: nodes.Element
) -> nodes.Element | None:
    target = node.get("reftarget", "")
    name = target.rpartition(".")[2]
    page = PYTHON_PAGES.get(target) or PYTHON_PAGES.get(name)
    if page is None and isinstance(getattr(builtins, target, None), type):
        page = f"exceptions.html#{target}"
    if page is None:
        return contents if name in PLACEHOLDERS else None
    link = nodes.reference("", "", internal=False, refuri=PYTHON_DOCS + page)
    link += contents
    return link


# Every public name is in the reference.

UNTOLD = {"and", "class_getitem", "eq", "next", "rand", "reduce_ex", "repr", "str"}
"""The special methods that behave as expected, and those that are not called by hand."""


def check_names(app: Sphinx, env: BuildEnvironment) -> None:
    documented = {name.removeprefix("pyepoll.") for name in env.domains["py"].objects}
    wanted = {name for name in surface() if not name.startswith(("Ready.", "Registrations."))}
    wanted = {f"raw.{name}" if name.startswith("EventBuffer") else name for name in wanted}
    for prefix, module in ("", pyepoll), ("raw.", pyepoll.raw), ("aio.", pyepoll.aio):
        wanted |= {prefix + name for name in module.__all__}
    for name in sorted(wanted - documented):
        if name.rpartition(".")[2].strip("_") not in UNTOLD:
            logger.warning("%s is not in the reference", name, type="pyepoll")


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_search_terms)
    app.connect("autodoc-process-signature", add_types)
    app.connect("autodoc-process-docstring", from_docstring)
    app.connect("missing-reference", to_python_docs)
    app.connect("doctree-read", values_of_bits)
    app.connect("doctree-read", meanings_of_defaults)
    app.connect("doctree-read", unlink_files_without_page)
    # Before Sphinx notes the files to download.
    app.connect("doctree-read", link_examples, priority=100)
    app.connect("doctree-read", link_manual_pages)
    app.connect("env-check-consistency", check_names)
