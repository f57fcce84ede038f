"""Ensembles: members on one base, each with its own seed and bag; what is finished isn't trained again."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

from hf_align import RewardConfig, RewardEnsemble, load_reward_model, train_ensemble
from hf_align.data.embedded.rows import make_pairs
from hf_align.errors import UserError
from hf_align.models.aggregation import METHODS
from hf_align.trainers.ensemble import halves
from hf_align.trainers.ensemble_config import EnsembleConfig
from hf_align.trainers.members import leaves_base
from tests.trainers.pairs import options, pairs
from tests.trainers.test_kept import spoil_card

LORA = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"])


def settings(out: Path, **changes: Any) -> RewardConfig:
    return RewardConfig(**options(out, **{"max_steps": 2, "save_strategy": "steps", "save_steps": 1, **changes}))


def ensemble(base: str, out: Path, rows: Any = None, *, n: int = 2, config: Any = None, **given: Any) -> RewardEnsemble:
    rows = pairs() if rows is None else rows
    given = {"eval_dataset": pairs(4), "peft_config": LORA, **given}
    return train_ensemble(base, config or settings(out), rows, n=n, **given)


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(first: Path, second: Path) -> bool:
    ours, theirs = weights_in(first), weights_in(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@contextmanager
def watched(callback: TrainerCallback, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A callback that every trainer has."""
    with monkeypatch.context() as patch:
        patch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [*DEFAULT_CALLBACKS, callback])
        yield


class Memory(TrainerCallback):
    """Whether each member starts on its predecessor's embeddings, and the numbers in memory then."""

    def __init__(self) -> None:
        self.shared: list[bool] = []
        self.numbers: list[int] = []
        self.last: Any = lambda: None

    def on_train_begin(self, *args: Any, model: Any, **kwargs: Any) -> None:
        gc.collect()
        embeddings = model.get_input_embeddings().weight
        self.shared.append(self.last() is embeddings)
        self.last = weakref.ref(embeddings)
        held = [each for each in gc.get_objects() if isinstance(each, torch.nn.Parameter)]
        self.numbers.append(sum(each.numel() for each in held))


class Stop(TrainerCallback):
    """Ctrl-C in a step of the second training."""

    def __init__(self, step: int) -> None:
        self.step, self.begun = step, 0
        self.steps: list[int] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.begun += 1

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(state.global_step)
        if self.begun == 2 and state.global_step == self.step:
            raise KeyboardInterrupt


VARIED: dict[str, Any] = {"vary": {"lora.r": [4, 2], "learning_rate": [0.1]}, "eval_dataset": pairs()}
"""Arguments of the ensemble that tests share."""


class Trained(NamedTuple):
    """A finished ensemble of two members, and what was in memory as they were trained."""

    folder: Path
    ensemble: RewardEnsemble
    memory: Memory


@pytest.fixture(scope="module")
def trained(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    memory, out = Memory(), tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch, watched(memory, patch):
        return Trained(out, ensemble(tiny_model_dir, out, **VARIED), memory)


def test_members_differ_score_as_in_the_ensemble_and_share_a_base_in_memory(trained: Trained):
    memory, out = trained.memory, trained.folder
    assert memory.shared == [False, True], "members train on the same base"
    assert memory.numbers[1] - memory.numbers[0] < 2_000, "less than an adapter more"
    records = [json.loads((out / "training" / f"member-{i}" / "member.json").read_text()) for i in range(2)]
    assert [each["settings"]["lora.r"] for each in records] == [4, 2]
    assert [each["settings"]["learning_rate"] for each in records] == [0.1, 0.1]
    assert [each["settings"]["seed"] for each in records] == [0, 1]
    prompts, responses = ["Write a tweet.", "Review a film."], [" So happy!", " Never again."]
    scores = trained.ensemble.member_scores(prompts, responses)
    assert (scores[0] - scores[1]).abs().max() > 1e-3
    for number in range(2):
        member = load_reward_model(out / f"member-{number}")
        assert member.score(prompts, responses) == pytest.approx(scores[number].tolist(), abs=1e-5)
        assert member.normalization is not None and member.normalization.name == "eval_dataset"
    results = json.loads((out / "ensemble_results.json").read_text())
    # The same pairs, measured by the trainer before the members were normalised and put together.
    accuracies = [each["accuracy"] for each in results["members"]]
    assert accuracies == [pytest.approx(each["results"]["metrics"]["accuracy"]) for each in records]
    assert results["pairs"] == 8 and 0 <= results["accuracy"] <= 1
    assert results["error_correlation"]["errors"] == pytest.approx([1 - accuracy for accuracy in accuracies])
    assert (out / "training" / "member-1" / "trainer_state.json").exists(), "kept beside what is saved"
    assert "| accuracy" in (out / "README.md").read_text() and not list(out.glob("member-*/README.md"))


def test_what_is_finished_is_kept_and_an_interrupted_member_goes_on_bitwise(
    tiny_model_dir: str,
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    with watched(Stop(1), monkeypatch), pytest.raises(KeyboardInterrupt), caplog.at_level("WARNING"):
        ensemble(tiny_model_dir, tmp_path, **VARIED)
    assert "member-1 was interrupted; the same call goes on with it where it stood." in caplog.text
    assert not (tmp_path / "member-1").exists() and not (tmp_path / "ensemble.json").exists()
    begun = Stop(-1)
    with watched(begun, monkeypatch):
        grown = ensemble(tiny_model_dir, tmp_path, n=3, **VARIED)
    assert begun.begun == 2 and len(grown.members) == 3, "member-0 isn't trained again"
    assert begun.steps == [1, 0, 1], "member-1 goes on after its first step"
    assert all(same(trained.folder / f"member-{number}", tmp_path / f"member-{number}") for number in (0, 1))
    with pytest.raises(UserError, match="has more than 2 members; raise n"):
        ensemble(tiny_model_dir, tmp_path, **VARIED)


def test_other_settings_and_rows_are_refused_and_named(tiny_model_dir: str, trained: Trained):
    out = trained.folder
    for given, message in [
        ({"config": settings(out, max_steps=3)}, "member-0 in .* was trained with max_steps 2, and now it is 3"),
        ({"rows": pairs(6)}, "was trained with another train_dataset"),
        ({"eval_dataset": None}, "was trained with another eval_dataset"),
        ({"bootstrap": 0.5}, "was trained with bootstrap 0.8, and now it is 0.5"),
        ({"vary": {"lora.r": [4, 8]}}, "member-1 in .* was trained with lora.r 2, and now it is 8"),
    ]:
        with pytest.raises(UserError, match=message):
            ensemble(tiny_model_dir, out, **{**VARIED, **given})


def test_finished_members_are_put_together_by_another_method_fitted_on_half_of_the_held_out_prompts(
    tiny_model_dir: str, trained: Trained
):
    out = trained.folder
    config = settings(out, logging_steps=5, save_steps=7)  # without effect on what is learnt
    before = weights_in(out / "member-1")
    stacked = ensemble(tiny_model_dir, out, config=config, method="stacking", **VARIED)
    after = weights_in(out / "member-1")
    assert all(torch.equal(before[name], after[name]) for name in before)
    results = json.loads((out / "ensemble_results.json").read_text())
    assert results["rows"] == 4 and json.loads((out / "ensemble.json").read_text())["fitted"] is True
    texts = ["A tweet."], ["Fine."]
    assert RewardEnsemble.from_pretrained(out).score(*texts) == pytest.approx(stacked.score(*texts), abs=1e-5)
    assert set(get_args(get_type_hints(EnsembleConfig)["method"])) == set(METHODS)


def test_a_card_that_cant_be_written_doesnt_keep_an_ensemble_from_being_saved(
    tiny_model_dir: str, trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    out = tmp_path / "out"
    shutil.copytree(trained.folder, out)
    spoil_card(out)
    ensemble(tiny_model_dir, out, method="median", **VARIED)
    assert RewardEnsemble.from_pretrained(out).method == "median"
    assert f"The model in {out} is saved, but its card can't be written: IsADirectoryError" in caplog.text
    assert json.loads((out / "ensemble_results.json").read_text())["method"] == "median"


@pytest.mark.parametrize("prompts", [2, 40])
def test_no_prompt_is_fitted_on_and_measured_however_few_there_are(prompts: int):
    rows = [{"prompt": f"{number // 2}", "x": number} for number in range(2 * prompts)]
    first, second = halves(Dataset.from_list(rows))
    assert not set(first["prompt"]) & set(second["prompt"]) and len(first) == len(second) == prompts


def test_without_held_out_rows_each_member_is_evaluated_on_those_left_out_of_its_bag(
    tiny_model_dir: str, tmp_path: Path
):
    out = tmp_path / "out"
    config = settings(
        out, eval_strategy="steps", eval_steps=1, max_steps=3, metric_for_best_model="accuracy", learning_rate=0.0
    )
    ensemble(tiny_model_dir, out, config=config, eval_dataset=None, early_stopping_patience=1)
    results = json.loads((out / "ensemble_results.json").read_text())
    for each in results["members"]:
        assert each["evaluated_on"] == "left out" and each["rows"] + each["left_out"] >= 8 > each["different_rows"]
        assert 0 <= each["metrics"]["accuracy"] <= 1
        assert each["steps"] == 2, "the second evaluation is no better than the first"
    assert "ensemble" not in results, "no row is held out of all members"
    with pytest.raises(UserError, match="there is no eval_dataset"):
        ensemble(tiny_model_dir, tmp_path / "all", config=config, eval_dataset=None, bootstrap=None)


@pytest.mark.slow
def test_a_base_that_training_changes_is_loaded_for_each_member(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    memory, out = Memory(), tmp_path / "out"
    with watched(memory, monkeypatch):
        ensemble(tiny_model_dir, out, config=settings(out, save_strategy="no", max_steps=1), peft_config=None)
    assert memory.shared == [False, False] and memory.numbers[1] == memory.numbers[0], "never two bases at a time"
    first, second = (load_file(out / f"member-{number}" / "model.safetensors") for number in (0, 1))
    assert not torch.equal(first["model.embed_tokens.weight"], second["model.embed_tokens.weight"])
    changing = LoraConfig(bias="all"), LoraConfig(modules_to_save=["norm"]), LoraConfig(init_lora_weights="pissa")
    assert leaves_base(LORA) and not any(map(leaves_base, (None, *changing)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 1}, "n is 1; it must be a whole number of at least 2"),
        ({"bootstrap": 0.0}, "bootstrap is 0.0; it must be above 0 and at most 1 or None"),
        ({"bootstrap": 1.5}, "bootstrap is 1.5"),
        ({"method": "mode"}, "method is 'mode'; it must be 'mean', 'median'"),
        ({"method": "stacking", "eval_dataset": None}, "'stacking' is fitted on held-out rows; give eval_dataset"),
        ({"method": "stacking", "eval_dataset": pairs(1)}, "eval_dataset has one prompt; give more"),
        ({"method": "dynamic"}, "eval_dataset has 4 prompts; method 'dynamic' .* at least 10 there"),
        ({"weights": "12"}, r"weights are \['1', '2'\]; give a list of numbers"),
        ({"weights": 4}, "weights is 4; give a list of numbers"),
        ({"trim": "x"}, "trim is 'x'; "),
        ({"weights": [1.0]}, "weights has 1 numbers and there are 2 members"),
        ({"weights": [1.0, 2.0], "method": "min"}, "weights have no effect on method='min'"),
        ({"weights": [1.0, -2.0]}, "give finite numbers from 0"),
        ({"method": "trimmed_mean"}, "trim=0.2 of 2 members cuts none"),
        ({"vary": {"learning_rat": [0.1]}}, "members can't differ in learning_rat; did you mean learning_rate"),
        ({"vary": {"seed": [1, 2]}}, "each has its own seed anyway"),
        ({"vary": {"lora.r": [2, 4, 8]}}, "lora.r has 3 values for 2 members"),
        ({"vary": {"lora.r": 2}}, "lora.r is 2; give a list"),
        ({"vary": {"lora": {"r": [2, 4, 8]}}}, "lora.r has 3 values for 2 members"),
        ({"vary": {"lora.r": [2]}, "peft_config": None}, "they have no adapter"),
        ({"vary": {"learning_rate": [-1.0]}}, "learning_rate is -1.0; give a number from 0"),
        ({"eval_dataset": {"a": pairs(2)}}, "eval_dataset must be a datasets.Dataset"),
        ({"rows": Dataset.from_list([])}, "train_dataset has no"),
        ({"early_stopping_patience": 1}, "early_stopping_patience needs evaluations, and eval_strategy is"),
        ({"peft_config": "lora"}, "peft_config is a str; give a LoraConfig"),
    ],
)
def test_mistakes_are_named_before_anything_is_loaded(given: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        ensemble("no/such/model", tmp_path, **given)


@pytest.mark.slow
def test_an_ensemble_ranks_human_ratings_no_worse_than_its_mean_member(cut_base_dir: str, tmp_path: Path):
    config = RewardConfig(
        str(tmp_path), max_steps=25, per_device_train_batch_size=8, learning_rate=5e-4, row_tokens=512, use_cpu=True,
        bf16=False, save_strategy="no", report_to="none", disable_tqdm=True, margin_mode="none", seed=0,
    )  # fmt: skip
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
    held_out = make_pairs("validation", 80)
    train_ensemble(cut_base_dir, config, make_pairs("train", 400), n=3, eval_dataset=held_out, peft_config=lora)
    results = json.loads((tmp_path / "ensemble_results.json").read_text())
    # Measured at this seed: .613, a mean of .529 (25 steps of four layers teach little), errors that correlate by -.02.
    # The gain was .083 here, .088 and -.033 at the seeds 10 and 20: the margin only allows for other kernels.
    assert results["accuracy"] >= results["mean_member_accuracy"] - 0.02
    assert results["error_correlation"]["mean"] < 0.9
