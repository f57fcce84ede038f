"""`hf-align doctor`: checks of this machine."""

import argparse

from hf_align.cli.console import Screen, quiet_libraries
from hf_align.errors import UserError
from hf_align.planning.machine import findings

WIDTH = 16


def run_doctor(options: argparse.Namespace) -> None:
    """Check everything that training needs.

    Args:
        options: Not used.

    Raises:
        UserError: Something that training needs is missing or broken; the message lists it.
    """
    screen = Screen()
    problems = []
    with quiet_libraries(screen):
        for name, state, problem in findings():
            screen.line(f"{name:<{WIDTH}}{state}", "yellow" if problem else "")
            problems += [problem] if problem else []
    if problems:
        raise UserError(f"{len(problems)} problem{'s' * (len(problems) > 1)}: {'; '.join(problems)}")
    screen.line("no problem found")
