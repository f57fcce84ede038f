"""`hf-align score`: scores of a data set, or the best of N samples."""

import argparse
from collections.abc import Mapping
from typing import Any

from hf_align.cli.console import Screen, print_json, quiet_libraries, write_figures
from hf_align.cli.report_files import check_files
from hf_align.errors import Interrupted, UserError
from hf_align.evaluation.best_of_samples import Sampling
from hf_align.experiments.judges import read_judge
from hf_align.experiments.scoring import best_of_file, partial_folder, score_file

SAMPLING = ("max_new_tokens", "temperature", "top_p", "batch_size", "seed")
"""Flags that go to `Sampling` where they are given."""
COMMON = ("split", "limit", "overwrite", "max_length", "output", "chat_template", "quantization")
OF_SAMPLES, OF_SCORES = ("policy", "judge", "keep", "finished_only", *SAMPLING), ("column", "labels", "uncertainty")
"""Flags that need, and that exclude, --best-of."""


def run_score(options: argparse.Namespace) -> None:
    """Score a data set, or sample and keep the best, and print what was done.

    Args:
        options: Parsed arguments of the command; see `hf-align score --help`.

    Raises:
        UserError: The flags don't go together, or a model, the rows or OUT can't be used.
        Interrupted: Ctrl-C.
    """
    screen = Screen(stderr=options.json == "-")
    check_files(options, ("json",))
    given = {name for name in (*OF_SAMPLES, *OF_SCORES) if getattr(options, name) not in (None, False)}
    wrong = given & set(OF_SAMPLES if options.best_of is None else OF_SCORES)
    for name in sorted(wrong):
        raise UserError(f"{name} goes {'with' if options.best_of is None else 'without'} --best-of N")
    if options.best_of is not None and options.policy is None:
        raise UserError("best_of needs --policy P, the model to sample from")
    common = {name: getattr(options, name) for name in COMMON}
    try:
        with quiet_libraries(screen):
            model = _scored_by(options)
            if options.best_of is None:
                extra = {name: getattr(options, name) for name in OF_SCORES if name in given}
                figures = score_file(model, options.source, options.target, progress=screen, **common, **extra)
            else:
                sampling = {name: getattr(options, name) for name in SAMPLING if getattr(options, name) is not None}
                figures = best_of_file(
                    options.policy,
                    model,
                    options.source,
                    options.target,
                    Sampling(options.best_of, **sampling),
                    keep=options.keep or "best",
                    finished_only=options.finished_only,
                    progress=screen,
                    **common,
                )
    except KeyboardInterrupt:
        if not any(partial_folder(options.target).glob("*.json")):
            raise Interrupted("Nothing was scored yet; the same command starts again.") from None
        folder = partial_folder(options.target)
        raise Interrupted(f"The same command goes on from {folder}; delete that folder to start again.") from None
    if options.json == "-":
        print_json(figures)
        return
    for line in (scored_lines if options.best_of is None else sampled_lines)(figures):
        screen.line(line)
    if options.json is not None:
        write_figures(figures, options.json, screen)


def _scored_by(options: argparse.Namespace) -> Any:
    """The reward model's name, or a judge, which is loaded later."""
    if options.model is not None and options.judge is not None:
        raise UserError("judge and model are both given; score by one of them")
    if options.judge is not None:
        return read_judge(options.judge)
    if options.model is None:
        by_judge = "" if options.best_of is None else ", or a judge by --judge"
        raise UserError(f"model is missing; name a reward model by --model{by_judge}")
    return options.model


def scored_lines(figures: Mapping[str, Any]) -> list[str]:
    """What was scored, in lines for the terminal."""
    lines = [
        f"{figures['responses']} responses in {figures['rows']} rows of {' + '.join(figures['columns'])}: "
        f"mean score {figures['mean']:.3f}, sd {figures['std']:.3f}, {figures['min']:.3f} to {figures['max']:.3f}"
    ]
    if "agreement" in figures:
        lines.append(f"the chosen response scores higher in {figures['agreement']:.1%} of the pairs (equal: half)")
    if figures["prompts_cut"] or figures["responses_cut"]:
        lines.append(
            f"longer than {figures['max_length']} tokens: {figures['prompts_cut']} responses lost the beginning of "
            f"their prompt, {figures['responses_cut']} their own end"
        )
    if figures["unfinished"]:
        lines.append(f"{figures['unfinished']} responses are not finished, so they were scored without an end")
    return [*lines, *_last_lines(figures)]


def sampled_lines(figures: Mapping[str, Any]) -> list[str]:
    """What was sampled and kept, in lines for the terminal."""
    lines = [
        f"{figures['samples']} samples to {figures['prompts']} prompts: mean score {figures['mean']:.3f}, of the best "
        f"of each prompt {figures['mean_best']:.3f}; {figures['cut']} cut at {figures['max_new_tokens']} tokens, "
        f"{figures['empty']} empty",
    ]
    if figures["without_usable_sample"]:
        lines.append(f"left out: {figures['without_usable_sample']} prompts without a usable sample")
    if figures["alike"]:
        lines.append(f"left out: {figures['alike']} prompts whose samples are alike")
    if figures["kept_cut"]:
        lines.append(
            f"{figures['kept_cut']} of the {figures['rows']} rows hold a cut response: training on it teaches to stop "
            "there; raise --max-new-tokens or add --finished-only"
        )
    if figures["undecided"] and "judge" in figures:
        lines.append(
            f"{figures['judge']} prefers none of the samples of {figures['undecided']} prompts: all of theirs tie"
        )
    return [*lines, *_last_lines(figures)]


def _last_lines(figures: Mapping[str, Any]) -> list[str]:
    found = f", {figures['parts_found']} blocks from an earlier run" if figures["parts_found"] else ""
    if "judge" in figures:
        how = f"score: mean preference over the prompt's other samples, by {figures['judge']}"
    else:
        output = "" if figures["output"] == "its only output" else f"; score: {figures['output']}"
        how = f"template: {figures['template']}{output}"
    return [
        how,
        f"{figures['rows']} rows in {figures['out']} ({figures['seconds']:.0f} s{found})",
    ]
