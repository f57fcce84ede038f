"""Pushing a saved model: staged first, then uploaded in one go, so that neither side is ever half done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from hf_align.errors import UserError
from hf_align.files import ADAPTER_CONFIG, VALUE_HEAD
from hf_align.hub.errors import hub_errors
from hf_align.hub.staging import WEIGHTS, base_models, new_stage, stage_model
from hf_align.model_cards import CardFacts, describe_folder, load_facts, save_card
from hf_align.model_cards.files import CARD, FACTS, is_own_text
from hf_align.model_cards.names import hub_id


@dataclass(frozen=True)
class PushedFolder:
    """A push that went through.

    Attributes:
        repo_id: The repository, with its namespace.
        url: Where to look at it.
        commit: The commit's hash.
        left_out: What of the model was not pushed, and why.

    Example:
        >>> from hf_align.hub import push_model
        >>> pushed = push_model("my-policy", "ORG/my-policy")  # doctest: +SKIP
        >>> pushed.url  # doctest: +SKIP
        'https://huggingface.co/ORG/my-policy'
    """

    repo_id: str
    url: str
    commit: str
    left_out: list[str]


def push_model(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    base_model: str | None = None,
    private: bool | None = None,
    license: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a model with hf-align",
    token: str | None = None,
) -> PushedFolder:
    """Push a saved model or adapter, with its tokenizer, heads and card.

    Args:
        folder: What `trainer.save_model()` or `RewardModel.merge_and_save` wrote. It is only read.
        repo_id: "NAME" (in the token's own namespace) or "ORG/NAME"; made if it doesn't exist.
        base_model: Hub id of an adapter's base model, if it was loaded from a local folder.
        private: Whether a new repository is private. Default: what the Hub does, which is public.
        license: For the card, such as "apache-2.0".
        revision: Branch to push to. Default: main.
        commit_message: The commit's.
        token: Default: the one of `hf auth login` or HF_TOKEN.

    Raises:
        UserError: If the folder holds no model, an adapter's base model is not on the Hub, or the Hub or the connection
            refuse: then the repository is as it was, and the same call made again goes on.
    """
    folder = check_push(folder, repo_id)
    api = HfApi(token=token)
    stage = new_stage(folder)
    try:
        stage_model(folder, stage, base_model)
        check_bases(api, stage)
        repo_id = create_repo(api, repo_id, private)
        facts = facts_for(folder, stage, base_model, license=license)
        return push_stage(api, folder, stage, repo_id, facts, commit_message, revision)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def check_push(folder: str | os.PathLike[str], repo_id: str) -> Path:
    """Refuse a name that no repository can have, and what is no folder; the folder's path.

    Raises:
        UserError: Says which.
    """
    check_repo_id(repo_id)
    if not Path(folder).is_dir():
        raise UserError(f"{folder} is no folder; name the one that a model was saved in.")
    return Path(folder)


def push_stage(
    api: HfApi,
    folder: Path,
    stage: Path,
    repo_id: str,
    facts: CardFacts,
    commit_message: str,
    revision: str | None = None,
    left_out: Sequence[str] = (),
) -> PushedFolder:
    """Add the card to the stage of a folder's model and upload both."""
    stage_card(folder, stage, facts, repo_id)
    commit = upload(api, stage, repo_id, commit_message, revision=revision, unchanged=folder).oid
    return PushedFolder(repo_id, f"{api.endpoint}/{repo_id}", commit, list(left_out))


def check_repo_id(repo_id: str) -> None:
    """Refuse what can't be a repository's name.

    Raises:
        UserError: Says why.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"'{repo_id}' is no repository name: {str(error).splitlines()[0]}") from None


def create_repo(api: HfApi, repo_id: str, private: bool | None = None) -> str:
    """Make a repository unless it exists; its id with the namespace.

    Raises:
        UserError: If the Hub doesn't let us, or can't be reached.
    """
    with hub_errors(f"making the repository {repo_id}"):
        return api.create_repo(repo_id, private=private, exist_ok=True).repo_id


def check_bases(api: HfApi, stage: Path) -> None:
    """Refuse an adapter whose base model the Hub doesn't have: nobody could load it.

    Raises:
        UserError: Names the base model.
    """
    for name in sorted(set(base_models(stage).values())):
        with hub_errors(f"looking up the base model {name}"):
            try:
                api.model_info(name)
            except RepositoryNotFoundError:
                raise UserError(
                    f"The adapter's base model '{name}' is not on the Hub, or the token may not see it: give its Hub "
                    "id with base_model (--base-model ORG/NAME), or push merged weights (--merge)."
                ) from None


def facts_for(
    folder: Path, stage: Path, base_model: str | None, *, merged: bool = False, license: str | None = None
) -> CardFacts:
    """Facts for the card of a staged model: those of the folder's own card, but for what is different on the Hub."""
    facts = load_facts(folder) or describe_folder(folder)
    facts.base_model = base_model or hub_id(base_models(stage).get(stage / ADAPTER_CONFIG)) or facts.base_model
    facts.license = license or facts.license
    if merged:
        facts.merged, facts.library = True, "transformers"
    facts.value_head = facts.value_head if (stage / VALUE_HEAD).exists() else None
    return facts


def stage_card(folder: Path, stage: Path, facts: CardFacts, repo_id: str, history: Sequence[Any] = ()) -> None:
    """Write the card into a stage, unless the folder's README.md is somebody's own text: that one is pushed."""
    if not is_own_text(folder):
        (stage / CARD).unlink(missing_ok=True)
    save_card(stage, facts, history, repo_id=repo_id)
    (stage / FACTS).unlink(missing_ok=True)


def upload(
    api: HfApi,
    stage: Path,
    repo_id: str,
    commit_message: str,
    *,
    unchanged: str | os.PathLike[str],
    revision: str | None = None,
    replaced: Sequence[str] = (),
) -> CommitInfo:
    """Make a repository hold what a stage holds, in one commit.

    Args:
        api: With the token.
        stage: The files.
        repo_id: Where to.
        commit_message: The commit's.
        unchanged: The local folder that a message says is whole.
        revision: Branch; default: main.
        replaced: Patterns of files, besides those of models, that are removed there if the stage doesn't have them.

    Raises:
        UserError: If the Hub or the connection refuse.
    """
    files = {path.relative_to(stage).as_posix(): path for path in sorted(stage.rglob("*")) if path.is_file()}
    with hub_errors(f"pushing to {repo_id}", unchanged):
        others = set(api.list_repo_files(repo_id, revision=revision)) - files.keys()
        stale = sorted(filter_repo_objects(others, allow_patterns=[*WEIGHTS, *replaced]))
        # `upload_folder` would do the same, but where hf_xet is installed in several commits: when files are many, when
        # it takes long, or when the first commit fails. A push that broke would then have left a part of itself.
        return api.create_commit(
            repo_id,
            [*map(CommitOperationDelete, stale), *(CommitOperationAdd(name, path) for name, path in files.items())],
            commit_message=commit_message,
            revision=revision,
        )
