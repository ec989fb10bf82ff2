"""What pyepoll claims about speed and memory, and the command that shows it: ``python -m benchmarks``.

Every claim is a ratio of two things measured in the same run, turn by turn, on the same files. A
figure comes with its quartiles over the rounds, and with its bar.
"""

import sys
from pathlib import Path

# `python -m` puts the checkout first, whose pyepoll has no extension in it unless it was built in
# place. What is measured is the installed package, so the checkout goes last.
_CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.sort(key=lambda entry: Path(entry).resolve() == _CHECKOUT)
