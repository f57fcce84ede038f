"""Installation of peers, each version into a separate folder, without dependencies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hf_align.errors import UserError
from hf_align.files import whole_folder


def install_peer(package: str, version: str, folder: Path) -> Path:
    """Install `package==version` below `folder`, unless present; return the path to put first on PYTHONPATH.

    Raises:
        UserError: pip can't install it.
    """
    target = folder / f"{package}-{version}"
    if target.exists():
        return target
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    with whole_folder(target) as unfinished:
        done = subprocess.run(
            [*command, "--target", str(unfinished), f"{package}=={version}"], capture_output=True, text=True
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise UserError(f"--peer: {package} {version} can't be installed: {reason}")
    return target
