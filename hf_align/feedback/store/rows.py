"""Records of the store as rows of its tables, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from sqlalchemy import Connection, RowMapping, Table, select

from hf_align.errors import UserError
from hf_align.feedback.records import Annotator, AnnotatorKind, Answer, Lease, Prompt, Response, Task
from hf_align.feedback.store.checks import check_id, check_json, check_name, check_number, check_share, check_wanted

TASK = ("prompt_id", "first_id", "second_id", "wanted", "gold", "domain", "strategy", "priority")
RECORD = ("kind", "group", "right", "wrong")


def prompt_row(prompt: Prompt) -> dict[str, Any]:
    """Row of a prompt.

    Raises:
        UserError: A field can't be stored.
    """
    content = check_json("content of a prompt", prompt.content)
    fields = {"pool": check_name("pool of a prompt", prompt.pool), "domain": _domain("prompt", prompt.domain)}
    return {"id": prompt.id, "content": content, **fields, "columns": _mapping("columns of a prompt", prompt.columns)}


def response_row(response: Response) -> dict[str, Any]:
    """Row of a response.

    Raises:
        UserError: A field can't be stored.
    """
    fields = {"prompt_id": check_id("prompt_id of a response", response.prompt_id)}
    fields["content"] = check_json("content of a response", response.content)
    fields["source"] = check_name("source of a response", response.source)
    return {"id": response.id, **fields, "settings": _mapping("settings of a response", response.settings)}


def task_row(task: Task) -> dict[str, Any]:
    """Row of a task.

    Raises:
        UserError: A field can't be stored, or the responses aren't in the order of their ids.
    """
    for name in ("prompt_id", "first_id", "second_id"):
        check_id(f"{name} of a task", getattr(task, name))
    if task.first_id >= task.second_id:
        raise UserError("first_id and second_id of a task are the same or out of order; make it with Task.of")
    checked = {
        "wanted": check_wanted(task.wanted),
        "gold": check_share("gold of a task", task.gold),
        "domain": _domain("task", task.domain),
        "strategy": check_name("strategy of a task", task.strategy),
        "priority": check_number("priority of a task", task.priority),
        "choice": _mapping("choice of a task", task.choice),
    }
    return {"id": task.id, **{name: getattr(task, name) for name in TASK}, **checked}


def annotator_row(annotator: Annotator) -> dict[str, Any]:
    """Row of an annotator.

    Raises:
        UserError: A field can't be stored.
    """
    kinds = get_args(AnnotatorKind)
    if annotator.kind not in kinds:
        raise UserError(f"kind of annotator {annotator.name!r} is {annotator.kind!r}; give {', '.join(kinds)}")
    if isinstance(annotator.domains, str):
        raise UserError(f"domains of annotator {annotator.name!r} is text; give a tuple of names")
    return {
        "name": check_name("name of an annotator", annotator.name),
        "kind": annotator.kind,
        "group": None if annotator.group is None else check_name("group of an annotator", annotator.group),
        "domains": [check_name("a domain of an annotator", domain) for domain in annotator.domains],
        "right": check_number("right of an annotator", annotator.right, at_least=0),
        "wrong": check_number("wrong of an annotator", annotator.wrong, at_least=0),
    }


def _domain(of: str, domain: str | None) -> str | None:
    return None if domain is None else check_name(f"domain of a {of}", domain)


def _mapping(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{name} is {value!r}; give a mapping")
    return check_json(name, dict(value))


def read_prompt(row: RowMapping) -> Prompt:
    """Prompt of a row."""
    return Prompt(row["content"], row["pool"], row["domain"], row["columns"])


def read_response(row: RowMapping) -> Response:
    """Response of a row."""
    return Response(row["prompt_id"], row["content"], row["source"], row["settings"])


def read_task(row: RowMapping) -> Task:
    """Task of a row."""
    return Task(**{name: row[name] for name in (*TASK, "choice")})


def read_annotator(row: RowMapping) -> Annotator:
    """Annotator of a row."""
    return Annotator(row["name"], **{name: row[name] for name in RECORD}, domains=tuple(row["domains"]))


def read_lease(row: RowMapping, task: Task) -> Lease:
    """Lease of a row and its task."""
    return Lease(row["id"], task, row["annotator"], row["left"], row["leased_at"], row["expires_at"])


def read_answer(row: RowMapping) -> Answer:
    """Answer of a row."""
    names = "id task_id annotator kind preference left confidence reason shown_at answered_at attempt lease_id details"
    return Answer(**{name: row[name] for name in names.split()})


def find_row(connection: Connection, table: Table, id: str) -> RowMapping:
    """The row of an id.

    Raises:
        UserError: The table has none.
    """
    row = connection.execute(select(table).where(table.c.id == id)).mappings().first()
    if row is None:
        raise UserError(f"the store has no {table.name.removesuffix('s')} {id!r}")
    return row
