"""Runs of CPython's own tests side by side, on our classes and on stock's, and their comparison."""

import json
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.cpython_suite import Job, Report

AT_ONCE = 3
"""How many interpreters run tests: most of the time they sleep."""


@dataclass
class Run:
    """An interpreter that runs CPython's tests, or that waits for its turn."""

    job: Job
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        program = str(Path(__file__).with_name("cpython_suite.py"))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", program, json.dumps(self.job)],
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def ended(self) -> bool:
        return self.process is not None and not self.runs


class Runs:
    """Runs of cpython_suite.py, a few at a time, each in a directory of its own.

    A test that waits for one starts the others: no thread does, so between two tests no file is open.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        """Make them below a folder; one test of CPython's counts as hung after so many seconds."""
        self._folder = folder
        self._seconds = seconds
        self._runs: list[Run] = []

    def start(self, swap: str, modules: Sequence[str], only: Collection[str] | None = None) -> Run:
        """Run the tests of some modules, or some of them by id, with the classes of a swap in place."""
        folder = self._folder / str(len(self._runs))
        folder.mkdir()
        job: Job = {
            "report": str(folder / "report"),
            "swap": swap,
            "modules": list(modules),
            "only": None if only is None else list(only),
            "seconds": self._seconds,
        }
        self._runs.append(Run(job, folder / "log"))
        return self._runs[-1]

    def report(self, run: Run) -> Report:
        """Wait until a run has ended; return its report, fail with its output if it ended badly."""
        while not run.ended:
            waiting = [each for each in self._runs if each.process is None]
            if waiting and sum(each.runs for each in self._runs) < AT_ONCE:
                waiting[0].spawn()
            else:
                time.sleep(0.02)
        status = run.process.returncode if run.process else None
        assert status == 0, f"{run.job} ended with {status}: {run.log.read_text(errors='replace')[-20_000:]}"
        report: Report = json.loads(Path(run.job["report"]).read_text())
        return report

    def alone(self, swap: str, modules: Sequence[str], only: Collection[str]) -> Report:
        """Run some tests when no others run."""
        while any(each.runs for each in self._runs):
            time.sleep(0.02)
        run = self.start(swap, modules, only)
        run.spawn()
        while run.runs:
            time.sleep(0.02)
        return self.report(run)

    def close(self) -> None:
        for run in self._runs:
            if run.process is not None:
                run.process.kill()
                run.process.wait()


@dataclass
class Comparison:
    """The results of ours and of stock for the same modules."""

    ours: Report
    stock: Report
    recovered: list[str]
    """Tests that failed on ours at first, and passed when they ran alone."""

    @property
    def failed_on_ours(self) -> dict[str, str]:
        """Tests that fail on ours and not on stock, with the traceback."""
        return {name: text for name, text in self.ours["failed"].items() if name not in self.stock["failed"]}

    def figures(self) -> dict[str, int]:
        return {
            "ran": len(self.ours["loaded"]) - len(self.ours["skipped"]),
            "stock ran": len(self.stock["loaded"]) - len(self.stock["skipped"]),
            "skipped": len(self.ours["skipped"]),
            "stock skipped": len(self.stock["skipped"]),
            "failed": len(self.ours["failed"]),
            "stock failed": len(self.stock["failed"]),
        }


def compare(runs: Runs, ours: Run, stock: Run | None, cannot_hold: Collection[str]) -> Comparison:
    """Compare a run on ours with one on stock; without one, let stock run the tests that ours skip and fail.

    A test that fails on ours and is not in cannot_hold runs once more, alone, before it counts.
    """
    swap, modules = ours.job["swap"], ours.job["modules"]
    report = runs.report(ours)
    recovered = []
    if again := report["failed"].keys() - cannot_hold:
        passed = runs.alone(swap, modules, again)["passed"]
        recovered = sorted(again.intersection(passed))
        for name in recovered:
            del report["failed"][name]
    if stock is None:
        stock = runs.start("stock", modules, [*report["skipped"], *report["failed"]])
    return Comparison(report, runs.report(stock), recovered)


BASE_EVENTS = "test.test_asyncio.test_base_events"

NATIVE_SENDFILE = (
    "takes asyncio's base class for its want of a native sendfile(); as any loop on Unix, ours has one"
)

OWN_TRANSPORT = "asks for an instance of asyncio's own transport class; ours has its own state"

CANNOT_HOLD = {
    "bases": {
        f"{BASE_EVENTS}.BaseLoopSockSendfileTests.test__sock_sendfile_native_failure": NATIVE_SENDFILE,
        f"{BASE_EVENTS}.BaseLoopSockSendfileTests.test_sock_sendfile_no_fallback": NATIVE_SENDFILE,
        "test.test_asyncio.test_selector_events.BaseSelectorEventLoopTests.test_make_socket_transport": (
            OWN_TRANSPORT
        ),
    },
}
"""The tests of private details that fail on ours, by swap, and the reasons. They must fail."""
