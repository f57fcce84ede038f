"""Names of models: the Hub's, and folders of this machine that nobody else has."""

from __future__ import annotations

import os
import re

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

_SNAPSHOT = re.compile(r"models--([^/\\]+)--([^/\\]+)[/\\]snapshots[/\\]")


def hub_id(name: str | os.PathLike[str] | None) -> str | None:
    """The Hub id that a model's name or path stands for; None for a local folder, or for nothing.

    A folder in the Hub's cache is known by its repository. Whether the Hub has a model of that name isn't asked.
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
