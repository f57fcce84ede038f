"""Speed and memory compared with peers: `python -m benchmarks --help`."""
