"""`hf-align evaluate policy`: the report on policies, in the terminal, as JSON and as one page."""

import argparse
from typing import Any

from hf_align.cli.console import Screen, quiet_libraries
from hf_align.cli.report_files import EVALUATION_SPLITS, check_files, first_rows, show_report, write_file
from hf_align.collators.checks import as_dataset
from hf_align.data.embedded.rows import make_prompts
from hf_align.data.layouts.recognition import prompt_rows
from hf_align.data.sources import EMBEDDED, load_named
from hf_align.errors import UserError
from hf_align.evaluation import front_of_policies, policy_report
from hf_align.evaluation.fronts import FILES as FRONT_FILES
from hf_align.experiments.judges import judges_of_report
from hf_align.report.shown import check_suffix
from hf_align.rewards.vader import VADER
from hf_align.tracking.facts import command_line


def run_policy(options: argparse.Namespace) -> None:
    """Sample policies on the same prompts and print the report.

    Args:
        options: Parsed arguments; see `hf-align evaluate policy --help`.

    Raises:
        UserError: A model, the data, the judge or a file can't be used.
    """
    screen = Screen(stderr=options.json == "-")
    check_files(options, ("report", "json", "front"))
    names = options.judge or [VADER]
    if options.front is not None:
        check_suffix(options.front, "front", FRONT_FILES)
        if len(names) < 2 or len({*options.model, *filter(None, [options.reference])}) < 2:
            raise UserError(
                "front: draws policies by several judges; name at least two of each, by --model and --judge"
            )
    with quiet_libraries(screen):
        judges = judges_of_report(names)
        if options.data == EMBEDDED:
            rows = make_prompts("test", options.limit, options.seed)
        else:
            data = prompt_rows(load_named(options.data, "data", EVALUATION_SPLITS), "data")
            rows = first_rows(as_dataset(data, "data", ("prompt",)), options.limit)
        report = policy_report(
            options.model,
            rows,
            judge=judges,
            reference=options.reference,
            human_text=_human_text(options.human_text),
            human_texts=options.human_texts,
            max_new_tokens=options.max_new_tokens,
            batch_size=options.batch_size,
            quantization=options.quantization,
            resamples=options.resamples,
            seed=options.seed,
            progress=screen,
        )
    report.facts |= {"data": options.data, "command": command_line(["hf-align", *options.arguments])}
    settings = {"data": options.data, "judge": names[0], "seed": options.seed}
    show_report(report, options, screen, {**settings, **report.to_json()})
    if options.front is not None:
        labels = report.facts["labels"]
        scores = {
            judge: {labels[name]: each for name, each in of_policy.items()}
            for judge, of_policy in report.scores.items()
        }
        write_file(front_of_policies(scores).save, options.front, "front", screen)


def _human_text(source: str | None) -> Any:
    if source is None:
        return None
    return as_dataset(load_named(source, "human_text", EVALUATION_SPLITS), "human_text", ("text",))["text"][:]
