"""`hf-align annotate`: the page on which people compare responses."""

import argparse

from hf_align.cli.console import Screen
from hf_align.errors import UserError
from hf_align.feedback.page.serve import annotate
from hf_align.feedback.store import open_store
from hf_align.numbers import plural


def run_annotate(options: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C, then say how many answers were stored.

    Args:
        options: Parsed arguments of the command; see `hf-align annotate --help`.

    Raises:
        UserError: There is no such store, a login is missing, or the port is taken.
    """
    if options.users and options.user:
        raise UserError("give either users, a file, or user, whose passwords are made, not both")
    screen = Screen()
    store = open_store(options.store)
    page = annotate(
        store,
        annotator=options.annotator,
        host=options.host,
        port=options.port,
        share=options.share,
        users=options.users or options.user,
        gold_share=options.gold_share,
        inline=False,
    )
    screen.line(f"The page is at {page.share_url or page.url} (Ctrl-C ends it)")
    try:
        page.wait()
    except KeyboardInterrupt:
        page.close()
        screen.line(f"\n{plural(page.stored, 'answer')} stored in {options.store}")
    finally:
        store.close()
