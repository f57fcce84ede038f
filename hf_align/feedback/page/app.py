"""The page: Gradio's components around a `Desk`."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from hf_align.errors import UserError
from hf_align.feedback.page.identity import identify
from hf_align.feedback.page.view import Action, Desk, View, describe, draw_message, draw_notice

try:
    import gradio as gr
    from gradio.themes import Default
except ModuleNotFoundError as error:
    if error.name != "gradio":
        raise
    raise UserError("the page needs Gradio: pip install 'hf-align[annotate]'") from None

TITLE = "Which response is better?"
CONFIDENCE = [("guess", 0.2), ("unsure", 0.4), ("fairly sure", 0.6), ("sure", 0.8), ("certain", 1.0)]
HERE = Path(__file__).parent
HEAD = f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>"
CSS = (HERE / "page.css").read_text(encoding="utf-8")
# Fonts of the machine: Gradio's own would be fetched from another host.
THEME = Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
# What the buttons belong to is read from the screen at the moment of the click.
_FROM_SCREEN = "(showing, ...rest) => [window.hfAlignShowing(), ...rest]"
logger = logging.getLogger(__name__)


def build(desk: Desk, *, default: str | None, login: bool) -> gr.Blocks:
    """The page's components and what they do.

    The ids in the page: prompt, left, right, choose-left, choose-right, tie, skip, undo, confidence, reason, progress,
    message.

    Args:
        desk: Takes what people do to the store.
        default: Name of a person who neither is logged in nor gives a name in the address.
        login: Whether people log in.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        progress = gr.HTML(elem_id="progress")
        task = gr.HTML(elem_id="task")
        with gr.Row(elem_classes="choices"):
            left = gr.Button(
                "Left is better", elem_id="choose-left", interactive=False, variant="primary", min_width=90
            )
            tie = gr.Button("Tie", elem_id="tie", interactive=False, min_width=70)
            right = gr.Button(
                "Right is better", elem_id="choose-right", interactive=False, variant="primary", min_width=90
            )
        message = gr.HTML(elem_id="message")
        with gr.Row(elem_classes="more"):
            confidence = gr.Radio(
                CONFIDENCE, label="How sure are you? (optional)", elem_id="confidence", scale=3, min_width=300
            )
            skip = gr.Button("Skip", elem_id="skip", interactive=False, size="sm", min_width=70)
            undo = gr.Button("Undo", elem_id="undo", size="sm", min_width=70)
        reason = gr.Textbox(label="Why? (optional)", elem_id="reason", lines=2, max_lines=6)
        showing = gr.Textbox(visible="hidden", elem_id="showing")

        def render(view: View) -> dict[Any, Any]:
            some = gr.update(interactive=bool(view.showing))
            shown = {task: view.task, progress: view.progress, message: _line(view.message)}
            empty = {confidence: None, reason: ""} if view.clear else {}
            return {**shown, **empty, **dict.fromkeys((left, tie, right, skip), some)}

        def acting(act: Callable[[str, gr.Request], View]) -> Callable[[gr.Request], dict[Any, Any]]:
            def run(request: gr.Request) -> dict[Any, Any]:
                who = identify(request.username, request.query_params.get("annotator"), default, login=login)
                return render(act(who, request))

            return run

        def answering(action: Action) -> Callable[..., dict[Any, Any]]:
            def run(shown: str, sure: float | None, why: str | None, request: gr.Request) -> dict[Any, Any]:
                def act(who: str, request: gr.Request) -> View:
                    details = {"user_agent": request.headers.get("user-agent", "")[:300]}
                    return desk.answer(who, shown, action, confidence=sure, reason=why, details=details)

                return _in_words(
                    lambda: acting(act)(request), lambda text: {message: _line(draw_message(text, bad=True))}
                )

            return run

        def take_back(shown: str, request: gr.Request) -> dict[Any, Any]:
            run = acting(lambda who, request: desk.undo(who, shown))
            return _in_words(lambda: run(request), lambda text: {message: _line(draw_message(text, bad=True))})

        def load(request: gr.Request) -> dict[Any, Any]:
            run = acting(lambda who, request: desk.show(who))
            return _in_words(lambda: run(request), lambda text: {task: draw_notice(text)})

        outputs = [task, progress, message, confidence, reason, left, tie, right, skip]
        # One POST each, not the queue: what was sent is done even if the page is closed meanwhile.
        how: dict[str, Any] = {
            **{"queue": False, "show_progress": "hidden", "api_visibility": "private", "trigger_mode": "once"},
            "outputs": outputs,
        }
        buttons: dict[Action, gr.Button] = {"left": left, "right": right, "tie": tie, "skip": skip}
        for action, button in buttons.items():
            button.click(answering(action), [showing, confidence, reason], js=_FROM_SCREEN, **how)
        undo.click(take_back, [showing], js=_FROM_SCREEN, **how)
        page.load(load, None, **how)
    return page


def _line(message: str) -> str:
    """A message that differs from the last, so that the browser draws it over its own "Saving"."""
    return f'<div data-turn="{uuid.uuid4().hex}">{message}</div>'


def _in_words(run: Callable[[], dict[Any, Any]], tell: Callable[[str], dict[Any, Any]]) -> dict[Any, Any]:
    """What `run` returns; an error that a person can understand is told instead, and nothing else changes."""
    try:
        return run()
    except UserError as error:
        return tell(describe(error))
    except SQLAlchemyError as error:
        logger.exception("The store failed")
        return tell(describe(error))
