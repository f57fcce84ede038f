"""The output folder of a quickstart: ownership, finished stages, no half-written results.

`quickstart.json` marks the folder and holds the run's settings. A stage writes into its own folder and adds
`stage.json` last, so the file's presence means that the stage is complete.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_align.errors import UserError
from hf_align.files import write_json

MARKER = "quickstart.json"
STAGE_RESULT = "stage.json"


class Workspace:
    """A quickstart's output folder.

    Args:
        root: The folder; it need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
        """Claim the folder for a run with these settings.

        Args:
            settings: Everything that changes the run's results; JSON-serialisable.
            resume: Continue a run with the same settings in this folder.
            overwrite: Delete an earlier quickstart's folder first.

        Raises:
            UserError: The folder isn't empty (and neither flag applies), is not a quickstart's folder, or has other
                settings.
        """
        stored = self._stored_settings()
        if stored is None:
            if self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
                raise UserError(
                    f"--out: {self.root} exists and is not a quickstart folder, so it is left alone; choose another one"
                )
            if resume:
                raise UserError(f"--resume: there is no run in {self.root} to continue; leave --resume out")
        elif overwrite:
            shutil.rmtree(self.root)
        elif not resume:
            raise UserError(
                f"--out: {self.root} holds an earlier run; use --resume to continue it or --overwrite to replace it"
            )
        else:
            _require_equal(stored, json.loads(json.dumps(settings)))
            return
        try:
            write_json(self.root / MARKER, settings)
        except OSError as error:
            raise UserError(f"--out: can't write to {self.root}: {error.strerror}") from None

    def result(self, stage: str) -> dict[str, Any] | None:
        """A stage's record, or None if it has not finished."""
        path = self.root / stage / STAGE_RESULT
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def finish(self, stage: str, result: Mapping[str, Any]) -> None:
        """Record a stage's result, which marks the stage as done."""
        write_json(self.root / stage / STAGE_RESULT, result)

    def _stored_settings(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.root / MARKER).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            raise UserError(f"--out: {self.root / MARKER} is damaged; choose another folder") from None


def _require_equal(stored: Any, given: Any, name: str = "") -> None:
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in dict.fromkeys([*stored, *given]):
            _require_equal(stored.get(key), given.get(key), f"{name}.{key}" if name else key)
    elif stored != given:
        raise UserError(
            f"--resume: this run was started with {name} = {json.dumps(stored)}, not {json.dumps(given)}; "
            "give the same settings, or start again with --overwrite"
        )
