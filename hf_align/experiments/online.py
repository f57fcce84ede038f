"""The run of `hf-align online-dpo`: a reward or a judge of pairs, and perhaps another judge for evaluations."""

from typing import Any

from hf_align.evaluation.scorers import read_judge
from hf_align.experiments.run import Inputs, Run
from hf_align.feedback.judges.named import NamedJudge, check_judge
from hf_align.progress import Progress
from hf_align.rewards.named import read_reward
from hf_align.trainers import over_optimization
from hf_align.trainers.online.trainer import check_label


class OnlineRun(Run):
    """A run whose pairs are made by a reward or by a judge."""

    def read_rewards(self) -> None:
        """Check the recipe's reward or judge, and the judge of evaluations."""
        source, recipe = self.checked.source, self.recipe
        check_label(source["reward"], source["judge"], self.args)
        if source["reward"] is not None:
            source["reward"] = read_reward(source["reward"], recipe.where("reward"))
        else:
            source["judge"] = check_judge(source["judge"], recipe.where("judge"))
        source["eval_judge"] = read_judge(source["eval_judge"], recipe.where("eval_judge"))
        by_reward = source["reward"] is not None
        over_optimization.check_judge(
            source["eval_judge"],
            source["reward"] if by_reward else _source_of(source["judge"]),
            self.args,
            source["eval_dataset"],
            "eval_judge",
            "reward" if by_reward else "judge",
        )

    def execute(self, inputs: Inputs, progress: Progress) -> None:
        """Load the judge, and train as `Run` does."""
        if (judge := self.checked.source["judge"]) is not None:
            self.checked.source["judge"] = judge.opened
        super().execute(inputs, progress)


def _source_of(judge: NamedJudge) -> Any:
    """The reward that a judge goes by, or else the judge."""
    return read_judge(judge.values["reward"]) if judge.kind == "reward" else judge
