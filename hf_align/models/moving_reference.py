"""A reference that follows its policy: an average of the policy's weights along training.

Every few steps each weight of the reference becomes

    reference = alpha * policy + (1 - alpha) * reference

(TR-DPO, Gorbatovski et al. 2024; as an exponential moving average for PPO, Xu et al. 2024). With `alpha=1` the
reference becomes the policy of that step, to the bit.

With LoRA the reference is a second adapter on the same base, and what is averaged are the adapters' parameters, A with
A and B with B, not their products: alpha B A + (1 - alpha) B' A' would have a higher rank after each move. The
reference's product is

    (alpha B + (1 - alpha) B') (alpha A + (1 - alpha) A')
        = alpha B A + (1 - alpha) B' A' - alpha (1 - alpha) (B - B') (A - A')

so it differs from the average of the products by the last term, which is of second order in the distance of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hf_align.errors import UserError


class MovingWeights:
    """The weights of a reference that moves, each with its twin in the policy.

    They are kept in float32, as the policy's are: what a step changes is often less than bfloat16 resolves.

    Args:
        reference: The module with the reference's weights. They are changed in place.
        policy: The module with the policy's, which is the same where the reference is another adapter.
        twins: Names of the reference's weights that move, with those of the policy's.
    """

    def __init__(self, reference: nn.Module, policy: nn.Module, twins: Mapping[str, str]):
        self.reference, self.policy, self.twins = reference, policy, dict(twins)
        weights = dict(reference.named_parameters())
        for name in self.twins:
            weights[name].data = weights[name].data.float()

    @classmethod
    def of_models(cls, reference: nn.Module, policy: nn.Module, *, is_copy: bool) -> MovingWeights:
        """Those of a separate reference and a fully trained policy.

        Args:
            reference: A model like the policy's; tied weights count once.
            policy: The policy's model.
            is_copy: The reference is a copy of the policy, so that weights that aren't trained are equal.

        Raises:
            UserError: The models differ in a weight's name or shape, or the reference's is quantised.
        """
        ours, theirs = dict(policy.named_parameters()), dict(reference.named_parameters())
        for name in sorted(ours.keys() | theirs.keys()):
            shapes = [list(each[name].shape) if name in each else "absent" for each in (ours, theirs)]
            if shapes[0] != shapes[1] or not theirs[name].is_floating_point():
                raise UserError(
                    f"sync_ref_model averages ref_model's weights with the model's one by one, and {name} is "
                    f"{shapes[0]} in the model and {shapes[1]}{'' if shapes[0] != shapes[1] else ', quantised,'} in "
                    "ref_model; give a ref_model of the same architecture, or leave it out."
                )
        moving = [name for name, weight in ours.items() if weight.requires_grad or not is_copy]
        return cls(reference, policy, {name: name for name in moving})

    @torch.no_grad()
    def move(self, alpha: float) -> None:
        """Move every weight of the reference by `alpha` of the way to the policy's, in float32 and in place."""
        policy = dict(self.policy.named_parameters())
        for name, weight in self._weights().items():
            twin = policy[self.twins[name]].detach()
            weight.lerp_(twin.to(weight.device, torch.float32), alpha)  # exact for alpha = 1 and for equal weights

    def save(self, file: Path) -> None:
        """Write the moving weights in float32, under their names in the reference."""
        save_file({name: weight.contiguous() for name, weight in self._weights().items()}, file, {"format": "pt"})

    @torch.no_grad()
    def load(self, file: Path) -> None:
        """Take over the weights that `save` wrote.

        Raises:
            UserError: The file is missing, unreadable, or of other weights.
        """
        weights = self._weights()
        try:
            saved = load_file(file)
        except (OSError, SafetensorError) as error:
            raise UserError(f"The reference can't be read from {file}: {error}; resume from another folder.") from None
        if {name: tensor.shape for name, tensor in saved.items()} != {n: w.shape for n, w in weights.items()}:
            raise UserError(
                f"{file} holds the reference of another run: its weights have other names or shapes; resume with the "
                "model and peft_config that it was trained with."
            )
        for name, weight in weights.items():
            weight.copy_(saved[name])

    def _weights(self) -> dict[str, Tensor]:
        """The moving weights by name."""
        weights = dict(self.reference.named_parameters())
        return {name: weights[name].detach() for name in self.twins}
