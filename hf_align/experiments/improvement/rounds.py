"""All rounds of a run, from stored step to stored step, and what is left of them: figures, page, best policy.

improve                     rounds until the stop rule, or the last one
    responses_of, votes_of      the start: its held-out responses; its agreement with people as a judge
    paired                      a round: sample, judge, make pairs (steps.py)
    trained                     DPO or IPO on them (steps.py)
    evaluate_round              both judges on held-out prompts, and the rule (evaluate.py, rule.py)
    save_best                   the best policy with its card
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_align.experiments.improvement.evaluate import EVALUATION, evaluate_round, responses_of, votes_of
from hf_align.experiments.improvement.job import PARTS, POLICY, Job
from hf_align.experiments.improvement.rule import detectable_fall
from hf_align.experiments.improvement.steps import judged_of, paired, trained
from hf_align.files import finite, whole_folder, write_json, write_text
from hf_align.model_cards import CardFacts, Evaluation, card_told, describe_folder, load_facts, save_card
from hf_align.report.improvement import improvement_text, render_improvement, stop_sentence

ROUNDS, REPORT = "rounds.json", "report.html"


@dataclass(frozen=True)
class Improvement:
    """A finished run.

    Attributes:
        folder: Its folder, with `rounds.json`, `report.html`, and the best policy in `policy` unless that is the start.
        content: Content of `rounds.json`.
    """

    folder: Path
    content: dict[str, Any]

    @property
    def policy(self) -> Path | None:
        """Folder of the best policy; None where no round was better than the start."""
        return self.folder / POLICY if self.content["best"] else None

    def figures(self) -> dict[str, Any]:
        """All figures, as JSON has them."""
        return self.content

    def __str__(self) -> str:
        return improvement_text(self.content)


def improve(job: Job) -> Improvement:
    """Run the rounds that aren't finished.

    Raises:
        UserError: A model can't be loaded, or a judge fails.
        KeyboardInterrupt: After Ctrl-C; what is stored until then isn't computed again.
    """
    job.open()
    rounds: list[dict[str, Any]] = []
    start = _of_policy(job, 0)
    best, stopped = 0, None
    for number in range(1, job.config.rounds + 1):
        job.progress.line(f"[{number}/{job.config.rounds}] round {number}")
        entry, best, stopped = _round(job, number, best)
        rounds.append(entry)
        content = _content(job, start, rounds, best, stopped)
        _write(job, content)
        job.progress.line(f"   {_sentence(entry)}")
        if stopped is not None:
            break
    else:
        content = _content(job, start, rounds, best, {"round": job.config.rounds, "reason": "rounds"})
        _write(job, content)
    if best:
        save_best(job, content)
    for number in range(len(rounds) + 1):
        shutil.rmtree(job.round(number) / PARTS, ignore_errors=True)
    return Improvement(job.folder, content)


def _round(job: Job, number: int, best: int) -> tuple[dict[str, Any], int, dict[str, Any] | None]:
    """A round's figures, the best policy after it, and why rounds end with it, if they do."""
    pairs, judged = paired(job, number), judged_of(job, number)
    entry: dict[str, Any] = {
        "round": number,
        "judging": {name: value for name, value in judged.items() if name != "judged"},
        "pairs": pairs["counts"],
    }
    if job.votes is not None:
        entry["votes"] = _without(votes_of(job, number - 1), "outcomes")
    if not pairs["pairs"]:
        return entry, best, {"round": number, "reason": "no_pairs"}
    entry["trained"] = trained(job, number)
    entry |= _of_policy(job, number)
    entry |= job.stored(number, EVALUATION, lambda: evaluate_round(job, number, best))
    verdict = entry["verdict"]
    reason = "falls" if verdict["falls"] else "outruns" if verdict["outruns"] else None
    return entry, number if verdict["better"] else best, None if reason is None else {"round": number, "reason": reason}


def _of_policy(job: Job, number: int) -> dict[str, Any]:
    """What a policy writes on held-out prompts, in figures, and its agreement with people where it judges."""
    figures = {"policy": _without(responses_of(job, number), "texts")}
    if job.votes is not None and (job.judge.is_policy or number == 0):
        figures["votes_after"] = _without(votes_of(job, number), "outcomes")
    return figures


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def _content(
    job: Job, start: dict[str, Any], rounds: list[dict[str, Any]], best: int, stopped: dict[str, Any] | None
) -> dict[str, Any]:
    units = (job.held_out if job.held_out_judge is not None else job.votes).units  # type: ignore[union-attr]
    distinct = int(units.max()) + 1
    content = {
        "model": job.model,
        "judge": job.judge.name,
        "held_out_judge": None if job.held_out_judge is None else job.held_out_judge.name,
        "prompts": len(job.prompts),
        "held_out_prompts": len(job.held_out),
        "labelled_pairs": 0 if job.votes is None else len(job.votes.pairs),
        "rule": {
            "false_stop": job.config.false_stop,
            "error_of_a_test": job.config.error_of_a_test,
            "gain_share": job.config.gain_share,
            "units": distinct,
            "detectable_fall": detectable_fall(distinct, job.config.error_of_a_test),
        },
        "settings": job.settings,
        "start": start,
        "rounds": rounds,
        "best": best,
        "stopped": stopped,
    }
    return finite(content)


def _write(job: Job, content: Mapping[str, Any]) -> None:
    write_json(job.folder / ROUNDS, content)
    write_text(job.folder / REPORT, render_improvement(content))


def _sentence(entry: Mapping[str, Any]) -> str:
    if "verdict" not in entry:
        return "no pairs"
    verdict, counts = entry["verdict"], entry["pairs"]
    rate = f"{verdict['held_out']:.2f} against round {entry['against']}"
    trained = "" if verdict["training"] is None else f", training judge {verdict['training']:.2f}"
    return f"{counts['pairs']} pairs; held-out win rate {rate}{trained}"


def save_best(job: Job, content: Mapping[str, Any]) -> None:
    """Copy the best policy to `policy`, with a card that says how it was made; nothing where it is there already."""
    folder, source = job.folder / POLICY, Path(job.policy(content["best"]))
    if folder.exists():
        return
    with whole_folder(folder) as unfinished:
        shutil.copytree(source, unfinished, dirs_exist_ok=True)
        with card_told(folder):
            save_card(unfinished, card_facts(job, content, load_facts(source) or describe_folder(source)))


def card_facts(job: Job, content: Mapping[str, Any], facts: CardFacts) -> CardFacts:
    """The facts of the best round's card, and those of the run."""
    best = content["rounds"][content["best"] - 1]
    facts.name = job.folder.resolve().name
    facts.datasets = [f"the policy's own samples, judged by {content['judge']}, in {content['best']} round(s)"]
    facts.improvement = {
        **{name: content[name] for name in ("judge", "held_out_judge", "prompts", "held_out_prompts", "best")},
        "rounds": len(content["rounds"]),
        "stop": stop_sentence(content),
        "pairs": [entry["pairs"]["pairs"] for entry in content["rounds"][: content["best"]]],
        "config": {
            name: getattr(job.config, name)
            for name in ("num_samples", "max_new_tokens", "temperature", "pairs", "anchor_share", "reference")
        },
    }
    for name, judge in (("held_out", content["held_out_judge"]), ("training", content["judge"])):
        if name in best:
            rate = best[name]["start"]
            low, high = rate["win_rate_interval"]
            interval = None if low is None or high is None else (low, high)
            metric = f"win rate over the start, by {judge}" + (" (judged the training)" * (name == "training"))
            dataset = "held-out prompts"
            facts.evaluation.append(
                Evaluation(metric, rate["win_rate"], interval, content["held_out_prompts"], dataset)
            )
    return facts
