"""`hf-align benchmark`: the runs of a grid, or what they would be."""

import argparse
import shlex

from hf_align.cli.console import Screen, print_json, quiet_libraries, write_figures
from hf_align.cli.report_files import check_files
from hf_align.errors import Interrupted, UserError
from hf_align.evaluation.grid import PAGE
from hf_align.experiments.benchmark.data import TrainingData
from hf_align.experiments.benchmark.grid import DataEntry
from hf_align.experiments.benchmark.planned import Benchmark
from hf_align.experiments.benchmark.prepare import prepare_benchmark, run_of
from hf_align.experiments.benchmark.run import execute_benchmark, read_benchmark
from hf_align.experiments.benchmark.trainings import Trainings
from hf_align.experiments.recipe import read_recipe
from hf_align.planning.device import shown_size
from hf_align.planning.run import plan_run

WIDTH = 28
"""Width of the names before a dry run's figures."""
FAILED = 1
"""Exit status where a run failed."""


def run_benchmark_command(options: argparse.Namespace) -> None:
    """Do the runs that aren't finished, or list them, or only write the page.

    Args:
        options: Parsed arguments: `config` (the grid's path or None), `fields` (the other flags), `workers`, `dry_run`,
            `report_only`, `json` and `arguments` (the whole command line, for the hint after Ctrl-C).

    Raises:
        UserError: The grid can't be used, or its folder holds other runs.
        Interrupted: Ctrl-C.
        SystemExit: With status 1, where a run failed.
    """
    screen = Screen(stderr=options.json == "-")
    check_files(options, ("json",))
    if options.dry_run and options.report_only:
        raise UserError("--dry-run and --report-only exclude each other; give one of them")
    recipe = read_recipe(options.config, options.fields)
    with quiet_libraries(screen):
        benchmark = prepare_benchmark(recipe)
        if options.dry_run:
            for name, text in plan_lines(benchmark):
                screen.field(name, text, WIDTH)
            screen.line("Nothing was trained; the same command without --dry-run trains.")
            return
        try:
            if options.report_only:
                benchmark.check_runs()  # or the page would say that they had this grid's
                results, failures = read_benchmark(benchmark), dict[str, str]()
            else:
                results, failures = execute_benchmark(benchmark, options.workers, screen)
        except KeyboardInterrupt:
            command = f"hf-align {shlex.join(options.arguments)}"
            raise Interrupted(f"What is done is stored; the same command goes on: {command}") from None
    if options.report_only and results is None:
        raise UserError(f"{benchmark.out} has no finished run of an algorithm; run the command without --report-only")
    if options.json == "-" and results is not None:
        print_json(results.to_json())
    elif results is not None:
        screen.line(str(results))
        screen.line(f"The page: {benchmark.out / PAGE}")
        if options.json is not None:
            write_figures(results.to_json(), options.json, screen)
    if failures:
        screen.line(f"{len(failures)} of {len(benchmark.jobs)} runs failed; the same command tries them again:")
        for place, reason in failures.items():
            screen.line(f"   {place}: {reason}", "yellow")
        raise SystemExit(FAILED)


def plan_lines(benchmark: Benchmark) -> list[tuple[str, str]]:
    """The runs with their rows and steps, and the memory that one of each algorithm needs; loads no weights.

    Raises:
        UserError: A run doesn't fit into memory or on disk.
    """
    grid, jobs = benchmark.grid, benchmark.jobs
    finished = sum(job.is_finished(benchmark.out) for job in jobs)
    lines = [
        ("runs", f"{len(jobs)}, of which {finished} are finished"),
        ("held-out prompts", f"{len(benchmark.held_out):,}"),
        ("base", f"{len(grid.config.seed_list)} runs, one for each seed"),
    ]
    memory: dict[str, str] = {}
    for name, data in benchmark.data.items():
        entry = grid.datasets[name]
        lines.append((name, _described(data, entry)))
        if isinstance(entry.reward, dict):
            lines.append((f"{name}/reward", "a reward model, trained on the pairs"))
        for (dataset, label), trainings in benchmark.trainings.items():
            if dataset == name:
                seeds = len(grid.algorithms[label].seeds)
                lines.append((f"{name}/{label}", f"{seeds} run{'s' * (seeds > 1)}; {_lengths(trainings)}"))
                if label not in memory:
                    memory[label] = _memory(benchmark, entry, trainings)
    return [*lines, *((f"memory, {label}", text) for label, text in memory.items() if text)]


def _described(data: TrainingData, entry: DataEntry) -> str:
    """A data set's rows and budget."""
    kinds = ((data.pairs, "pairs"), (data.prompts, "prompts"), (data.probed, "prompts for the KL"))
    counts = [f"{len(rows):,} {what}" for rows, what in kinds if rows is not None]
    counts += [f"{len(data.flipped):,} pairs flipped"] if data.flipped else []
    counts += [f"{data.left_out:,} rows left out, whose prompts are held out"] if data.left_out else []
    limits = ", ".join(f"{limit} {value:g}" for limit, value in entry.budget.limits.items())
    return f"{', '.join(counts)}; budget: {limits}"


def _lengths(trainings: Trainings) -> str:
    """Rows and steps of a run."""
    if not trainings.parts:
        return f"n of {', '.join(map(str, trainings.numbers))}, nothing is trained"
    lengths = [
        f"{part.length.rows:,} rows in {part.length.steps:,} steps" if part.length.rows else "until the budget ends it"
        for part in trainings.parts
    ]
    names = [f"{part.algorithm.name} " * (len(lengths) > 1) for part in trainings.parts]
    return "; ".join(f"{name}{length}" for name, length in zip(names, lengths, strict=True))


def _memory(benchmark: Benchmark, entry: DataEntry, trainings: Trainings) -> str:
    """The memory of a run's largest training."""
    if isinstance(entry.reward, dict) and trainings.needs_reward:
        return "not known before its reward model is trained"
    needed = []
    for part in trainings.parts:
        run, rows = run_of(benchmark.grid, entry, part), benchmark.data[entry.name].rows_for(part.algorithm.rows)
        assert rows is not None
        plan = plan_run(part.algorithm.rows, run.checked.source, run.args, {"train_dataset": rows}, run.lora())
        plan.check()
        needed.append(plan)
    most = max(needed, key=lambda plan: plan.memory, default=None)
    return "" if most is None else f"about {shown_size(most.memory)} with {shown_size(most.free_memory)} free"
