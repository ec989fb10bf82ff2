"""The command line: ``python -m pyepoll``."""
