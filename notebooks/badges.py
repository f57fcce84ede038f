"""Point the notebooks' Colab badges at the repository in pyproject.toml, optionally setting it first.

    python notebooks/badges.py              badges for the repository in pyproject.toml
    python notebooks/badges.py OWNER/NAME   set that repository in pyproject.toml first

While no repository is set, a badge opens Colab's start page, where the notebook can be uploaded, instead of a dead
link.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLAB, GITHUB = "https://colab.research.google.com/", "https://github.com/"
LINK = re.compile(rf"(?<=badge\.svg\)\]\(){re.escape(COLAB)}[^)]*(?=\))")
SECTION = "[project.urls]\n"


def repository(pyproject: str) -> str | None:
    """OWNER/NAME of the repository in pyproject.toml's text, or None."""
    address = tomllib.loads(pyproject)["project"].get("urls", {}).get("Repository", "")
    return address.removeprefix(GITHUB) or None


def with_repository(pyproject: str, name: str) -> str:
    """pyproject.toml's text with the repository set.

    Raises:
        SystemExit: `name` isn't OWNER/NAME.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise SystemExit(f"{name!r} is not a repository: give OWNER/NAME")
    line = f'Repository = "{GITHUB}{name}"\n'
    if repository(pyproject) is not None:
        return re.sub(r"^Repository = .*\n", line, pyproject, flags=re.MULTILINE)
    if SECTION in pyproject:
        return pyproject.replace(SECTION, SECTION + line)
    return pyproject.replace("[project.optional-dependencies]\n", f"{SECTION}{line}\n[project.optional-dependencies]\n")


def link(notebook: str, name: str | None) -> str:
    """Where the badge of a notebook's file leads."""
    return COLAB if name is None else f"{COLAB}github/{name}/blob/main/notebooks/{notebook}"


def main(arguments: list[str], root: Path = ROOT) -> None:
    """Rewrites the badges below `root`, and its pyproject.toml if a repository is given."""
    pyproject = root / "pyproject.toml"
    text = pyproject.read_text(encoding="utf-8")
    if arguments:
        text = with_repository(text, arguments[0])
        pyproject.write_text(text, encoding="utf-8")
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        content = path.read_text(encoding="utf-8")
        path.write_text(LINK.sub(link(path.name, repository(text)), content), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
