"""The table of commands: names, help texts, flags and functions.

Imports nothing heavy, so that `--help` and flag errors are immediate. A new command is a `Command` in the file of its
group, with a function that adds its flags, and an entry of `OTHERS`.
"""

from hf_align.cli.command import Command
from hf_align.cli.table.data import CONVERT, INSPECT, SCORE
from hf_align.cli.table.evaluating import EVALUATE
from hf_align.cli.table.feedback import ANNOTATE, COLLECT, CONSTITUTION, EXPORT
from hf_align.cli.table.hub import PUSH
from hf_align.cli.table.runs import BENCHMARK, PLAN, RUNS, SELECT
from hf_align.cli.table.start import ALGORITHMS_LIST, COMPLETION, DOCTOR, QUICKSTART
from hf_align.cli.table.training import HYBRID, IMPROVE, SWEEP, training_commands

OTHERS = (
    EVALUATE,
    CONVERT,
    INSPECT,
    SCORE,
    COLLECT,
    CONSTITUTION,
    IMPROVE,
    HYBRID,
    BENCHMARK,
    ANNOTATE,
    EXPORT,
    SWEEP,
    SELECT,
    RUNS,
    PLAN,
    PUSH,
    ALGORITHMS_LIST,
    DOCTOR,
    COMPLETION,
)

TRAINING = training_commands(taken={command.name for command in (QUICKSTART, *OTHERS)})
COMMANDS: tuple[Command, ...] = (QUICKSTART, *TRAINING, *OTHERS)
