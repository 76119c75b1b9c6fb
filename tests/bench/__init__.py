"""Benchmarks: ``python -m tests.bench [--quick] [--json] [NAME...]``; what they measure is told in docs/speed.md."""
