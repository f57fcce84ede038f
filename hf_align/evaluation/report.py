"""The results of `reward_report` and `policy_report`: figures, what they were measured on, and how they are shown."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from hf_align.files import finite
from hf_align.model_cards import Evaluation
from hf_align.model_cards.names import hub_id
from hf_align.report.policy.page import render_policy_report
from hf_align.report.policy.text import policy_report_text
from hf_align.report.remarks import Remark
from hf_align.report.reward.page import render_reward_report
from hf_align.report.reward.text import report_text
from hf_align.report.shown import Shown


@dataclass
class Report(Shown):
    """A report's figures. `str(report)` is for a terminal; in a notebook the page is shown.

    Attributes:
        metrics: Figures by section, in the report's order; None for a section that data or model can't fill.
        facts: What was measured, and with what.
        remarks: What to know before believing a figure.
    """

    metrics: dict[str, Any]
    facts: dict[str, Any]
    remarks: list[Remark]

    def to_json(self) -> dict[str, Any]:
        """Facts, remarks and metrics as JSON has them, with null for what is undefined."""
        remarks = [remark._asdict() for remark in self.remarks]
        return finite({"facts": self.facts, "remarks": remarks, "metrics": self.metrics})


@dataclass
class RewardReport(Report):
    """What `reward_report` measured; see `Report`.

    Attributes:
        metrics: Figures by section, in the report's order: "accuracy", "tau", "calibration", "robustness", "length",
            "subsets", "best_of_n", "worst_rows"; None for a section that data or model can't fill; of an ensemble also
            "uncertainty". The functions named `measure_...` say what each holds.
        facts: What was measured, and with what: "layout", "rows", "prompts", "responses", "texts" (distinct, after
            their prompt), "pairs", "across_prompts", "unit" ("prompts" or "texts": what the bootstrap draws), "units",
            "resamples", "seed", "min_gap", "length_unit" ("tokens" or "words"), "skipped" (counts by reason),
            "missing" (why a section is None), "model", "template", "output", "judge", "benchmark" (a public
            benchmark's figures by its own formulas, where the rows are its), "processor" and "versions".
        remarks: What to know before believing a figure.
        scores: The model's scores, for each row a list in the order of its responses (chosen before rejected).

    Example:
        >>> from hf_align.evaluation import reward_report
        >>> rows = [{"prompt": f"Film {n}?", "chosen": "A joy to watch.", "rejected": "Dull."} for n in range(20)]
        >>> report = reward_report(lambda prompts, responses: [float(len(text)) for text in responses], rows)
        >>> report.save("report.html")
        >>> str(report).splitlines()[-1].strip()
        'Empty: it orders every decided pair as people do.'
    """

    scores: list[list[float]] = field(default_factory=list, repr=False)

    def evaluations(self) -> list[Evaluation]:
        """The main figures for a model card: accuracy, tau, calibration error beside that of chance alone, length bias.

        `trainer.create_model_card(evaluation=report.evaluations())` shows them; so does `hf-align evaluate reward
        --card` in a folder.

        Returns:
            "accuracy", "kendall_tau", "ece", "ece_of_chance" and "length_bias" (correlation of score and length beyond
            people's own), as far as they are defined.
        """
        metrics, rows = self.metrics, int(self.facts["rows"])
        tau, calibration, length = metrics["tau"] or {}, metrics["calibration"] or {}, metrics["length"] or {}
        raw = calibration.get("raw", {})
        figures = {
            "accuracy": (metrics["accuracy"]["accuracy"], metrics["accuracy"]["accuracy_interval"]),
            "kendall_tau": (tau.get("tau"), tau.get("tau_interval")),
            "ece": (raw.get("ece"), None),
            "ece_of_chance": (raw.get("ece_floor"), None),
            "length_bias": (length.get("excess"), length.get("excess_interval")),
        }
        return [
            Evaluation(
                metric,
                float(value),
                interval=(float(ends[0]), float(ends[1])) if ends and all(map(math.isfinite, ends)) else None,
                rows=rows,
                dataset=f"reward report on {self.facts['layout']}",
                dataset_id=hub_id(self.facts.get("data")),
            )
            for metric, (value, ends) in figures.items()
            if value is not None and math.isfinite(value)
        ]

    def to_html(self) -> str:
        """The page; texts of the data are escaped."""
        return render_reward_report(self.metrics, self.facts, self.remarks)

    def to_text(self, width: int) -> str:
        """The report for a terminal of this width."""
        return report_text(self.metrics, self.facts, self.remarks, width)


@dataclass
class PolicyReport(Report):
    """What `policy_report` measured; see `Report`.

    Attributes:
        metrics: Figures by section, in the report's order: "win_rate", "length_controlled", "scores", "kl",
            "diversity", "length", "lost_ability", "best_and_worst", "domains"; None for a section that can't be filled.
            Most hold "policies", figures by policy: see the functions named `measure_...`.
        facts: What was measured, and with what: "policies" (names), "labels" (what they are called, by name),
            "reference", "judge" (the first), "judges", "pairs" (of judges that compare pairs: how many they "judged",
            with how many "flipped" by the order and how many with "no_opinion"), "prompts", "units" (distinct prompts:
            what the bootstrap draws), "max_new_tokens", "resamples", "seed", "human_text" (its source),
            "quantization", "missing" (why a section is None), "processor" and "versions".
        remarks: What to know before believing a figure.
        samples: Each prompt with every policy's text and score.
        scores: By judge, then by policy, a score for each prompt.
        by_domain: The result of `compare_policies`.

    Example:
        >>> from hf_align.evaluation import policy_report
        >>> name = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> judge = lambda prompts, responses: [float(len(text)) for text in responses]
        >>> report = policy_report(name, ["The film was"], judge=judge, max_new_tokens=4, human_texts=0, resamples=10)
        >>> report.save("policy.html")
        >>> str(report).splitlines()[0].partition(".")[0]
        'Nothing to compare: there is one policy'
    """

    samples: list[dict[str, Any]] = field(default_factory=list, repr=False)
    scores: dict[str, dict[str, list[float]]] = field(default_factory=dict, repr=False)
    by_domain: dict[str, Any] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Facts, remarks, metrics and samples as JSON has them, with null for what is undefined."""
        return finite({**super().to_json(), "report": self.by_domain, "samples": self.samples})

    def to_html(self) -> str:
        """The page; texts of the data are escaped."""
        return render_policy_report(self.metrics, self.facts, self.remarks)

    def to_text(self, width: int) -> str:
        """The report for a terminal of this width."""
        return policy_report_text(self.metrics, self.facts, self.remarks, width)
