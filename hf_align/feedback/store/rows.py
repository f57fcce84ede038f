"""Records of the store as rows of its tables, and back."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping

from hf_align.feedback.records import Annotator, Answer, Lease, Prompt, Response, Task


def prompt_row(prompt: Prompt) -> dict[str, Any]:
    """Row of a prompt."""
    fields = {"content": prompt.content, "pool": prompt.pool, "domain": prompt.domain, "columns": dict(prompt.columns)}
    return {"id": prompt.id, **fields}


def response_row(response: Response) -> dict[str, Any]:
    """Row of a response."""
    fields = {"prompt_id": response.prompt_id, "content": response.content, "source": response.source}
    return {"id": response.id, **fields, "settings": dict(response.settings)}


TASK = ("prompt_id", "first_id", "second_id", "wanted", "gold", "domain", "strategy", "priority")


def task_row(task: Task) -> dict[str, Any]:
    """Row of a task."""
    return {"id": task.id, **{name: getattr(task, name) for name in TASK}, "choice": dict(task.choice)}


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
    fields = {name: row[name] for name in ("name", "kind", "group", "right", "wrong")}
    return Annotator(**fields, domains=tuple(row["domains"]))


def read_lease(row: RowMapping, task: Task) -> Lease:
    """Lease of a row and its task."""
    return Lease(row["id"], task, row["annotator"], row["left"], row["leased_at"], row["expires_at"])


def read_answer(row: RowMapping) -> Answer:
    """Answer of a row."""
    names = "id task_id annotator kind preference left confidence reason shown_at answered_at attempt lease_id details"
    return Answer(**{name: row[name] for name in names.split()})
