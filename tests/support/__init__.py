"""Helpers of the tests and of the programs that they run.

A program that ``run`` starts imports its helpers from here, never from conftest.py: that imports pytest,
which takes five times as long as everything else that such a program imports. The modules that import pytest
themselves are guard, interpreters, no_memory, pages and procfs.
"""
