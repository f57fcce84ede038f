"""The page in a process of its own that can be killed and started again on the same port, with a clock that moves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from hf_align.feedback import PreferenceStore

START_SECONDS = 120
LOG = "server.log"


class MovableClock:
    """Seconds since 1970 plus an offset that a file holds, so that several processes see one clock."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self) -> float:
        """Seconds since 1970, moved."""
        return time.time() + (float(self.file.read_text() or 0) if self.file.exists() else 0.0)

    def move(self, seconds: float) -> None:
        """Let time pass."""
        other = self.file.with_suffix(".new")
        other.write_text(str(self() - time.time() + seconds))
        other.replace(self.file)


class PageServer:
    """The page of a store, in a process.

    Args:
        folder: Gets the store's file, the clock's and the log.

    Attributes:
        url: Address of the page.
        starts: How often it was started.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.clock = MovableClock(folder / "clock")
        self.store = PreferenceStore(f"sqlite:///{folder / 'prefs.db'}", clock=self.clock)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.starts = 0
        self._log = folder / LOG
        self._log.touch()
        self._forker: subprocess.Popen[str] | None = None
        self._server: int | None = None

    def __enter__(self) -> PageServer:
        options = {"store": self.store.url, "clock": self.clock.file, "port": self.port, "log": self._log}
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        command = [sys.executable, "-m", f"{__package__}.serve", *arguments]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._forker = subprocess.Popen(command, cwd=Path(__file__).parents[3], **pipes)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert self._forker is not None
        self._forker.communicate()
        self.store.close()

    @property
    def log(self) -> str:
        """All that the servers printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start a server and wait until it answers."""
        assert self._forker is not None and self._forker.stdin is not None and self._forker.stdout is not None
        self._forker.stdin.write("start\n")
        self._forker.stdin.flush()
        self._server = int(self._forker.stdout.readline())
        self.starts += 1
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=5).close()  # nosec B310 # an address of ours
                return
            except OSError as error:
                if not _alive(self._server) or time.monotonic() > end:
                    raise RuntimeError(f"the page doesn't start: {self.log[-2000:]}") from error
                time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: no handler runs and nothing is closed."""
        if self._server is not None:
            os.kill(self._server, signal.SIGKILL)
            while _alive(self._server):
                time.sleep(0.002)
            self._server = None


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
