"""Watch stdin and read it ten bytes at a time, to show level-triggered, edge-triggered and one-shot mode.

    $ (printf 'the quick brown fox jumps\n'; sleep 1; echo again) | python watch_stdin.py --mode edge

level    The event is reported as long as there is data to read: one read per event is enough.
edge     The event is reported once for each arrival: read until EAGAIN, or the rest is not reported.
         ``--no-drain`` makes that mistake, and shows the result. An input that never ends must not keep the
         loop from its signals: after 100 pieces, ``rearm`` asks for another report.
oneshot  The event is reported once, then no event until ``rearm``: read once, then arm again.

It ends with its input, on SIGINT and on SIGTERM. The input may also be a regular file or /dev/null, which are
always ready: ``python watch_stdin.py <FILE``.
"""

import argparse
import array
import contextlib
import fcntl
import io
import os
import signal
import sys
import termios

import pyepoll
from pyepoll import Event

PIECE = 10
BURST = 100
MODES = {"level": Event.IN, "edge": Event.IN | Event.ET, "oneshot": Event.IN | Event.ONESHOT}


def read_piece(stdin: io.FileIO) -> bytes | None:
    """Read and print one piece; return b"" at the end of the input, None if there is no data now."""
    piece = stdin.read(PIECE)
    if piece is None:
        print("  EAGAIN", flush=True)
    elif piece:
        print(f"  {piece!r}", flush=True)
    else:
        print("  end of input", flush=True)
    return piece


def drain(stdin: io.FileIO) -> bytes | None:
    """Read until EAGAIN (None), the end of the input (b"") or the last piece of a burst."""
    for _ in range(BURST - 1):
        if not (piece := read_piece(stdin)):
            return piece
    return read_piece(stdin)


def unread(stdin: io.FileIO) -> int:
    """Return the number of unread bytes in the pipe, the terminal or the regular file; 0 for other files."""
    count = array.array("i", [0])
    with contextlib.suppress(OSError):
        fcntl.ioctl(stdin, termios.FIONREAD, count)
    return count[0]


def read_once(stdin: io.FileIO, events: Event) -> bytes | None:
    """Read one piece on an edge, and report the rest."""
    piece = read_piece(stdin)
    left = unread(stdin)
    if events.hangup:
        print(f"  {left} bytes lost: the end is an edge too, and this was it", flush=True)
        return b""
    if left:
        print(f"  {left} bytes left: no event until more arrive", flush=True)
    return piece


def watch(stdin: io.FileIO, signals: pyepoll.Signals, mode: str, careless: bool) -> None:
    """Print each event and the data read for it, until the input ends or a signal arrives."""
    with pyepoll.Epoll[io.FileIO | pyepoll.Signals](always_ready=True) as ep:
        ep.register(signals, Event.IN, data=signals)
        ep.register(stdin, MODES[mode], data=stdin)
        for source, events in ep:
            if isinstance(source, pyepoll.Signals):
                source.read()  # or close() would send them again
                return
            print(events, flush=True)
            if mode == "edge":
                piece = read_once(stdin, events) if careless else drain(stdin)
            else:
                piece = read_piece(stdin)
            if piece == b"":
                return
            if mode == "oneshot" or (mode == "edge" and piece and not careless):
                ep.rearm(stdin)


def main() -> None:
    parser = argparse.ArgumentParser(description="Watch stdin, ten bytes at a time.")
    parser.add_argument("--mode", choices=MODES, default="level")
    parser.add_argument("--no-drain", action="store_true", help="with --mode edge: read only once per event")
    args = parser.parse_args()
    if not sys.stdin:
        sys.exit("watch_stdin: stdin is closed")

    # Unbuffered: sys.stdin reads ahead, and epoll cannot see its buffer.
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        # O_NONBLOCK belongs to the open file description, which a shell may share: restore it.
        blocking = os.get_blocking(0)
        os.set_blocking(0, False)
        try:
            with pyepoll.Signals(signal.SIGINT, signal.SIGTERM) as signals:
                watch(stdin, signals, args.mode, args.no_drain)
        finally:
            os.set_blocking(0, blocking)


if __name__ == "__main__":
    main()
