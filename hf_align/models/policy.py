"""A policy for training: log-probabilities of the responses in a batch of branches."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hf_align.branches import Branches
from hf_align.logprobs import response_logps, response_logps_from_head
from hf_align.models.branch_model import BranchModel, forward_replaced


class PolicyModel(BranchModel):
    """Wraps a causal language model (or its PeftModel); `forward(**branches.tensors())` gives log-probs `[N]`."""

    def forward(self, *, full_logits: bool = False, **branches: Any) -> Tensor:
        """Log-probability of every response token.

        Args:
            full_logits: Take them from the model's own `[R, T, vocab]` logits: slow, for checking the other way.
            branches: The fields of a `Branches`.

        Returns:
            `[N]` float32, in the order of `Branches.targets`. Only these N positions go through the LM head, in chunks.
        """
        batch = Branches(**branches)
        if full_logits:
            logits = self.inner_forward(batch).logits.flatten(0, 1)[batch.predictors]
            return logits.float().log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]
        head = self.model.get_output_embeddings()
        original = head.forward
        options = logit_transform(self.model.config)
        result: list[Tensor] = []

        def logps_of(hidden: Tensor) -> Tensor:
            states = hidden.flatten(0, 1)[batch.predictors]
            if type(head) is nn.Linear:
                result.append(response_logps(states, head.weight, batch.targets, bias=head.bias, **options))
            else:  # LoRA on the head, a quantised head: only its own forward knows its weights
                result.append(response_logps_from_head(states, original, batch.targets, **options))
            return hidden.new_zeros(hidden.shape[0], 1, 1)

        with forward_replaced(head, logps_of):
            self.inner_forward(batch)
        return result[0]


def logit_transform(config: Any) -> dict[str, float]:
    """How a model scales or caps its head's output, as options of `response_logps` (Cohere, Granite, Gemma 2)."""
    config = config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0
    scale /= getattr(config, "logits_scaling", None) or 1.0
    options = {"logit_scale": scale} if scale != 1.0 else {}
    softcap = getattr(config, "final_logit_softcapping", None)
    return {**options, "softcap": softcap} if softcap else options
