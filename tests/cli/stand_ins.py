"""What a command may do, as functions that a `Command` names: fail in each way that `main` knows, or take notes."""

from __future__ import annotations

import argparse
import errno

from hf_align.errors import Interrupted, UserError

SEEN: list[argparse.Namespace] = []


def take_notes(options: argparse.Namespace) -> None:
    SEEN.append(options)


def refuse(options: argparse.Namespace) -> None:
    raise UserError("first\n  second")


def be_interrupted(options: argparse.Namespace) -> None:
    raise Interrupted("Resume with: hf-align quickstart --resume")


def fill_the_disk(options: argparse.Namespace) -> None:
    raise RuntimeError("Error while serializing") from OSError(errno.ENOSPC, "No space left on device")


def have_a_bug(options: argparse.Namespace) -> None:
    raise ZeroDivisionError
