"""Push of an exported data set: its rows and its card, in one commit."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi

from hf_align.errors import UserError
from hf_align.files import DATA_FACTS
from hf_align.hub.push import PushedFolder, check_repo_id, create_repo, upload
from hf_align.hub.staging import check_link, link_or_copy, new_stage
from hf_align.model_cards.datasets import DATA_FOLDER, DataFacts, load_data_facts, save_data_card
from hf_align.model_cards.files import CARD

TEXTS = ("LICENSE*", "NOTICE*")


def is_data_folder(folder: str | os.PathLike[str]) -> bool:
    """Whether `hf-align export` wrote a folder."""
    return (Path(folder) / DATA_FACTS).exists()


def push_dataset(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool | None = None,
    license: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a data set with hf-align",
    token: str | None = None,
) -> PushedFolder:
    """Push a data set that `hf-align export` wrote: the files of its splits, its card, LICENSE and NOTICE.

    The card names the repository and the licence, unless README.md was edited: it is then pushed as it stands. Rows of
    an earlier push are removed.

    Args:
        folder: The folder. It is not modified.
        repo_id: "NAME" (in the token's namespace) or "ORG/NAME"; created as a data set if it doesn't exist.
        private: Whether a new repository is private. Default: the Hub's default, which is public.
        license: For the card, such as "cc-by-4.0". Default: the one of the export.
        revision: Branch to push to. Default: main.
        commit_message: Message of the commit.
        token: Default: the one of `hf auth login` or HF_TOKEN.

    Raises:
        UserError: The folder isn't an exported data set, a file of it is missing or a link that leads out of it, an
            edited card would keep another licence, or the Hub or the connection fails: the repository is then
            unchanged, and repeating the call continues.

    Example:
        >>> from hf_align.hub import push_dataset
        >>> push_dataset("preferences", "ORG/preferences", license="cc-by-4.0").url  # doctest: +SKIP
        'https://huggingface.co/datasets/ORG/preferences'
    """
    folder = Path(folder)
    check_repo_id(repo_id)
    loaded = load_data_facts(folder)
    if loaded is None:
        raise UserError(f"{folder} is no data set that hf-align export wrote; name the folder that it wrote.")
    facts, untouched = loaded
    if license is not None and not untouched:
        raise UserError(f"{folder / CARD} was edited and is pushed as it stands; set license in its head instead.")
    files = _files(folder, facts)
    api = HfApi(token=token)
    stage = new_stage(folder)
    try:
        for name in files:
            link_or_copy(folder / name, stage / name)
        repo_id = create_repo(api, repo_id, private, "dataset")
        if untouched:
            (stage / CARD).unlink(missing_ok=True)
            save_data_card(stage, replace(facts, license=license or facts.license), repo_id=repo_id)
            (stage / DATA_FACTS).unlink()
        old = [f"{DATA_FOLDER}/*.parquet"]
        made = upload(
            api, stage, repo_id, commit_message, unchanged=folder, revision=revision, replaced=old, kind="dataset"
        )
        return PushedFolder(repo_id, f"{api.endpoint}/datasets/{repo_id}", made.oid, [])
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _files(folder: Path, facts: DataFacts) -> list[str]:
    """Names of what is pushed: nothing else in the folder is."""
    names = [f"{DATA_FOLDER}/{file}" for file in facts.files.values()]
    names += [path.name for pattern in (CARD, *TEXTS) for path in sorted(folder.glob(pattern))]
    for name in names:
        check_link(folder, folder / name)
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; export the data set again.")
    return names
