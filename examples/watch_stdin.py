"""Watch stdin and read it ten bytes at a time: what level, edge and one-shot mean.

    $ (printf 'the quick brown fox jumps\n'; sleep 1; echo again) | python watch_stdin.py --mode edge

level    the event is reported for as long as there is something to read: one read for each is enough.
edge     the event is reported once for each arrival: read until EAGAIN, or the rest lies there unreported.
         ``--no-drain`` makes that mistake, and says what it costs.
oneshot  the event is reported once, then nothing of any kind until ``rearm``: one read, then arm again.

It ends with the input, on SIGINT and on SIGTERM.
"""

import argparse
import array
import fcntl
import io
import os
import signal
import sys
import termios

import pyepoll
from pyepoll import Event

PIECE = 10
MODES = {"level": Event.IN, "edge": Event.IN | Event.ET, "oneshot": Event.IN | Event.ONESHOT}


def read_piece(stdin: io.FileIO) -> bytes | None:
    """Read and print one piece; b"" at the end of the input, None when there is nothing to read now."""
    piece = stdin.read(PIECE)
    if piece is None:
        print("  EAGAIN", flush=True)
    elif piece:
        print(f"  {piece!r}", flush=True)
    else:
        print("  end of input", flush=True)
    return piece


def drain(stdin: io.FileIO) -> bytes | None:
    """Read until EAGAIN (None) or the end of the input (b"")."""
    while piece := read_piece(stdin):
        pass
    return piece


def unread(stdin: io.FileIO) -> int:
    """Return how many bytes wait in the pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(stdin, termios.FIONREAD, count)
    return count[0]


def read_once(stdin: io.FileIO, events: Event) -> bytes | None:
    """Read one piece on an edge, and tell what becomes of the rest."""
    piece = read_piece(stdin)
    left = unread(stdin)
    if events.hangup:
        print(f"  {left} bytes lost: the end is an edge too, and this was it", flush=True)
        return b""
    if left:
        print(f"  {left} bytes left: no event until more arrive", flush=True)
    return piece


def watch(stdin: io.FileIO, signals: int, mode: str, careless: bool) -> None:
    """Print each event and what is read because of it, until the input ends or a signal comes."""
    with pyepoll.Epoll[io.FileIO | int]() as ep:
        ep.register(signals, Event.IN, data=signals)
        ep.register(stdin, MODES[mode], data=stdin)
        for source, events in ep:
            if isinstance(source, int):
                return
            print(events, flush=True)
            if mode == "edge":
                piece = read_once(stdin, events) if careless else drain(stdin)
            else:
                piece = read_piece(stdin)
            if piece == b"":
                return
            if mode == "oneshot":
                ep.rearm(stdin)


def main() -> None:
    parser = argparse.ArgumentParser(description="Watch stdin, ten bytes at a time.")
    parser.add_argument("--mode", choices=MODES, default="level")
    parser.add_argument("--no-drain", action="store_true", help="with --mode edge: read only once per event")
    args = parser.parse_args()
    if not sys.stdin:
        sys.exit("watch_stdin: stdin is closed")

    # Unbuffered: bytes that sys.stdin had read ahead would be invisible to epoll.
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        # A handler in Python alone might run too late: see signals.py.
        signals, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)  # open until the process ends
        signal.set_wakeup_fd(wakeup)
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, lambda *_: None)  # or the signal would do what it does by default
        # O_NONBLOCK belongs to the open file, which a shell may share: put back what was there.
        blocking = os.get_blocking(0)
        os.set_blocking(0, False)
        try:
            watch(stdin, signals, args.mode, args.no_drain)
        except PermissionError as error:  # a regular file or /dev/null
            sys.exit(f"watch_stdin: {error}")
        finally:
            os.set_blocking(0, blocking)


if __name__ == "__main__":
    main()
