"""Which algorithm suits a case: `select_algorithm`, the library's side of `hf-align select`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from datasets import Dataset

from hf_align.errors import LoadError, UserError
from hf_align.files import finite
from hf_align.models.kinds import check_head, check_is_policy
from hf_align.models.sources import load_tokenizer
from hf_align.numbers import number_problem, shown_size
from hf_align.planning.selection.candidates import Candidate, candidates
from hf_align.planning.selection.estimates import Estimate, Estimator, estimator, outline_of
from hf_align.planning.selection.features import Features, data_features
from hf_align.planning.selection.provenance import reward_warnings
from hf_align.planning.selection.resources import Resources
from hf_align.planning.selection.rules import DEFAULT, EXCLUDE, Rule, compatible_needs, read_rules
from hf_align.planning.selection.settings import hyperparameters
from hf_align.progress import Progress
from hf_align.rewards.named import read_function

WEIGHTS = {"resources": 0.3, "data": 0.3, "needs": 0.2, "model": 0.2}
NEUTRAL = 0.5
"""A part's score where no rule says anything."""
CLEAR = 0.1
"""Lead over the runner-up from which the choice is clear."""
LEAST_TOKENS = 100
"""With fewer nothing is counted: of a folder with a config alone transformers makes an empty tokenizer."""
TOLD = ("agreement", "noise", "clear_share", "prompt_diversity", "longer_better", "completeness", "chat")
"""Features that may be unknown, by whose share the confidence falls."""
Model = Callable[[Features], Mapping[str, float]]
"""A learned model in place of rules: scores from 0 to 1 by candidate."""


@dataclass(frozen=True)
class Recommendation:
    """What to train with, and why. `str` of it is for a terminal.

    Attributes:
        algorithm: The candidate that is ahead.
        confidence: From 0 to 1: how clear the lead is, times how much is known of the case. No probability.
        scores: Score from 0 to 1 of each candidate that is possible, best first.
        parts: They by part: "resources", "data", "needs" and "model"; empty for a learned model's.
        reasons: Why, each with its sources and scope.
        advice: What else the rules say about the case.
        advantages: Of the algorithm.
        disadvantages: Of the algorithm.
        hyperparameters: Options to begin with, keys of its recipe.
        command: How it is trained.
        alternative: The runner-up; None if there is no other.
        take_alternative: When to take it.
        excluded: Candidates that are impossible here, with the reason.
        warnings: About the reward model, and about what was assumed.
        features: The case.
        estimates: Memory and operations by candidate.

    Example:
        >>> from hf_align.planning import Resources, select_algorithm
        >>> rows = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " too long."}] * 20
        >>> choice = select_algorithm(rows, "HuggingFaceTB/SmolLM2-135M-Instruct", Resources("24GB"), ["simple"])
        >>> choice.algorithm in choice.scores, 0 <= choice.confidence <= 1
        (True, True)
    """

    algorithm: str
    confidence: float
    scores: dict[str, float]
    parts: dict[str, dict[str, float]]
    reasons: list[str]
    advice: list[str]
    advantages: list[str]
    disadvantages: list[str]
    hyperparameters: dict[str, Any]
    command: str
    alternative: str | None
    take_alternative: str
    excluded: dict[str, str]
    warnings: list[str]
    features: Features
    estimates: dict[str, Estimate] = field(repr=False)

    def lines(self) -> list[tuple[str, str]]:
        """Names and texts to show."""
        shown = [("algorithm", self.algorithm), ("command", self.command)]
        shown.append(("confidence", f"{self.confidence:.2f} (how clear and how well known, no probability)"))
        shown += [("because", each) for each in self.reasons]
        shown += [("for it", each) for each in self.advantages]
        shown += [("against it", each) for each in self.disadvantages]
        shown += [("option", f"{name}: {_yaml(value)}") for name, value in self.hyperparameters.items()]
        if self.alternative is not None:
            shown.append(("runner-up", f"{self.alternative}: {self.take_alternative}"))
        shown += [("advice", each) for each in self.advice]
        shown += [("warning", each) for each in self.warnings]
        return shown

    def __str__(self) -> str:
        shown = [f"{name:<12}{text}" for name, text in self.lines()]
        shown += [f"{name:<12}{score:.3f}" for name, score in self.scores.items()]
        shown += [f"{name:<12}out: {reason}" for name, reason in self.excluded.items()]
        return "\n".join(shown)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON has it, with null for what is unknown."""
        return finite(asdict(self))


def select_algorithm(
    dataset: Any,
    model: str,
    resources: Resources | None = None,
    needs: Sequence[str] = (),
    *,
    reward: str | None = None,
    rules: str | os.PathLike[str] | Sequence[Rule] | Model = DEFAULT,
    weights: Mapping[str, float] = WEIGHTS,
    progress: Progress | None = None,
) -> Recommendation:
    """Choose an algorithm by features of data, model, resources and needs. No weights are loaded, nothing is trained.

    Each candidate's score is the weighted mean of four parts from 0 to 1. Resources come from an estimate: 1 - r / 2,
    where r is the least memory over the device's, or its training time over `hours`, whichever is larger; above 1 it
    is out. Data, needs and model begin with .5, to which the rules that hold add their effects.

    Args:
        dataset: Pairs or rankings in any layout that `to_preferences` knows, demonstrations or prompts.
        model: The policy's Hub id, folder or adapter.
        resources: Default: this machine's memory, any time.
        needs: Names in `NEEDS`.
        reward: Folder or Hub id of a reward model, or FILE.py:FUNCTION, if there is one.
        rules: A table of rules (YAML), rules, or a function of `Features` that gives each candidate's score.
        weights: Weights of the four parts; they are divided by their sum.
        progress: Receiver of progress.

    Raises:
        UserError: An argument is wrong, the data has no rows of a known kind, there is no config, or nothing fits.
    """
    resources, shares = resources or Resources(), _checked_weights(weights)
    table = read_rules(rules) if isinstance(rules, str | os.PathLike) else rules
    stated = compatible_needs(needs, () if callable(table) else table)
    check_is_policy(model, "model", ask_hub=True)
    if reward is not None:
        _check_reward(reward)
    rows = dataset if isinstance(dataset, Dataset) else Dataset.from_list(list(dataset))
    features = features_of(rows, model, resources, stated, reward, progress)
    warnings = _assumptions(features, resources, model)
    if features.kind == "prompts" and (others := [name for name in rows.column_names if name != "prompt"]):
        warnings.append(f"the data is read as prompts alone: {', '.join(others)} is no known column of responses")
    if reward is not None and ":" not in reward:
        warnings += reward_warnings(model, reward, rows)
    return recommend(features, table, shares, estimator(model, resources.device, progress), warnings)


def _check_reward(reward: str) -> None:
    """Refuse a function, a folder or a model that can't be the reward.

    Raises:
        UserError: It doesn't exist, or it is a language model.
    """
    if ":" in reward:
        read_function(reward, "reward")
        return
    if reward.startswith((".", "/")) and not os.path.isdir(reward):
        raise UserError(f"reward: there is no folder {reward}")
    check_head(reward)


def features_of(
    rows: Dataset,
    model: str,
    resources: Resources,
    needs: tuple[str, ...],
    reward: str | None,
    progress: Progress | None = None,
) -> Features:
    """The features of a case; see `select_algorithm`."""
    try:
        tokenizer = load_tokenizer(model)
    except LoadError:
        tokenizer = None
    if tokenizer is not None and len(tokenizer) < LEAST_TOKENS:
        tokenizer = None
    made = outline_of(model, resources.device)
    return Features(
        **data_features(rows, tokenizer, progress),
        chat=None if tokenizer is None else bool(tokenizer.chat_template),
        parameters=made.total - made.trained,
        architecture=made.name,
        footprint=made.base_bytes,
        speed=resources.operations_per_second / (2 * (made.total - made.trained)),
        memory=resources.device.memory,
        gpus=resources.gpus,
        hours=resources.hours_allowed,
        budget=resources.budget,
        reward="none" if reward is None else "given",
        needs=needs,
    )


def recommend(
    features: Features,
    rules: Sequence[Rule] | Model,
    weights: Mapping[str, float],
    estimate: Estimator,
    warnings: Sequence[str] = (),
) -> Recommendation:
    """Choose by features alone.

    Args:
        features: The case.
        rules: The table, or a learned model.
        weights: Weights of the parts, which add up to 1.
        estimate: Gives each candidate's memory and operations.
        warnings: To pass on.

    Raises:
        UserError: Nothing is possible.
    """
    everyone = list(candidates())
    fired = [] if callable(rules) else [rule for rule in rules if rule.holds(features)]
    reasons = {each.name: _ruled_out(each, fired) or _lacks(each, features) for each in everyone}
    if all(reasons.values()):
        raise _nothing_possible(reasons)
    estimates = {each.name: estimate(each, features) for each in everyone if reasons[each.name] is None}
    reasons |= {name: _too_much(features, own) for name, own in estimates.items()}
    excluded = {name: reason for name, reason in reasons.items() if reason is not None}
    possible = [each for each in everyone if each.name not in excluded]
    if not possible:
        raise _nothing_possible(reasons)
    effects = {rule.name: rule.effects([each.name for each in everyone], estimates) for rule in fired}
    parts: dict[str, dict[str, float]] = {}
    if callable(rules):
        scores = _learned(rules(features), [each.name for each in possible])
    else:
        parts = {each.name: _parts(each, features, estimates[each.name], fired, effects) for each in possible}
        scores = {name: sum(weights[part] * own[part] for part in weights) for name, own in parts.items()}
    order = sorted(possible, key=lambda each: -round(scores[each.name], 9))  # stable: the candidates' order decides
    best, second = order[0], order[1] if len(order) > 1 else None
    lead = CLEAR if second is None else scores[best.name] - scores[second.name]
    known = sum(getattr(features, name) is not None for name in TOLD) / len(TOLD)
    own = estimates[best.name]
    return Recommendation(
        algorithm=best.name,
        confidence=known * (0.5 + 0.5 * min(1.0, lead / CLEAR)),
        scores={each.name: scores[each.name] for each in order},
        parts=parts,
        reasons=_reasons(best, features, own, fired, effects),
        advice=[_cited(rule) for rule in fired if not rule.effect],
        advantages=list(best.advantages),
        disadvantages=list(best.disadvantages),
        hyperparameters=hyperparameters(best, features, own.options),
        command=_command(best, features),
        alternative=None if second is None else second.name,
        take_alternative="" if second is None else _when(best, second, fired, effects),
        excluded=excluded,
        warnings=list(warnings),
        features=features,
        estimates=estimates,
    )


def _ruled_out(candidate: Candidate, rules: Sequence[Rule]) -> str | None:
    """The first rule's reason to leave a candidate out."""
    return next((rule.because for rule in rules if candidate.name in rule.excluded), None)


def _nothing_possible(reasons: Mapping[str, str | None]) -> UserError:
    by_reason: dict[str | None, list[str]] = {}
    for name, why in reasons.items():
        by_reason.setdefault(why, []).append(name)
    told = "; ".join(f"{', '.join(names)}: {why}" for why, names in by_reason.items())
    return UserError(f"Nothing is possible here: {told}")


def _lacks(candidate: Candidate, features: Features) -> str | None:
    """What of the data a candidate lacks."""
    if candidate.needs_reward:
        lacking = features.reward == "none" and features.kind != "pairs"
        return "it needs a reward, and there are no pairs to train one on" if lacking else None
    if candidate.work == "pairs" and features.kind != "pairs":
        return "it needs pairs"
    return "it needs demonstrations" if features.kind == "prompts" else None


def _parts(
    candidate: Candidate,
    features: Features,
    estimate: Estimate,
    rules: Sequence[Rule],
    effects: Mapping[str, Mapping[str, Any]],
) -> dict[str, float]:
    """The parts of a score, from 0 to 1: what the candidate takes of the resources, and what rules say of the rest."""
    parts = {"resources": 1 - max(_ratios(features, estimate)) / 2}
    for part in ("data", "needs", "model"):
        change = sum(float(effects[rule.name].get(candidate.name, 0)) for rule in rules if rule.part == part)
        parts[part] = min(1.0, max(0.0, NEUTRAL + change))
    return parts


def _ratios(features: Features, estimate: Estimate) -> tuple[float, ...]:
    """Memory over the device's, and time over what is allowed."""
    memory = estimate.memory / features.memory
    if features.hours is None or features.speed is None:
        return (memory,)
    return memory, _hours(features, estimate) / features.hours


def _hours(features: Features, estimate: Estimate) -> float:
    assert features.speed is not None
    return estimate.operations / (features.speed * 2 * features.parameters) / 3600


def _too_much(features: Features, estimate: Estimate) -> str | None:
    memory, *time = _ratios(features, estimate)
    if memory > 1:
        return f"it needs {shown_size(estimate.memory)} at the least, and there are {shown_size(features.memory)}"
    if time and time[0] > 1:
        return f"it takes about {_hours(features, estimate):.2g} hours, and {features.hours:g} are allowed"
    return None


def _learned(scores: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """A learned model's scores of the possible candidates; what it doesn't name gets 0."""
    if not isinstance(scores, Mapping):
        raise UserError(f"rules: the function must return scores by algorithm, not {type(scores).__name__}")
    for name, score in scores.items():
        if number_problem(score) or not 0 <= score <= 1:
            raise UserError(f"rules: the score of {name} is {score!r}; give a number from 0 to 1")
    return {name: float(scores.get(name, 0.0)) for name in names}


def _reasons(
    best: Candidate,
    features: Features,
    estimate: Estimate,
    fired: Sequence[Rule],
    effects: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    how = ", ".join(f"{name}: {_yaml(value)}" for name, value in (estimate.options or {}).items())
    with_ = "" if best.algorithm is None or not how else f" (it fits with {how})"
    memory = f"about {shown_size(estimate.memory)} of {shown_size(features.memory)} at the least{with_}"
    time = "" if features.hours is None else f", about {_hours(features, estimate):.2g} of {features.hours:g} hours"
    reasons = [f"it fits: {memory}{time} [estimate]"]
    if best.needs_reward and features.reward == "none":
        reasons.append("a reward model has to be trained on the pairs first: hf-align reward [definition]")
    for rule in fired:
        value = effects[rule.name].get(best.name, 0)
        if value and value != EXCLUDE:
            reasons.append(f"{value:+.2f} to {rule.part}: {_cited(rule)}")
    return reasons


def _when(best: Candidate, second: Candidate, fired: Sequence[Rule], effects: Mapping[str, Mapping[str, Any]]) -> str:
    """When to take the runner-up: what would change the rules that favoured the first over it, else what it offers."""
    ahead = [
        rule
        for rule in fired
        if _number(effects[rule.name].get(best.name)) > _number(effects[rule.name].get(second.name))
    ]
    if ahead:
        return "take it given " + "; or ".join(dict.fromkeys(rule.revise for rule in ahead))
    offers = second.advantages or ("no rule tells the two apart",)
    return f"take it for this: {offers[0]}"


def _number(effect: Any) -> float:
    return float(effect) if isinstance(effect, int | float) else 0.0


def _cited(rule: Rule) -> str:
    return f"{rule.because} [{', '.join(rule.source)}; {rule.read}; {rule.scope}]"


def _command(best: Candidate, features: Features) -> str:
    if best.algorithm is None:
        return "hf-align score --model REWARD DATA OUT --best-of 4 --policy MODEL"
    first = "hf-align reward --config recipe.yaml, then " if best.needs_reward and features.reward == "none" else ""
    return f"{first}hf-align {best.algorithm} --config recipe.yaml"


def _assumptions(features: Features, resources: Resources, model: str) -> list[str]:
    warnings = []
    if features.chat is None:
        warnings.append(f"{model} has no tokenizer here: tokens are estimated from words")
    if features.hours is not None and resources.speed is None and resources.device.kind == "cuda":
        warnings.append("the GPU's speed is assumed (40·10¹² operations a second); give it with --speed")
    return warnings


def _checked_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights, divided by their sum."""
    for name, value in weights.items():
        if name not in WEIGHTS:
            raise UserError(f"weights: there is no part {name!r}; there are {', '.join(WEIGHTS)}")
        if number_problem(value) or value < 0:
            raise UserError(f"weights: {name} is {value!r}; give a number from 0")
    total = sum(weights.values())
    if not total:
        raise UserError("weights: all are 0; one must be above")
    return {name: weights.get(name, 0.0) / total for name in WEIGHTS}


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
