"""pyepoll's claims about speed and memory, and the command that shows them: ``python -m benchmarks``.

Every claim is a ratio of two things measured in the same run, turn by turn, on the same files. A
figure comes with its quartiles over the rounds, and with its bar.
"""
