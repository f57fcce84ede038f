"""`hf-align algorithms`: the algorithms, as a table or as JSON."""

import argparse

from hf_align.algorithms import ALGORITHMS
from hf_align.cli.console import Screen, print_json
from hf_align.errors import UserError

TRAINED = {"policy": "policy", "reward": "reward model"}


def run_algorithms(options: argparse.Namespace) -> None:
    """List the algorithms; one that can't be imported is listed with the reason.

    Args:
        options: Parsed arguments: `json`.
    """
    listed = []
    for name in ALGORITHMS:
        try:
            algorithm = ALGORITHMS[name]
            shown = {key: getattr(algorithm, key) for key in ("name", "summary", "rows", "trains", "prefix")}
            listed.append({**shown, "columns": list(algorithm.columns), "needs": list(algorithm.needs)})
        except UserError as error:
            listed.append({"name": name, "error": str(error)})
    if options.json:
        print_json(listed)
        return
    screen = Screen()
    for each in listed:
        screen.line(f"{each['name']:<12}{each.get('error') or each['summary']}", "yellow" if "error" in each else "")
        if "error" not in each:
            needs = ", ".join(each["needs"]) or "no other model"
            rows = f"reads {each['rows']} ({', '.join(each['columns'])})"
            screen.line(f"{'':<12}{rows}; trains a {TRAINED[each['trains']]}; needs {needs}", "dim")
