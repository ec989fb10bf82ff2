"""``python -m pyepoll``: check the machine, and inspect processes that use epoll."""

import argparse
import io
import json
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__, _extra, doctor

_DESCRIPTION = "Check this machine (doctor), and inspect processes that use epoll (ps)."

_DOCTOR = """\
Check whether pyepoll works on this machine with this Python, and suggest a fix for each problem. A missing
option is a note. Exit status: 0 when pyepoll works here, with notes or without; 1 when it cannot.

To check a program of yours with its own patches and limits, call it there:
    from pyepoll import doctor
    print(doctor.check().format())
"""

_PS = """\
Show the interest lists of a process, written in any language; without PID, list the processes that have
epolls open, with the number of fds that each watches. It reads /proc and does not touch the process.

  EPOLL   the epoll's fd; a process can have several
  FD      the fd that was registered
  EVENTS  the event mask, without ERR and HUP, which the kernel adds to each; a disarmed one-shot has fired
          and has not been armed again
  DATA    the epoll data, which the kernel returns with each event
  WHAT    the file: for a socket, its own address, its peer's and its state

A STALE entry is one whose fd was closed while a duplicate (of dup or fork) keeps the file open. The kernel
goes on reporting its events, it cannot be unregistered by its fd, and a loop that does not expect such events
uses 100 % CPU. The fds that keep the file open are listed: close those.

You can inspect your own processes, and as root all. Exit status: 0; 1 when there is no such process, when you
may not inspect it, or when it has no epoll; 2 for wrong arguments.
"""

_EXAMPLES = """\
examples:
  python -m pyepoll ps                     all processes with epolls
  python -m pyepoll ps 1234                one process
  python -m pyepoll ps 1234 --watch        the same redrawn each second, with rates; q quits
  python -m pyepoll ps 1234 --json | jq '.epolls[].watched[] | select(.stale)'
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; SystemExit for wrong arguments, as argparse has it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files and processes need not fit the terminal's encoding.
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 2
    if options.command == "ps" and not options.watch and (options.interval or options.count):
        parser.error("ps: --interval and --count are for --watch")
    try:
        return _doctor(options) if options.command == "doctor" else _ps(options)
    except OSError as error:
        return _complain(error.strerror or str(error))


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m pyepoll", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"pyepoll {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    doctor = commands.add_parser(
        "doctor", help="check this machine for pyepoll", description=_DOCTOR, formatter_class=raw
    )
    doctor.add_argument("--json", action="store_true", help="for programs: one object on stdout")
    ps = commands.add_parser(
        "ps",
        help="show the interest lists of a live process",
        description=_PS,
        epilog=_EXAMPLES,
        formatter_class=raw,
    )
    ps.add_argument("pid", metavar="PID", type=_pid, nargs="?", help="a process; without it, all with epolls")
    ps.add_argument("--watch", action="store_true", help="look again and again, with rates; q or ^C ends it")
    ps.add_argument(
        "--interval", type=_seconds, metavar="SECONDS", help="with --watch, between two looks (default: 1)"
    )
    ps.add_argument("--count", type=_count, metavar="N", help="with --watch, end after N looks")
    ps.add_argument(
        "--json", action="store_true", help="for programs: one object on stdout, with --watch one a line"
    )
    return parser


def _pid(text: str) -> int:
    return _number(text, "PID", range(1, 2**31))


def _count(text: str) -> int:
    return _number(text, "count", range(1, 2**31))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.05 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"invalid time: {text!r}: must be 0.05 to 86400 seconds")
    return seconds


def _number(text: str, what: str, numbers: range) -> int:
    if not text.isdecimal() or int(text) not in numbers:
        raise argparse.ArgumentTypeError(f"invalid {what}: {text!r}: must be {numbers[0]} to {numbers[-1]}")
    return int(text)


def _doctor(options: argparse.Namespace) -> int:
    report = doctor.check()
    if options.json:
        document = {"ok": report.ok(), "findings": [finding._asdict() for finding in report.findings]}
        print(json.dumps(document, indent=2))
    else:
        print(report.format(doctor.terminal_width()))
    return 0 if report.ok() else 1


def _ps(options: argparse.Namespace) -> int:
    if missing := _extra.missing():
        return _complain(f"ps needs {' and '.join(missing)}: {_extra.HOW}")
    from . import ps, screen

    pages = ps.everything() if options.pid is None else ps.one(options.pid)
    if options.watch:
        screen.watch(pages, interval=options.interval or 1.0, count=options.count, as_json=options.json)
    else:
        screen.show(pages, as_json=options.json)
    return 0


def _complain(what: str) -> int:
    print(f"python -m pyepoll: {what}", file=sys.stderr)
    return 1


def run() -> NoReturn:
    """Run the command that ``sys.argv`` has and exit; as in other commands, ``| head`` ends it silently."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
