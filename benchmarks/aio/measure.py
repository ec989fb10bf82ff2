"""The part ``aio``: operations of each loop, servers on it, memory of connections, short sleeps."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from ..machine import allow_fds
from ..report import Figure
from . import memory, operations, servers, sleeps
from .loops import installed, leave_out

__all__ = ["measure"]


def measure(rounds: int, only: Sequence[str] = (), loops: Sequence[str] = ()) -> list[Figure]:
    """Measure the rows that have one of the texts ``only`` in their names, with these loops; or all."""

    def wanted(name: str) -> bool:
        return not only or any(text.lower() in name.lower() for text in only)

    factories, figures = installed(loops), list[Figure]()
    for operation in operations.OPERATIONS:
        if wanted(operation.name):
            figures += operations.figures_of(operation, operations.times_of(operation, factories, rounds))
    scenarios = [scenario for scenario in servers.SCENARIOS if wanted(scenario.title)]
    allow_fds(max((scenario.connections for scenario in scenarios), default=0))
    with TemporaryDirectory() as directory:
        pem = servers.certificate(Path(directory)) if scenarios else ""
        for scenario in scenarios:
            if why := servers.missing_for(scenario, pem):
                leave_out(scenario.title, why)
                continue
            figures += servers.figures_of(
                scenario, servers.results_of(scenario, factories, pem, max(5, rounds // 5), servers.BURST_MS)
            )
    for kind in filter(lambda kind: wanted(kind.name), memory.KINDS):
        figures += memory.figures(kind, factories, rounds)
    if wanted(sleeps.NAME):
        figures += sleeps.figures(factories, rounds)
    return figures
