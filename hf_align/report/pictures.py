"""What the PNGs of matplotlib share, where it is installed."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import Any

BLUE, ORANGE, GREY = "#2f6fb0", "#c4572a", "#666666"


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def new_figure(width: float, height: float, **options: Any) -> Any:
    """An empty figure of so many inches, 120 dots each; `options` are matplotlib's.

    It is none of pyplot's: the program's figures and backend stay untouched.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, **options)


def plain(axes: Any) -> None:
    """Draw axes without a frame, over a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def png_of(figure: Any) -> bytes:
    """The picture, without the time and version that would make it differ from the same one drawn again."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
