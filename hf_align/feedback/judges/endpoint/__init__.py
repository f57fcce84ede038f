"""Models behind an endpoint that speaks the OpenAI interface: a client that asks nothing twice, and a judge."""

from typing import TYPE_CHECKING

from hf_align.lazy import lazy_names

if TYPE_CHECKING:
    from hf_align.feedback.judges.endpoint.client import EndpointClient
    from hf_align.feedback.judges.endpoint.completion import ChatRequest, Completion
    from hf_align.feedback.judges.endpoint.judge import EndpointJudge
    from hf_align.feedback.judges.endpoint.retries import Retries
    from hf_align.feedback.judges.endpoint.usage import Prices, Usage

__all__ = ["ChatRequest", "Completion", "EndpointClient", "EndpointJudge", "Prices", "Retries", "Usage"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "client": ("EndpointClient",),
        "completion": ("ChatRequest", "Completion"),
        "judge": ("EndpointJudge",),
        "retries": ("Retries",),
        "usage": ("Prices", "Usage"),
    },
)
