"""Whole-process benchmarks of the program beside the commands that do the same: `python -m benchmarks`."""
