"""`hf-align push`: a saved model or an exported data set to the Hub."""

import argparse
from collections.abc import Callable
from functools import partial

import torch

from hf_align.cli.console import Screen, quiet_libraries
from hf_align.errors import UserError
from hf_align.hub import PushedFolder, is_data_folder, push_dataset, push_model
from hf_align.models.merging import push_merged


def run_push(options: argparse.Namespace) -> None:
    """Push the folder of a model or a data set.

    Args:
        options: Parsed arguments: `folder`, `repo`, `merge`, `dtype`, `base_model`, `private`, `license`, `revision`
            and `message`.

    Raises:
        UserError: The folder holds neither, a model's base is not on the Hub, an option doesn't fit, or the Hub or the
            connection fails.
    """
    screen = Screen()
    with quiet_libraries(screen):
        if options.dtype is not None and not options.merge:
            raise UserError("--dtype is for merged weights; add --merge or leave it out")
        given = {"private": options.private, "license": options.license, "revision": options.revision}
        message = {} if options.message is None else {"commit_message": options.message}
        if is_data_folder(options.folder):
            if options.merge or options.base_model is not None:
                name = "--merge" if options.merge else "--base-model"
                raise UserError(f"{name} is for models, and {options.folder} is a data set; leave it out")
            push: Callable[..., PushedFolder] = push_dataset
        else:
            dtype = None if options.dtype is None else getattr(torch, options.dtype)
            push = partial(push_merged, dtype=dtype) if options.merge else push_model
            given["base_model"] = options.base_model
        screen.line(f"pushing {options.folder}{', merged' if options.merge else ''}")
        pushed = push(options.folder, options.repo, **given, **message)
    for part in pushed.left_out:
        screen.line(f"   left out: {part}", "yellow")
    screen.line(f"pushed to {pushed.url}")
