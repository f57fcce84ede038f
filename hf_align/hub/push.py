"""Push of a saved model: staged first, then uploaded in one commit, so that neither side is ever half done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from hf_align.errors import UserError
from hf_align.files import ADAPTER_CONFIG, VALUE_HEAD
from hf_align.hub.errors import hub_errors
from hf_align.hub.staging import ENSEMBLES, WEIGHTS, base_models, check_links, new_stage, stage_model, staged_files
from hf_align.model_cards import CardFacts, describe_folder, load_facts, save_card
from hf_align.model_cards.files import CARD, FACTS, is_own_text
from hf_align.model_cards.names import hub_id

RepoKind = Literal["model", "dataset"]


@dataclass(frozen=True)
class PushedFolder:
    """A completed push.

    Attributes:
        repo_id: The repository, with its namespace.
        url: Its page.
        commit: The commit's hash.
        left_out: Parts of the model that were not pushed, with the reason.

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
        folder: Folder that `trainer.save_model()`, `RewardModel.merge_and_save` or `RewardEnsemble.save_pretrained`
            wrote. It is not modified.
        repo_id: "NAME" (in the token's namespace) or "ORG/NAME"; created if it doesn't exist.
        base_model: Hub id of an adapter's base model, if it was loaded from a local folder.
        private: Whether a new repository is private. Default: the Hub's default, which is public.
        license: For the card, such as "apache-2.0".
        revision: Branch to push to. Default: main.
        commit_message: Message of the commit.
        token: Default: the one of `hf auth login` or HF_TOKEN.

    Raises:
        UserError: The folder holds no model, an adapter's base model is not on the Hub, or the Hub or the connection
            fails: the repository is then unchanged, and repeating the call continues.
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
    """Refuse an invalid repository name, a missing folder, and links out of it; return the folder's path.

    Raises:
        UserError: Names the problem.
    """
    check_repo_id(repo_id)
    if not Path(folder).is_dir():
        raise UserError(f"{folder} is not a folder; name the one that a model was saved in.")
    check_links(folder)
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
    """Add the card to a staged model and upload both."""
    stage_card(folder, stage, facts, repo_id)
    commit = upload(api, stage, repo_id, commit_message, revision=revision, unchanged=folder).oid
    return PushedFolder(repo_id, f"{api.endpoint}/{repo_id}", commit, list(left_out))


def check_repo_id(repo_id: str) -> None:
    """Refuse an invalid repository name.

    Raises:
        UserError: Gives the reason.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"'{repo_id}' is not a repository name: {str(error).splitlines()[0]}") from None


def create_repo(api: HfApi, repo_id: str, private: bool | None = None, kind: RepoKind = "model") -> str:
    """Create a repository unless it exists; return its id with the namespace.

    Raises:
        UserError: The Hub refuses or can't be reached.
    """
    with hub_errors(f"creating the repository {repo_id}"):
        return api.create_repo(repo_id, private=private, exist_ok=True, repo_type=kind).repo_id


def check_bases(api: HfApi, stage: Path) -> None:
    """Refuse an adapter whose base model isn't on the Hub: nobody could load it.

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
    """Facts for the card of a staged model: those of the folder's card, adjusted for the Hub."""
    facts = load_facts(folder) or describe_folder(folder)
    facts.base_model = base_model or hub_id(base_models(stage).get(stage / ADAPTER_CONFIG)) or facts.base_model
    facts.license = license or facts.license
    if facts.kind == "ensemble":
        staged = describe_folder(stage)
        facts.base_model, facts.members = staged.base_model, staged.members  # named by their Hub ids
    if merged:
        facts.merged, facts.library = True, "transformers"
    facts.value_head = facts.value_head if (stage / VALUE_HEAD).exists() else None
    return facts


def stage_card(folder: Path, stage: Path, facts: CardFacts, repo_id: str, history: Sequence[Any] = ()) -> None:
    """Write the card into a stage, unless the folder's README.md was written or edited by hand: it is then pushed."""
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
    kind: RepoKind = "model",
) -> CommitInfo:
    """Make a repository's content match a stage in one commit.

    Args:
        api: Client with the token.
        stage: Folder with the files.
        repo_id: The repository.
        commit_message: Message of the commit.
        unchanged: The local folder that messages call unchanged.
        revision: Branch; default: main.
        replaced: Patterns of files, besides those of models, to remove from the repository if they aren't staged.
        kind: What the repository holds.

    Raises:
        UserError: The Hub or the connection fails.
    """
    files = staged_files(stage)
    with hub_errors(f"pushing to {repo_id}", unchanged):
        others = set(api.list_repo_files(repo_id, revision=revision, repo_type=kind)) - files.keys()
        ours = [*(WEIGHTS + ENSEMBLES if kind == "model" else ()), *replaced]
        stale = sorted(filter_repo_objects(others, allow_patterns=ours))
        # `upload_folder` would do the same, but with hf_xet it uses several commits if there are many files, if it
        # takes long, or if the first commit fails. An interrupted push would then leave a partial model behind.
        return api.create_commit(
            repo_id,
            [*map(CommitOperationDelete, stale), *(CommitOperationAdd(name, path) for name, path in files.items())],
            commit_message=commit_message,
            revision=revision,
            repo_type=kind,
        )
