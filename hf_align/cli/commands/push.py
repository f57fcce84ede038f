"""`hf-align push`: a saved model to the Hub."""

import argparse
from functools import partial

import torch

from hf_align.cli.console import Screen, quiet_libraries
from hf_align.errors import UserError
from hf_align.hub import push_model
from hf_align.models.merging import push_merged


def run_push(options: argparse.Namespace) -> None:
    """Push a model folder.

    Args:
        options: Parsed arguments: `folder`, `repo`, `merge`, `dtype`, `base_model`, `private`, `license`, `revision`
            and `message`.

    Raises:
        UserError: The folder holds no model, its base model is not on the Hub, or the Hub or the connection fails.
    """
    screen = Screen()
    with quiet_libraries(screen):
        if options.dtype is not None and not options.merge:
            raise UserError("--dtype is for merged weights; add --merge or leave it out")
        screen.line(f"pushing {options.folder}{', merged' if options.merge else ''}")
        dtype = None if options.dtype is None else getattr(torch, options.dtype)
        push = partial(push_merged, dtype=dtype) if options.merge else push_model
        pushed = push(
            options.folder,
            options.repo,
            base_model=options.base_model,
            private=options.private,
            license=options.license,
            revision=options.revision,
            commit_message=options.message,
        )
    for part in pushed.left_out:
        screen.line(f"   left out: {part}", "yellow")
    screen.line(f"pushed to {pushed.url}")
