"""Names of models: Hub ids, as opposed to local folders."""

from __future__ import annotations

import os
import re

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

_SNAPSHOT = re.compile(r"models--([^/\\]+)--([^/\\]+)[/\\]snapshots[/\\]")


def hub_id(name: str | os.PathLike[str] | None) -> str | None:
    """The Hub id of a model's name or path; None for a local folder, or for None.

    A folder in the Hub's cache gives its repository. Whether the Hub has a model of that name isn't checked.
    """
    name = str(name or "")
    if cached := _SNAPSHOT.search(name):
        return f"{cached[1]}/{cached[2]}"
    if not name or os.path.exists(name):
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name
