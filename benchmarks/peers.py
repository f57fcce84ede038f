"""Peers are installed beside everything else, each version into a folder of its own, without dependencies."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from hf_align.errors import UserError


def install_peer(package: str, version: str, folder: Path) -> Path:
    """Install `package==version` below `folder`, unless it is there; the path to put first on PYTHONPATH.

    Raises:
        UserError: If pip can't get it.
    """
    target = folder / f"{package}-{version}"
    if target.exists():
        return target
    unfinished = folder / f".{target.name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--target", str(unfinished), f"{package}=={version}"], capture_output=True, text=True
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise UserError(f"--peer: {package} {version} can't be installed: {reason}")
    unfinished.rename(target)
    return target
