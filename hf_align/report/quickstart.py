"""The report page of a quickstart: its curves, tables and samples."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from hf_align.report.charts.figure import Reference
from hf_align.report.charts.intervals import Interval, interval_chart
from hf_align.report.charts.lines import line_chart
from hf_align.report.render import render_page

SHOWN_PER_DOMAIN = 3
STAGES = ("reward", "dpo", "ipo", "ppo")
NAMES = {"base": "before", "dpo": "DPO", "ipo": "IPO", "ppo": "PPO"}
COLORS = {"reward model": "reward", "VADER": "base", "single human": "human"}
SHARE = (0.0, 1.0)
History = Sequence[Mapping[str, Any]]


def render_report(
    metrics: Mapping[str, Any], histories: Mapping[str, History], samples: Sequence[Mapping[str, Any]]
) -> str:
    """Render report.html.

    Args:
        metrics: Content of metrics.json.
        histories: Each trainer's log history, by "reward", "dpo", "ipo" and "ppo".
        samples: One per prompt: `prompt`, `domain`, `policies: {name: {text, score, reward}}`, in random order; the
            first few of each domain are shown, none hand-picked.

    Returns:
        The page. Text from models and data sets is escaped.
    """
    numbers = metrics["settings"]["numbers"]
    return render_page(
        "quickstart.html.j2",
        metrics=metrics,
        names=NAMES,
        colors=COLORS,
        charts={stage: _charts(stage, metrics, histories[stage]) for stage in STAGES},
        options=dict.fromkeys(key for stage in STAGES for key in numbers[stage]),
        people_chart=interval_chart(
            [
                (
                    label,
                    [Interval(n, COLORS[n], s["r"], s.get("r_interval")) for n, s in part["scorers"].items()],
                )
                for label, part in metrics["reward_model"].items()
            ],
            title="Correlation r with the mean of many people, 95% intervals",
        ),
        judge_chart=interval_chart(
            [
                (label, [Interval(NAMES[n], n, p["score"], p["score_interval"]) for n, p in part["policies"].items()])
                for label, part in metrics["policies"].items()
            ],
            title="VADER score of the continuations, 95% intervals",
        ),
        samples=[
            sample
            for domain in dict.fromkeys(sample["domain"] for sample in samples)
            for sample in [sample for sample in samples if sample["domain"] == domain][:SHOWN_PER_DOMAIN]
        ],
        stages=STAGES,
        total_seconds=sum(metrics["seconds"].values()),
        smoke=metrics["settings"]["profile"] == "smoke",
    )


def curve(history: History, name: str) -> list[tuple[float, float]]:
    """Points (step, value) logged under `name`; null, from a value that JSON lacks, becomes NaN."""
    values = [(entry["step"], entry[name]) for entry in history if name in entry]
    return [(float(step), math.nan if value is None else float(value)) for step, value in values]


def _charts(stage: str, metrics: Mapping[str, Any], history: History) -> list[Markup]:
    """The three curves of a training run: logged name, title, reference, held-out value, ends of the axis."""
    held_out = metrics["held_out"][stage]
    chance = Reference(0.5, "chance")
    rows: tuple[tuple[str, str, Reference | None, float | None, tuple[float, float] | None], ...]
    if stage == "reward":
        rows = (
            ("loss", "loss", Reference(math.log(2), "log 2: no difference yet"), held_out["loss"], None),
            ("accuracy", "pairs ranked right", chance, held_out["accuracy"], SHARE),
            ("margin", "reward of chosen minus rejected", Reference(0.0, ""), held_out["margin"], None),
        )
    elif stage == "ppo":
        before = Reference(metrics["policies"]["all"]["policies"]["base"]["reward"], "before")
        target = Reference(metrics["settings"]["numbers"]["ppo"]["target_kl"], "target")
        rows = (
            ("objective/scores", "PPO: reward of a rollout", before, held_out["reward"], None),
            ("objective/kl", "PPO: KL from the start, nats per response", target, held_out["objective/kl"], None),
            ("kl_coef", "PPO: KL coefficient", None, None, None),
        )
    else:
        name, right, margin = NAMES[stage], "rewards/accuracies", "rewards/margins"
        start = Reference(math.log(2), "log 2: no difference yet") if stage == "dpo" else None
        reference = Reference(0.0, "reference policy")
        rows = (
            ("loss", f"{name}: loss", start, held_out.get("loss"), None),
            (right, f"{name}: pairs ranked right", chance, held_out.get(right), SHARE),
            (margin, f"{name}: reward margin", reference, held_out.get(margin), None),
        )
    return [
        line_chart(curve(history, key), title=title, color=stage, reference=line, held_out=value, y_range=y_range)
        for key, title, line, value, y_range in rows
    ]
