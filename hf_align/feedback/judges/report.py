"""The result of `measure_judge`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hf_align.files import finite
from hf_align.report.judge_page import judge_report_text, render_judge_report
from hf_align.report.remarks import Remark
from hf_align.report.shown import Shown


@dataclass
class JudgeReport(Shown):
    """What `measure_judge` found. `str(report)` is for a terminal; in a notebook the page is shown.

    Attributes:
        metrics: Figures by section: "agreement", "verdicts", "position", "length", "calibration", "self_preference";
            None for a section that rows or judge can't fill, and "fit". The functions named `measure_...` and
            `judge_fitness` say what each holds.
        facts: What was measured, and on what: "judge", "layout", "rows", "prompts", "texts", "pairs" (asked about),
            "candidates" (pairs in all), "unit" ("prompts", "pairs" or "texts": what the bootstrap draws), "units",
            "max_pairs", "again", "resamples", "seed", "own", "skipped" (counts by reason), "missing" (why a section is
            None), "versions".
        remarks: What to know before believing a figure.

    Example:
        >>> from hf_align.feedback import FunctionJudge, measure_judge
        >>> rows = [{"prompt": f"Film {n}?", "chosen": "A joy to watch.", "rejected": "Dull."} for n in range(40)]
        >>> report = measure_judge(FunctionJudge(lambda *_: "first", "A"), rows, resamples=100)
        >>> report.fit, report.metrics["verdicts"]["ties"], report.metrics["position"]["first_shown"]
        (False, 1.0, 1.0)
        >>> report.save("judge.html")
    """

    metrics: dict[str, Any]
    facts: dict[str, Any]
    remarks: list[Remark]

    @property
    def fit(self) -> bool | None:
        """Whether it is fit to stand in for people; None where the pairs are too few to tell."""
        return self.metrics["fit"]["fit"]

    def to_json(self) -> dict[str, Any]:
        """Facts, remarks and metrics as JSON has them, with null for what is undefined."""
        remarks = [remark._asdict() for remark in self.remarks]
        return finite({"facts": self.facts, "remarks": remarks, "metrics": self.metrics})

    def to_html(self) -> str:
        """The page; texts of the data are escaped."""
        return render_judge_report(self.metrics, self.facts, self.remarks)

    def to_text(self, width: int) -> str:
        """The report for a terminal of this width."""
        return judge_report_text(self.metrics, self.facts, self.remarks, width)
