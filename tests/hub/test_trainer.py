"""`trainer.push_to_hub` and `hub_strategy`: the Hub's content during and after training."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import snapshot_download
from transformers import TrainerCallback

from hf_align.errors import UserError
from hf_align.models.loading import load_policy
from tests.cards import card_data
from tests.hub.conftest import read_files
from tests.hub.models import make_trainer, next_logps
from tests.hub.stand_in import StandIn
from tests.hub.test_push import assert_nothing_leaks

STEPWISE = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3, "push_to_hub": True, "hub_always_push": True}


def test_push_to_hub_saves_and_pushes_with_the_card_s_arguments(
    hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path
):
    trainer = make_trainer("dpo", base, tmp_path / "out", hub_model_id="team/tuned", hub_private_repo=True)
    trainer.train()
    info = trainer.push_to_hub(
        finetuned_from=base_on_hub, dataset="eight pairs", license="mit", tags="tiny", evaluation={"win rate": 0.75}
    )
    repository = hub.repositories["team/tuned"]
    assert info.oid == repository.head and repository.private and repository.messages == ["End of training"]
    data = card_data(repository.files["README.md"])
    assert (data.base_model, data.license) == (base_on_hub, "mit")
    assert "tiny" in data.tags and b"eight pairs" in repository.files["README.md"]
    assert ("win rate", 0.75) in [(row.metric_name, row.metric_value) for row in data.eval_results]
    torch.testing.assert_close(
        next_logps(load_policy("team/tuned")), next_logps(trainer.model.model), atol=1e-4, rtol=0
    )
    assert_nothing_leaks(hub, "team/tuned", tmp_path)
    # The local adapter still names the local base.
    local = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert local["base_model_name_or_path"] == str(base)


def test_demonstrations_train_and_push_as_preferences_do(hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path):
    out, changes = tmp_path / "out", {**STEPWISE, "max_steps": 1, "hub_strategy": "checkpoint"}
    with pytest.raises(UserError, match="trained on a local model"):
        make_trainer("sft", base, out, **changes)
    trainer = make_trainer("sft", base, out, hub_base_model=base_on_hub, **changes)
    trainer.create_model_card(model_name="Films", tags="tiny")
    trainer.train()
    trainer.push_to_hub(dataset_name="team/films")
    repository = hub.repositories["anna/out"]
    names = {name for name in repository.files if "/" not in name}
    assert "adapter_model.safetensors" in names and "base_fingerprint.json" in names
    assert (out / "run.sqlite").exists() and not any(name.endswith((".sqlite", ".bin")) for name in names)
    assert "last-checkpoint/optimizer.pt" in repository.files
    data = card_data(repository.files["README.md"])
    assert (data.base_model, data.datasets) == (base_on_hub, ["team/films"]) and "tiny" in data.tags
    assert trainer._card_options["model_name"] == "Films"
    assert_nothing_leaks(hub, "anna/out", tmp_path)
    (tmp_path / "secret").write_text("anna-secret")
    (out / "LICENSE").symlink_to(tmp_path / "secret")
    head = repository.head
    with pytest.raises(UserError, match="LICENSE is a link to a file outside"):
        trainer.push_to_hub()
    assert repository.head == head


def test_a_push_in_the_background_gives_a_future(hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path):
    trainer = make_trainer("dpo", base, tmp_path / "out", hub_base_model=base_on_hub)
    job = trainer.push_to_hub(blocking=False, commit_message="In the background")
    assert job.result(timeout=60).oid == hub.repositories["anna/out"].head


SLOW = pytest.mark.slow  # the same through the other trainer


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [
        ("end", "dpo"),
        pytest.param("end", "ppo", marks=SLOW),
        ("every_save", "dpo"),
        pytest.param("every_save", "ppo", marks=SLOW),
        pytest.param("checkpoint", "dpo", marks=SLOW),
        ("checkpoint", "ppo"),
        pytest.param("all_checkpoints", "dpo", marks=SLOW),
        ("all_checkpoints", "ppo"),
    ],
)
def test_each_strategy_pushes_what_it_says(
    strategy: str, kind: str, hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path
):
    changes = {**STEPWISE, "hub_strategy": strategy, "hub_base_model": base_on_hub, "save_total_limit": 1}
    trainer = make_trainer(kind, base, tmp_path / "out", **changes)
    trainer.train()
    repository = hub.repositories["anna/out"]
    expected = [] if strategy == "end" else [f"Training in progress, step {step}" for step in (1, 2, 3)]
    assert repository.messages == expected
    folders = {name.split("/")[0] for name in repository.files if "/" in name}
    wanted = {"checkpoint": {"last-checkpoint"}, "all_checkpoints": {"checkpoint-1", "checkpoint-2", "checkpoint-3"}}
    assert folders == wanted.get(strategy, set())
    if strategy != "end":
        loaded = load_policy("anna/out")
        torch.testing.assert_close(next_logps(loaded), next_logps(trainer.model.model), atol=1e-4, rtol=0)
        assert "README.md" in repository.files
    assert_nothing_leaks(hub, "anna/out", tmp_path)
    assert not list(tmp_path.glob(".*")), "a stage was left"


@pytest.mark.parametrize("kind", [pytest.param("dpo", marks=SLOW), "ppo"])
def test_training_goes_on_from_the_checkpoint_on_the_hub(
    kind: str, hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path
):
    settings = {"optim": "adamw_torch", "learning_rate": 0.01, "hub_base_model": base_on_hub}
    whole = make_trainer(kind, base, tmp_path / "whole", **{**settings, "max_steps": 4})
    whole.train()

    class StopAfterTwo(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step == 2

    pushing = {"save_strategy": "steps", "save_steps": 2, "push_to_hub": True, "hub_strategy": "checkpoint"}
    first = make_trainer(kind, base, tmp_path / "out", **{**settings, **pushing, "max_steps": 4})
    first.add_callback(StopAfterTwo())
    first.train()
    folder = snapshot_download("anna/out", allow_patterns="last-checkpoint/*")
    second = make_trainer(kind, base, tmp_path / "again", **{**settings, "max_steps": 4})
    second.train(resume_from_checkpoint=str(Path(folder) / "last-checkpoint"))
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], weight, msg=name)


def test_an_older_checkpoint_leaves_nothing_behind(hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path):
    hub.add("anna/out", {"last-checkpoint/rollout_1.safetensors": b"old", "notes.txt": b"mine"})
    changes = {**STEPWISE, "hub_strategy": "checkpoint", "hub_base_model": base_on_hub, "max_steps": 1}
    make_trainer("dpo", base, tmp_path / "out", **changes).train()
    names = set(hub.repositories["anna/out"].files)
    assert "last-checkpoint/optimizer.pt" in names and "notes.txt" in names
    assert "last-checkpoint/rollout_1.safetensors" not in names


def test_a_failed_push_neither_stops_training_nor_is_kept_quiet(
    hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    changes = {**STEPWISE, "hub_strategy": "every_save", "hub_base_model": base_on_hub}
    trainer = make_trainer("dpo", base, tmp_path / "out", **changes)
    hub.fail(r"POST .*/commit/", status=500, times=2)
    with caplog.at_level("WARNING", logger="hf_align"):
        trainer.train()
    assert trainer.state.global_step == 3
    assert caplog.text.count("Pushing to anna/out failed: the Hub answered 500") == 2
    assert hub.repositories["anna/out"].messages == ["Training in progress, step 3"]


def test_a_checkpoint_that_is_deleted_while_it_is_uploaded_arrives_whole(
    hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path
):
    """The first upload is held back until training is over and its checkpoint deleted."""
    over = threading.Event()
    original = hub.failure_for

    def hold(request: str) -> Any:
        if "/preupload/" in request:
            assert over.wait(60)
        return original(request)

    hub.failure_for = hold  # type: ignore[method-assign]
    changes = {**STEPWISE, "hub_strategy": "checkpoint", "hub_base_model": base_on_hub, "hub_always_push": False}

    class LetGo(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:  # two checkpoints were saved, and one is left
                assert not (tmp_path / "out" / "checkpoint-1").exists()
                over.set()

    trainer = make_trainer("dpo", base, tmp_path / "out", **{**changes, "save_total_limit": 1})
    trainer.add_callback(LetGo())
    trainer.train()
    first = hub.repositories["anna/out"].commits[1]
    assert first[1] == "Training in progress, step 1"
    assert json.loads(first[2]["last-checkpoint/trainer_state.json"])["global_step"] == 1


def test_what_would_fail_at_the_end_is_refused_at_the_beginning(
    hub: StandIn, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(UserError, match="local model"):
        make_trainer("dpo", base, tmp_path / "out", push_to_hub=True)
    with pytest.raises(UserError, match="'team/nowhere' is not on the Hub"):
        make_trainer("dpo", base, tmp_path / "out", push_to_hub=True, hub_base_model="team/nowhere")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="doesn't accept the token"):
        make_trainer("dpo", base, tmp_path / "out", push_to_hub=True, lora=False)
    assert not hub.repositories


def test_a_failed_final_push_leaves_the_model_saved_and_can_be_repeated(
    hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path
):
    trainer = make_trainer("dpo", base, tmp_path / "out", hub_base_model=base_on_hub)
    trainer.train()
    hub.fail(r"PUT /lfs-storage/")
    with pytest.raises(UserError, match="Pushing to anna/out failed: the connection broke"):
        trainer.push_to_hub()
    saved = read_files(tmp_path / "out")
    assert "adapter_model.safetensors" in saved and hub.repositories["anna/out"].messages == []
    hub.failures.clear()
    trainer.push_to_hub()
    assert hub.repositories["anna/out"].files["adapter_model.safetensors"] == saved["adapter_model.safetensors"]
