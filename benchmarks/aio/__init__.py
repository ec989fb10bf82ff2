"""Event loops against each other: what each operation of a loop costs, and servers under load.

``measure.py`` is the part ``aio`` of ``python -m benchmarks``. A loop runs in processes of its own, which
import no more than they need: so this file imports nothing.
"""
