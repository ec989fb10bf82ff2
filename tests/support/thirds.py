"""Long lists of similar cases: a release of CPython runs a third of them, three successive ones run all."""

import sys
import zlib
from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet


def thirds(cases: Iterable[tuple[object, ...]]) -> list[ParameterSet]:
    """Return the cases for ``parametrize``; two thirds of them, spread evenly, run with --long only."""

    def marks(case: tuple[object, ...]) -> tuple[pytest.MarkDecorator, ...]:
        is_ours = (zlib.crc32(repr(case).encode()) + sys.version_info.minor) % 3 == 0
        return () if is_ours else (pytest.mark.long,)

    return [pytest.param(*case, marks=marks(case)) for case in cases]
