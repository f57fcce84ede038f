"""Rendering of facts as README.md: metadata for the Hub, and text for people."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hf_align.model_cards.facts import CardFacts, Evaluation
from hf_align.report.render import duration

SHOWN_SAMPLES, SHOWN_CHARACTERS = 8, 600
PIPELINES = {"reward": "text-classification", "ensemble": "text-classification"}
REWARD_TAGS = ["reward-model", "preference-learning"]
_SPECIAL = re.compile(r"[\\`*\[\]|~$<>&:@]|(?<!\w)_|_(?!\w)|^\s*([-+#](?=\s)|#+(?=\s)|\d+[.)](?=\s|$))", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def card_metadata(facts: CardFacts, repo_id: str | None = None) -> ModelCardData:
    """The YAML head of a card.

    Args:
        facts: Facts about the model.
        repo_id: The model's repository. Default: its name.
    """
    pipeline = facts.tasks[0] if facts.tasks else PIPELINES.get(facts.kind, "text-generation")
    tags = ["hf-align", *([facts.kind] if facts.kind != "model" else [])]
    tags += REWARD_TAGS if facts.kind in PIPELINES else []
    ranks = [member.get("rank") for member in facts.members]
    tags += ["lora"] if any(ranks) or (facts.adapter is not None and facts.adapter.get("r")) else []
    bases = sorted({member["base_model"] for member in facts.members if member.get("base_model")})
    shown = [row for row in facts.evaluation if row.is_finite]
    name = (repo_id or facts.name).split("/")[-1]
    return ModelCardData(
        language=facts.language or None,
        license=facts.license,
        library_name=facts.library,
        pipeline_tag=pipeline,
        base_model=facts.base_model or bases or None,
        datasets=facts.dataset_ids or None,
        tags=list(dict.fromkeys([*tags, *facts.tags])),
        model_name=name,
        eval_results=[_eval_result(row, pipeline, facts) for row in shown] or None,
    )


def _eval_result(row: Evaluation, task: str, facts: CardFacts) -> EvalResult:
    local = re.sub(r"\W+", "-", row.dataset.lower()).strip("-") or "local"
    return EvalResult(
        task_type=task,
        dataset_type=row.dataset_id or local,
        dataset_name=row.dataset,
        dataset_split=row.split,
        dataset_config=facts.dataset_args[0] if facts.dataset_args and row.dataset_id in facts.dataset_ids else None,
        metric_type=metric_type(row.metric),
        metric_name=row.metric,
        metric_value=row.value,
        metric_args=None if row.interval is None else {"interval_95": list(row.interval)},
    )


def metric_type(name: str) -> str:
    """The Hub's name of a metric, if there is one: all our accuracies are `accuracy`."""
    last = name.split("/")[-1]
    return "accuracy" if last in ("accuracy", "accuracies") or last.endswith("_accuracy") else name


def render_card(facts: CardFacts, repo_id: str | None = None) -> str:
    """The whole README.md.

    Args:
        facts: Facts about the model. All text is escaped, since it may come from a data set or a model.
        repo_id: The model's repository, for the code that loads it. Default: its name.
    """
    return render_text(
        f"{facts.kind}.md.j2",
        card_metadata(facts, repo_id).to_yaml(),
        facts=facts,
        repo=repo_id or facts.name,
        title=(repo_id or facts.name).split("/")[-1],
        evaluation=[row for row in facts.evaluation if row.is_finite],
        samples=facts.samples[:SHOWN_SAMPLES],
    )


def render_text(template: str, head: str, **names: Any) -> str:
    """A card: its YAML head and a template's text."""
    body = _environment().get_template(template).render(**names)
    return re.sub(r"\n{3,}", "\n\n", f"---\n{head}\n---\n\n{body.strip()}\n")


@cache
def _environment() -> Environment:
    """Kept, with the templates that it has compiled."""
    environment = Environment(
        loader=PackageLoader("hf_align.model_cards", "templates"),
        autoescape=True,  # so that macros and blocks return Markup, which `finalize` leaves alone
        finalize=lambda value: value if isinstance(value, Markup) else markdown_text(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        python=python_text,
        code=code_text,
        identifier=identifier_text,
        figure=figure,
        duration=duration,
        clip=clip,
        share=share,
    )
    return environment


def markdown_text(value: Any) -> Markup:
    """Text on one line, escaped for both Markdown and HTML."""
    text = _CONTROL.sub("", str(value)).strip()
    text = _SPECIAL.sub(lambda match: "".join(f"&#{ord(character)};" for character in match[0]), text)
    return Markup("<br>".join(text.splitlines()))  # nosec B704 # escaped above


def code_text(value: Any) -> Markup:
    """Format a name as code."""
    return Markup("`{}`").format(Markup(re.sub(r"[`|<>&\s]", "", str(value))))  # nosec B704 # escaped above


def identifier_text(value: Any) -> Markup:
    """Format a name inside of code: anything but letters, digits and underscores is left out."""
    return Markup(re.sub(r"\W", "", str(value)))  # nosec B704 # escaped above


def python_text(value: str) -> Markup:
    """Format a Python string literal for a code block."""
    return Markup(json.dumps(value))  # nosec B704 # escaped above


def clip(value: Any) -> str:
    """Shorten a long text."""
    text = str(value).strip()
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS].rstrip() + " …"


def share(value: float | None) -> str:
    """Format a share, or alpha, to three digits; a dash if it is unknown."""
    return "\u2013" if value is None else f"{value:.3f}"


def figure(value: Any) -> str:
    """Format a number for people; return anything else unchanged."""
    if isinstance(value, (list, tuple)):
        return ", ".join(figure(entry) for entry in value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
