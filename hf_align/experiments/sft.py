"""The run of `hf-align sft`: demonstrations, prepared first where the recipe asks for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_align.data.sft.prepare import prepare_sft
from hf_align.data.sft.report import SFT_REPORT, SFTReport
from hf_align.data.sft.rows import standard_rows
from hf_align.data.sources import SPLITS, load_each, load_rows
from hf_align.errors import UserError
from hf_align.experiments.run import Inputs, Run
from hf_align.progress import Progress
from hf_align.rewards.named import read_function


class SFTRun(Run):
    """A run on demonstrations. With `prepare`, the report of the preparation is saved in its `output_dir`."""

    preparation: SFTReport | None = None

    def read_data(self) -> dict[str, Dataset]:
        """Load the data sets, and prepare the one to train on.

        Raises:
            UserError: A data set can't be read or prepared, or several are given without `prepare`.
        """
        source, seed = self.checked.source, self.args.seed
        names, held_out, asked = source["train_dataset"], source["eval_dataset"], source["prepare"]
        if asked is None or asked is False:
            if isinstance(names, list):
                place = self.recipe.where("train_dataset")
                raise UserError(f"{place}: several data sets are joined by a preparation; add `prepare: true`")
            return super().read_data()
        options = self._options({} if asked is True else asked)
        rows: dict[str, Dataset] = {}
        raw = None if held_out is None else load_rows(held_out, "eval", seed, self.algorithm.rows)
        if raw is not None:
            rows["eval_dataset"] = standard_rows(raw, "eval_dataset")
        sets = load_each(
            names, "train_dataset", SPLITS["train"], lambda name: load_rows(name, "train", seed, "demonstrations")
        )
        self.preparation = SFTReport()
        prepared = prepare_sft(sets, raw, **options, seed=seed, report=self.preparation, name="train_dataset")
        self.notes += ["preparation of train_dataset", *(f"  {line}" for line in str(self.preparation).splitlines())]
        return {"train_dataset": prepared, **rows}

    def _options(self, values: dict[str, Any]) -> dict[str, Any]:
        """Arguments of `prepare_sft`, with a function for its name."""
        quality = values.get("quality")
        if isinstance(quality, str) and ":" in quality:
            return {**values, "quality": read_function(quality, self.recipe.where("prepare.quality"))}
        return values

    def execute(self, inputs: Inputs, progress: Progress) -> None:
        """Save the preparation's report, then train, evaluate and save.

        Raises:
            UserError: The rows are others than those that the run began with; and as `Run.execute`.
            KeyboardInterrupt: After Ctrl-C; during training a checkpoint is saved first.
        """
        if self.preparation is not None:
            path = Path(self.args.output_dir, SFT_REPORT)
            if inputs.checkpoint is not None:
                self._check_same(path, self.preparation)
            if self.args.should_save:
                self.preparation.save(path)
                self.preparation.save(path.with_suffix(".md"))
                progress.line(f"rows dropped and why: {path}")
        super().execute(inputs, progress)

    def _check_same(self, path: Path, preparation: SFTReport) -> None:
        """Refuse to go on with other rows than those that the run began with."""
        if path.exists() and json.loads(path.read_text(encoding="utf-8"))["fingerprint"] != preparation.fingerprint:
            raise UserError(
                f"{self.recipe.where('train_dataset')}: these are other rows than the run began with; "
                f"resume with its data and its options of prepare (in {path}), or begin in another output_dir"
            )
