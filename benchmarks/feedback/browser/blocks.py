"""Blocks of sessions on one store and server, kept when they are done, and the sum of their figures."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import select

from benchmarks.feedback.browser.exported import compare_export
from benchmarks.feedback.browser.ledger import Entry, Ledger, compare, read_store
from benchmarks.feedback.browser.server import LOG, PageServer
from benchmarks.feedback.browser.session import ACTIONS, Session
from benchmarks.feedback.browser.tab import open_browser
from benchmarks.feedback.browser.tasks import Question, fill
from hf_align.feedback import PreferenceStore
from hf_align.feedback.store.connection import reading
from hf_align.feedback.store.schema import leases
from hf_align.files import write_json

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BLOCK = 10
TASKS, GOLD = 200, 10
DONE = "block.json"
TIMES = ("durable", "after_restart", "moved")


def run_blocks(work: Path, sessions: int) -> list[Path]:
    """Run the blocks that `work` lacks and return the folders of all."""
    folders = [work / f"block-{start:03}" for start in range(0, sessions, BLOCK)]
    for start, folder in enumerate(folders):
        if not (folder / DONE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            with open_browser() as browser:
                run_block(browser, folder, range(start * BLOCK, (start + 1) * BLOCK))
            print(f"{folder.name} is done, {time.strftime('%H:%M:%S')}", flush=True)
    return folders


def run_block(browser: Browser, folder: Path, numbers: Sequence[int], actions: int = ACTIONS) -> None:
    """Run sessions on a new store in `folder`, and write what people did and saw beside it."""
    ledger, reports = Ledger(), []
    with PageServer(folder) as server:
        questions = fill(server.store, TASKS, gold=GOLD, seed=numbers[0])
        contexts = [browser.new_context() for _ in range(2)]
        for number in numbers:
            reports.append(Session(contexts, server, questions, ledger, number).run(actions))
        record = {
            "sessions": len(numbers),
            "questions": questions,
            "entries": ledger.entries,
            "clicks": dict(ledger.clicks),
            "reports": [vars(report) for report in reports],
            "starts": server.starts,
            "browser": browser.version,
        }
        for context in contexts:
            context.close()
        server.kill()
        write_json(folder / DONE, record)


def judge_block(folder: Path) -> dict[str, Any]:
    """Compare a block's store and its export with what people did; figures of the block."""
    record = json.loads((folder / DONE).read_text(encoding="utf-8"))
    entries = {person: [Entry(*each) for each in events] for person, events in record["entries"].items()}
    questions = [Question(*each) for each in record["questions"]]
    store = PreferenceStore(f"sqlite:///{folder / 'prefs.db'}")
    differences = asdict(compare(entries, read_store(store, {each.id: n for n, each in enumerate(questions)})))
    examples = differences.pop("examples")
    export = {f"export_{kind}": count for kind, count in compare_export(store, entries, questions).items()}
    with reading(store.engine) as connection:
        left = list(connection.scalars(select(leases.c.left)))
    store.close()
    reports = record["reports"]
    return {
        **{name: record[name] for name in ("sessions", "starts", "browser", "clicks")},
        "events": sum(map(len, entries.values())),
        "differences": differences | export,
        "examples": examples,
        "actions": dict(sum((Counter(report["actions"]) for report in reports), Counter())),
        **{name: [each for report in reports for each in report[name]] for name in (*TIMES, "stuck")},
        "showings": len(left),
        "first_on_the_left": left.count("first"),
        "server_errors": (folder / LOG).read_text(encoding="utf-8").count("Traceback (most recent call last)"),
    }


def sum_up(blocks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures over all blocks."""
    total = {name: sum(block[name] for block in blocks) for name in ("sessions", "events", "showings", "server_errors")}
    counted = {name: dict(sum((Counter(block[name]) for block in blocks), Counter())) for name in ("clicks", "actions")}
    differences = {kind: sum(block["differences"][kind] for block in blocks) for kind in blocks[0]["differences"]}
    durable = [each for block in blocks for each in block["durable"]]
    return {
        **total,
        "differences": differences,
        "examples": [each for block in blocks for each in block["examples"]],
        "stuck": [each for block in blocks for each in block["stuck"]],
        "server_starts": sum(block["starts"] for block in blocks),
        **counted,
        "left_share": round(sum(block["first_on_the_left"] for block in blocks) / total["showings"], 4),
        "durable_ms": spread(durable),
        "durable_after_restart_ms": spread([each for block in blocks for each in block["after_restart"]]),
        "durable_below_200_ms": round(float(np.mean(np.array(durable) < 200)), 4),
        "moved_ms": spread([each for block in blocks for each in block["moved"]]),
        "browser": blocks[0]["browser"],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Number, median, high quantiles and maximum."""
    points = {"median": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    quantiles = {name: round(float(np.quantile(values, point)), 1) for name, point in points.items() if values}
    return {"count": len(values), **quantiles}
