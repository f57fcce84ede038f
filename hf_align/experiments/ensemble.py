"""The run of `hf-align ensemble`: several reward models, one after another, as one."""

from pathlib import Path

from datasets import Dataset

from hf_align.data.sources import SPLITS, load_rows
from hf_align.errors import UserError
from hf_align.experiments.run import RESULTS_OF_A_RUN, Inputs, Run, loading_errors
from hf_align.files import ENSEMBLE
from hf_align.progress import Progress
from hf_align.trainers.checkpoints import last_checkpoint
from hf_align.trainers.ensemble import check_end, train_ensemble
from hf_align.trainers.ensemble_config import EnsembleConfig, as_config, members_of
from hf_align.trainers.reward import RewardConfig

REFERENCE = "reference_dataset"


class EnsembleRun(Run):
    """A run that goes on by itself where an earlier one stood, since each member has a record of its settings."""

    args: EnsembleConfig

    def read_data(self) -> dict[str, Dataset]:
        """As `Run.read_data`, and the rows to normalise on, if the recipe names them."""
        if self.checked.source.get("streaming"):
            place = self.recipe.where("streaming")
            raise UserError(
                f"{place}: each member of an ensemble draws from all rows, which a stream can't; leave it out"
            )
        rows = super().read_data()
        if (name := self.args.reference_dataset) is not None:
            splits = (*SPLITS["eval"], *SPLITS["train"])
            rows[REFERENCE] = load_rows(
                name, "eval", self.args.seed, self.algorithm.rows, field=REFERENCE, splits=splits
            )
        return rows

    def find_checkpoint(self) -> None:
        """Refuse a checkpoint by name, and a folder with another run."""
        directory = Path(self.args.output_dir or "")
        if any((directory / name).exists() for name in RESULTS_OF_A_RUN if name != ENSEMBLE):
            raise UserError(
                f"{self.recipe.where('output_dir')}: {directory} already holds a training run; choose another folder"
            )
        if last_checkpoint(directory) is not None:
            raise UserError(
                f"{self.recipe.where('output_dir')}: {directory} holds another training's checkpoints; choose another "
                "folder"
            )
        members_of(self.checked.source["model"], self.args, self.lora())  # what can't be varied is refused here
        check_end(self.args, self.checked.source["eval_dataset"])

    def execute(self, inputs: Inputs, progress: Progress) -> None:
        """Train the members, put them together and save the ensemble.

        Raises:
            UserError: A model can't be loaded, or the folder's members were trained with other settings.
            KeyboardInterrupt: After Ctrl-C; during training a checkpoint is saved first.
        """
        args, source = self.args, self.checked.source
        with loading_errors(source["model"]):
            train_ensemble(
                source["model"],
                as_config(RewardConfig, args),
                inputs.rows["train_dataset"],
                args.n,
                args.bootstrap,
                eval_dataset=inputs.rows.get("eval_dataset"),
                reference=inputs.rows.get(REFERENCE),
                method=args.method,
                weights=args.weights,
                uncertainty_coef=args.uncertainty_coef,
                trim=args.trim,
                vary=args.vary,
                early_stopping_patience=args.early_stopping_patience,
                peft_config=self.lora(),
                quantization_config=source["quantization"],
                progress=progress,
            )
        progress.line(f"saved in {args.output_dir}")

    def after_ctrl_c(self, command: str) -> str:
        """Say that the same command goes on."""
        return f"Finished members are kept; go on with the same command: {command}"
