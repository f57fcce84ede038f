"""Serves the page of a store whose clock another process moves, in a child for each line that is read.

Everything is imported once and each child is a fork, so that a server that was killed is there again within a second.
Prints the children's process ids.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from benchmarks.feedback.browser.server import MovableClock
from hf_align.feedback import PreferenceStore
from hf_align.feedback.page.serve import annotate


def serve(store: str, clock: str, port: int) -> None:
    """Serve until the process is killed."""
    annotate(PreferenceStore(store, clock=MovableClock(Path(clock))), port=port, annotator="nobody").wait()


def main() -> None:
    """Fork a server for each line of the input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True)
    parser.add_argument("--clock", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            log = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(log, stream)
            serve(options.store, options.clock, options.port)
        print(child, flush=True)


if __name__ == "__main__":
    main()
