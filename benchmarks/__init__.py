"""How fast it is, measured against a running server: `python -m benchmarks`."""
