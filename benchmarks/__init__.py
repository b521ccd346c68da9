"""Benchmarks: `python -m benchmarks SUITE`, or `make bench SUITE=name`."""
