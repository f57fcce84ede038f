"""PPO on a recipe with several rewards, at several weights of them, and the front of what the policies reach."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_align.algorithms import ALGORITHMS
from hf_align.errors import UserError
from hf_align.evaluation.fronts import Front, front_of_policies, weight_vectors
from hf_align.experiments.recipe import Recipe, missing_key
from hf_align.experiments.run import load_inputs, prepare, run_experiment
from hf_align.files import write_json
from hf_align.progress import Progress
from hf_align.report.pictures import can_draw
from hf_align.rewards.named import read_reward
from hf_align.trainers.checkpoints import RESUME, last_checkpoint

PPO = ALGORITHMS.builtin["ppo"]
OBJECTIVES, FRONT, PAGE, PICTURE = "objectives.json", "front.json", "front.html", "front.png"


def sweep_recipe(recipe: Recipe, progress: Progress, *, steps: int = 4) -> Front:
    """Run a recipe once for each weight vector, into a folder of its own, and draw the front.

    A recipe's own weights are the units: a run's weights are theirs times the vector. A finished run is not repeated,
    an unfinished one goes on from its last checkpoint, and one that fails is reported and left out; the same call again
    tries it once more.

    Args:
        recipe: A recipe whose `reward` is a list of at least two.
        progress: Receiver of progress.
        steps: Parts that 1 is divided into: `steps` + 1 runs for two rewards.

    Returns:
        The front of the finished runs, which `front.json`, `front.html` and, with matplotlib, `front.png` in the
        recipe's `output_dir` hold.

    Raises:
        UserError: The recipe can't be used, or fewer than two runs finished.
        KeyboardInterrupt: After Ctrl-C.
    """
    entries, out = _entries(recipe), recipe.values.get("output_dir")
    if out is None:
        raise missing_key("output_dir")
    if recipe.values.get("eval_dataset") is None:
        raise UserError("eval_dataset is missing; the front is drawn from the responses to held-out prompts")
    vectors = weight_vectors(len(entries), steps)
    runs = {"-".join(f"{weight:.3g}" for weight in vector): vector for vector in vectors}
    check = _variant(recipe, entries, vectors[0], Path(out, next(iter(runs))))
    check.values[RESUME] = None  # only a check of keys, rewards and data
    prepare(PPO, check)
    read_reward(check.values["reward"], recipe.where("reward"))
    finished, failures = {}, {}
    for name, vector in runs.items():  # before any training
        if (Path(out, name) / OBJECTIVES).exists():
            _scores(Path(out, name), _variant(recipe, entries, vector, Path(out, name)))
    for name, vector in runs.items():
        folder = Path(out, name)
        if not (folder / OBJECTIVES).exists():
            progress.line(f"weights {name}")
            try:
                _train(recipe, entries, vector, folder, progress)
            except Exception as error:  # whatever ends one run must not end the others
                failures[name] = f"{type(error).__name__}: {error}" if not isinstance(error, UserError) else str(error)
                progress.line(f"weights {name} failed: {failures[name]}", "yellow")
                continue
        finished[name] = _scores(folder, _variant(recipe, entries, vector, folder))
    if len(finished) < 2:
        why = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise UserError(f"a front needs at least 2 finished runs, got {len(finished)} ({why})")
    names = list(next(iter(finished.values())))
    front = front_of_policies(
        {name: {label: scores[name] for label, scores in finished.items()} for name in names},
        weights={label: runs[label] for label in finished},
    )
    for file in (FRONT, PAGE, *([PICTURE] if can_draw() else [])):
        front.save(Path(out, file))
    return front


def _entries(recipe: Recipe) -> list[dict[str, Any]]:
    rewards = recipe.values.get("reward")
    if not isinstance(rewards, list) or len(rewards) < 2:
        raise UserError(f"{recipe.where('reward')} is {rewards!r}; a sweep needs a list of at least two rewards")
    entries = [{"reward": entry} if isinstance(entry, str) else dict(entry) for entry in rewards]
    return [{"weight": 1.0, **entry} for entry in entries]


def _variant(recipe: Recipe, entries: Sequence[dict[str, Any]], vector: Sequence[float], folder: Path) -> Recipe:
    """The recipe of one run."""
    changed = copy.deepcopy(recipe)
    changed.values["reward"] = [
        {**entry, "weight": float(entry["weight"]) * weight} for entry, weight in zip(entries, vector, strict=True)
    ]
    changed.values["output_dir"] = str(folder)
    return changed


def _train(
    recipe: Recipe,
    entries: Sequence[dict[str, Any]],
    vector: Sequence[float],
    folder: Path,
    progress: Progress,
) -> None:
    """Train and evaluate one run, and write each held-out response's score by every reward."""
    variant = _variant(recipe, entries, vector, folder)
    if last_checkpoint(folder) is not None:
        variant.values[RESUME] = True
    else:
        shutil.rmtree(folder, ignore_errors=True)  # of a run that ended before its first checkpoint
    run = prepare(PPO, variant)
    trainer = run_experiment(run, load_inputs(run), progress)
    parts = {
        name.removeprefix("rewards/"): values.tolist()
        for name, values in trainer.eval_rows.items()
        if name.startswith("rewards/")
    }
    write_json(folder / OBJECTIVES, {"settings": _settings(variant), "scores": parts})


def _settings(variant: Recipe) -> dict[str, Any]:
    """What a run's results depend on, as JSON has it."""
    values = {key: value for key, value in variant.values.items() if key not in (RESUME, "output_dir")}
    return json.loads(json.dumps(values, default=str))


def _scores(folder: Path, variant: Recipe) -> dict[str, list[float]]:
    """The scores of a finished run.

    Raises:
        UserError: It was trained with other settings than the recipe's.
    """
    stored, now = json.loads((folder / OBJECTIVES).read_text(encoding="utf-8")), _settings(variant)
    before = stored["settings"]
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise UserError(
                f"{folder} was trained with {key} {before.get(key)!r}, and it is {now.get(key)!r} now; choose another "
                "output_dir, or delete that folder"
            )
    return stored["scores"]
