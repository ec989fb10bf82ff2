"""Where ``ps`` shows its pages: once, again and again, or redrawn on a terminal with keys."""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .. import Epoll, Event
from .ps import Page

_NARROW = 90
"""Below so many columns, those of a table that can be spared are left out."""

_LEAST = 12
"""How wide the last column is at least."""

_GAP = 2
"""Between two columns."""

_ENDLESS = 1_000_000
"""The width at which nothing is cut."""


def show(pages: Iterator[Page], *, as_json: bool) -> None:
    """Show one page on stdout; on a terminal long lines are folded, elsewhere they stay whole."""
    page = next(pages)
    if as_json:
        print(json.dumps(page.document, indent=2))
    else:
        _print(page)


def watch(pages: Iterator[Page], *, interval: float, count: int | None, as_json: bool) -> None:
    """Show a page every ``interval`` seconds, ``count`` times or until SIGINT; a terminal is redrawn.

    Elsewhere the pages follow each other; as JSON, each on a line.
    """
    if as_json:
        _repeat(pages, interval, count, lambda page: print(json.dumps(page.document), flush=True))
    elif sys.stdout.isatty() and not Console().is_dumb_terminal:
        _redraw(itertools.islice(pages, count), interval)
    else:
        _repeat(pages, interval, count, _print_another)


def _repeat(pages: Iterator[Page], interval: float, count: int | None, write: Callable[[Page], None]) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        due = time.monotonic()
        for number in itertools.count() if count is None else range(count):
            if number:
                # A look that took longer is not made up for.
                due = max(due + interval, time.monotonic())
                time.sleep(max(due - time.monotonic(), 0))
            write(next(pages))


def _print_another(page: Page) -> None:
    _print(page)
    print(flush=True)


def _print(page: Page) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _ENDLESS)
    with console.capture() as capture:
        console.print(drawn(page, console.width, fold=True))
    for line in capture.get().splitlines():
        print(line.rstrip())


def drawn(page: Page, width: int, *, fold: bool, first: int = 0, room: int | None = None) -> Group:
    """A page for rich. Where lines are not folded they are cut; ``room`` is for so many rows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    chosen = [number for number, column in enumerate(page.columns) if width >= _NARROW or not column.spare]
    left = width
    for number in chosen:
        column = page.columns[number]
        # Of all rows, so that a column keeps its width when others are shown; the last gets the rest.
        widest = max(cell_len(_plain(cell)) for cell in (column.name, *(row[number] for row in page.rows)))
        if number == chosen[-1]:
            widest = min(widest, max(left, _LEAST))
        table.add_column(
            column.name,
            justify="right" if column.right else "left",
            overflow="fold" if fold else "ellipsis",
            no_wrap=not (fold and number == chosen[-1]),
            width=widest,
        )
        left -= widest + _GAP
    for row in range(len(page.rows))[first : None if room is None else first + room]:
        cells = [_text(page.rows[row][number]) for number in chosen]
        table.add_row(*cells, style="bold red" if page.alarming[row] else "")
    heading = [_text(line) for line in page.heading]
    for line in heading if not fold else []:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*heading, table)


def _plain(text: str) -> str:
    """The text with its control characters escaped: a process can have any name."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _text(text: str) -> Text:
    """The text without markup."""
    return Text(_plain(text))


@dataclasses.dataclass(slots=True)
class _View:
    """The part of a page that a terminal shows."""

    page: Page
    due: float
    """When the next look is."""
    first: int = 0
    """The row at the top."""
    room: int = 1
    """How many rows there is room for."""

    def scroll(self, to: int) -> None:
        self.first = max(min(to, len(self.page.rows) - self.room), 0)

    def draw(self, live: Live, interval: float) -> None:
        width, height = live.console.size
        self.room = max(height - len(self.page.heading) - 2, 1)
        self.scroll(self.first)
        rows = len(self.page.rows)
        shown = f"{min(self.first + 1, rows)} to {min(self.first + self.room, rows)} of {rows}"
        help = Text(f"{shown}, every {interval:g} s; q quits, arrows and PgUp, PgDn scroll", style="dim")
        help.no_wrap, help.overflow = True, "ellipsis"
        page = drawn(self.page, width, fold=False, first=self.first, room=self.room)
        live.update(Group(page, help), refresh=True)

    def press(self, keys: bytes) -> bool:
        """Handle keys; return whether one of them quits."""
        moves = {"up": -1, "down": 1, "page up": -self.room, "page down": self.room}
        for key in re.findall(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", keys, re.DOTALL):
            name = _KEYS.get(key)
            if name == "quit":
                return True
            if name is not None:
                ends = {"home": 0, "end": len(self.page.rows)}
                self.scroll(self.first + moves[name] if name in moves else ends[name])
        return False


_KEYS = {
    **dict.fromkeys([b"q", b"Q", b"\x03"], "quit"),
    **dict.fromkeys([b"\x1b[A", b"\x1bOA", b"k"], "up"),
    **dict.fromkeys([b"\x1b[B", b"\x1bOB", b"j"], "down"),
    **dict.fromkeys([b"\x1b[5~", b"b"], "page up"),
    **dict.fromkeys([b"\x1b[6~", b" "], "page down"),
    **dict.fromkeys([b"\x1b[H", b"\x1bOH", b"\x1b[1~", b"g"], "home"),
    **dict.fromkeys([b"\x1b[F", b"\x1bOF", b"\x1b[4~", b"G"], "end"),
}

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)


def _redraw(pages: Iterator[Page], interval: float) -> None:
    page = next(pages, None)
    if page is None:
        return
    view = _View(page, time.monotonic() + interval)
    while (ended_by := _on_screen(view, pages, interval)) == signal.SIGTSTP:
        # The terminal is as it was; here the shell takes over, until SIGCONT.
        os.kill(os.getpid(), signal.SIGSTOP)
    if ended_by not in (None, signal.SIGINT):
        signal.signal(ended_by, signal.SIG_DFL)
        signal.raise_signal(ended_by)


def _on_screen(view: _View, pages: Iterator[Page], interval: float) -> signal.Signals | None:
    """Draw until there are no more pages or a signal or a key ends it; return the signal."""
    with (
        Epoll[str]() as ep,
        _signals() as signals,
        _keys() as keys,
        Live(screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live,
    ):
        ep.register(signals, Event.IN, "signals")
        if keys is not None:
            ep.register(keys, Event.IN, "keys")
        while True:
            if time.monotonic() >= view.due:
                page = next(pages, None)
                if page is None:
                    return None
                view.page, view.due = page, max(view.due + interval, time.monotonic())
            view.draw(live, interval)
            for what, _ in ep.poll(max(view.due - time.monotonic(), 0)):
                if what == "signals":
                    for number in os.read(signals, 4096):
                        if number in _ENDING:
                            return signal.Signals(number)
                elif keys is not None:
                    pressed = _read(keys)
                    if not pressed:
                        ep.unregister(keys)
                    if view.press(pressed):
                        return None


def _read(fd: int) -> bytes:
    """The bytes that are ready; none once the terminal has gone."""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """The fd of a pipe with the numbers of the signals that come. A handler in Python might run too late."""
    pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    wakeup = signal.set_wakeup_fd(pipe[1], warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in (*_ENDING, signal.SIGWINCH)}
    try:
        yield pipe[0]
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)
        signal.set_wakeup_fd(wakeup)
        for fd in pipe:
            os.close(fd)


@contextlib.contextmanager
def _keys() -> Iterator[int | None]:
    """The fd of a terminal that hands out each key as it is pressed; None where stdin is no terminal."""
    if not sys.stdin or not sys.stdin.isatty():
        yield None
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)
