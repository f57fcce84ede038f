"""Log-probs of response tokens without ever holding a `[tokens, vocab]` matrix.

Notation: N response tokens (all rows of a batch, flattened), d hidden size, V vocabulary size, C `chunk_size`.
The LM head is applied to C rows at a time; the backward pass recomputes each chunk's logits, so `[N]` tensors are kept
between the passes, not `[N, V]`: 1,000 tokens over a vocabulary of 150,000 would take 600 MB a copy in fp32, and
autograd keeps several copies.

Two entry points: `response_logps` for a plain linear head (custom gradient, one `[C, V]` fp32 buffer), and
`response_logps_from_head` for any callable (a head with LoRA on it, a quantised head), through checkpointing.

    response_logps               a plain linear head
        _LinearHeadLogps         forward and backward, over
            _Chunks              logits [C, V], C rows at a time, in one buffer
            _forward_chunk_      log-probs, entropy, tensors for the backward pass
            _backward_chunk_     gradient with respect to a chunk's logits, in place
    response_logps_from_head     any callable: checkpoint, a chunk at a time
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

# At 256 rows a CPU's matrix product runs at its full speed (64 rows: 1.4 times slower; 512: no faster), a GPU's has
# enough work per launch, and the buffer stays small: 50 MB for a vocabulary of 49,152, 155 MB for one of 151,936.
DEFAULT_CHUNK_SIZE = 256
# Bytes for all copies of a chunk's logits; a vocabulary of 256,000 is then processed 131 rows at a time.
CHUNK_BUDGET = 128 * 2**20


def chunk_rows(vocab_size: int, *, copies: int = 1) -> int:
    """Rows of logits to hold at a time: `DEFAULT_CHUNK_SIZE`, or as many as fit into `CHUNK_BUDGET` bytes, at least 16.

    Args:
        vocab_size: V.
        copies: float32 tensors `[C, V]` that are held at once.
    """
    return max(16, min(DEFAULT_CHUNK_SIZE, CHUNK_BUDGET // (4 * vocab_size * copies)))


class _Head(NamedTuple):
    """Transform of `hidden @ weight.T + bias` into logits, and the results to compute."""

    scale: float
    softcap: float | None
    temperature: float
    dtype: torch.dtype  # of the matrix products
    chunk_size: int
    entropy: bool
    entropy_grad: bool

    def transform_(self, logits: Tensor) -> Tensor:
        """Turn raw logits `[C, V]` into the softmax's input, in place."""
        if self.scale != 1.0:
            logits.mul_(self.scale)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        if self.temperature != 1.0:
            logits.div_(self.temperature)
        return logits

    def slope(self, logits: Tensor) -> Tensor | float:
        """d(transformed)/d(raw), from the transformed logits; `[C, V]` with a soft-cap, else a number."""
        slope = self.scale / self.temperature
        if self.softcap is None:
            return slope
        # z = c * tanh(u / c) has dz/du = 1 - (z / c)^2
        return (logits * (self.temperature / self.softcap)).square_().neg_().add_(1.0).mul_(slope)


class _Chunks:
    """Iterator over each chunk's transformed logits in one reused fp32 buffer `[C, V]`."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: _Head):
        self.hidden, self.weight, self.bias, self.head = hidden.to(head.dtype), weight.to(head.dtype), bias, head
        self.dtype = torch.promote_types(head.dtype, torch.float32)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        n, size = self.hidden.shape[0], self.head.chunk_size
        buffer = self.hidden.new_empty(min(size, n), self.weight.shape[0], dtype=self.dtype)
        for start in range(0, n, size):
            rows = slice(start, min(start + size, n))
            logits = buffer[: rows.stop - rows.start]
            if self.head.dtype == self.dtype:
                torch.mm(self.hidden[rows], self.weight.t(), out=logits)
            else:
                logits.copy_(self.hidden[rows] @ self.weight.t())
            if self.bias is not None:
                logits.add_(self.bias)
            yield rows, self.head.transform_(logits)


class _ChunkResult(NamedTuple):
    logps: Tensor  # [C]
    lse: Tensor  # [C]
    entropy: Tensor | None  # [C]
    logits_grad: Tensor | None  # d logp / d raw logits, [C, V], in the buffer


def _forward_chunk_(head: _Head, logits: Tensor, targets: Tensor, want_grad: bool) -> _ChunkResult:
    """Results of the forward pass from a chunk's logits `[C, V]`, which are overwritten; targets `[C, 1]`."""
    target_logits = logits.gather(-1, targets)
    slope = head.slope(logits) if want_grad else 1.0
    top = logits.amax(-1, keepdim=True)
    mass = logits.sub_(top).exp_().sum(-1, keepdim=True)
    lse = mass.log().add_(top)
    entropy = grad = None
    if head.entropy or want_grad:
        logits.div_(mass)
    if head.entropy:
        entropy = torch.special.entr(logits).sum(-1)
    if want_grad:
        grad = logits.neg_().scatter_add_(-1, targets, torch.ones_like(mass)).mul_(slope)
    return _ChunkResult(target_logits.sub_(lse).squeeze(-1), lse.squeeze(-1), entropy, grad)


def _backward_chunk_(
    head: _Head,
    logits: Tensor,
    lse: Tensor,
    targets: Tensor,
    grad_logps: Tensor,
    of_entropy: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Turn a chunk's logits `[C, V]` in place into the gradient with respect to the raw logits.

    d logp_t / d z_j = 1[j = t] - p_j and dH / d z_j = -p_j * (log p_j + H).
    All but `logits` are `[C, 1]`; `of_entropy` is (gradient of H, H).
    """
    slope = head.slope(logits)
    logps = logits.sub_(lse)
    if of_entropy is None:
        grad = logps.exp_().mul_(-grad_logps)
    else:
        grad_entropy, entropy = of_entropy
        probs = logps.exp()
        grad = logps.clamp_(min=torch.finfo(logps.dtype).min)  # a logit of -inf: 0 * -inf would be NaN
        grad = grad.add_(entropy).mul_(grad_entropy).add_(grad_logps).mul_(probs).neg_()
    return grad.scatter_add_(-1, targets, grad_logps.to(grad.dtype)).mul_(slope)


class _LinearHeadLogps(torch.autograd.Function):
    """(hidden, weight, bias) -> (logps `[N]`, entropy `[N]` or empty); the backward pass recomputes the logits.

    The exception: only hidden needs a gradient, and only through the logps (a frozen head under LoRA). Each row's
    gradient is then its upstream gradient times d logp / d hidden, which the forward pass can compute. Keeping these
    vectors instead of hidden saves one matrix product in three.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, head: _Head
    ) -> tuple[Tensor, Tensor]:
        frozen = ctx.needs_input_grad[:3] == (True, False, False) and not head.entropy_grad
        with torch.autocast(hidden.device.type, enabled=False):
            chunks = _Chunks(hidden, weight, bias, head)
            slopes = torch.empty_like(chunks.hidden) if frozen else None
            lse = hidden.new_empty(targets.shape, dtype=chunks.dtype)
            logps = torch.empty_like(lse)
            entropy = torch.empty_like(lse if head.entropy else lse[:0])
            for rows, logits in chunks:
                result = _forward_chunk_(head, logits, targets[rows, None], frozen)
                logps[rows], lse[rows] = result.logps, result.lse
                if result.entropy is not None:
                    entropy[rows] = result.entropy
                if slopes is not None and result.logits_grad is not None:
                    slopes[rows] = result.logits_grad.to(head.dtype) @ chunks.weight
        ctx.save_for_backward(*((hidden, weight, bias, targets, lse, entropy) if slopes is None else (slopes,)))
        ctx.head, ctx.frozen, ctx.hidden_dtype = head, frozen, hidden.dtype
        ctx.set_materialize_grads(False)
        if not head.entropy_grad:
            ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_logps, grad_entropy = grad_outputs
        if ctx.frozen:
            (slopes,) = ctx.saved_tensors
            grad_hidden = None if grad_logps is None else (slopes * grad_logps[:, None]).to(ctx.hidden_dtype)
            return grad_hidden, None, None, None, None
        hidden, weight, bias, targets, lse, entropy = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_logps = torch.zeros_like(lse) if grad_logps is None else grad_logps
        with torch.autocast(hidden.device.type, enabled=False):
            chunks = _Chunks(hidden, weight, bias, ctx.head)
            grad_hidden = torch.empty_like(hidden) if needs_hidden else None
            # Sums over many chunks stay fp32: 16-bit sums would drop the small late terms.
            grad_weight = torch.zeros_like(weight, dtype=chunks.dtype) if needs_weight else None
            grad_bias = torch.zeros_like(bias, dtype=chunks.dtype) if needs_bias else None
            for rows, logits in chunks:
                of_entropy = None if grad_entropy is None else (grad_entropy[rows, None], entropy[rows, None])
                columns = lse[rows, None], targets[rows, None], grad_logps[rows, None]
                grad = _backward_chunk_(ctx.head, logits, *columns, of_entropy)
                if grad_bias is not None:
                    grad_bias.add_(grad.sum(0))
                grad = grad.to(ctx.head.dtype)
                if grad_hidden is not None:
                    grad_hidden[rows] = grad @ chunks.weight
                if grad_weight is not None and grad.dtype == grad_weight.dtype:
                    grad_weight.addmm_(grad.t(), chunks.hidden[rows])
                elif grad_weight is not None:  # 16-bit factors
                    grad_weight.add_(grad.t() @ chunks.hidden[rows])
                del grad  # otherwise its 16-bit copy would stay alive beside the next chunk's
        grad_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        grad_bias = None if grad_bias is None or bias is None else grad_bias.to(bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None


@overload
def response_logps(
    hidden: Tensor,
    lm_head_weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    chunk_size: int | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    return_entropy: Literal[False] = False,
) -> Tensor: ...
@overload
def response_logps(
    hidden: Tensor,
    lm_head_weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    chunk_size: int | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    return_entropy: Literal[True],
    entropy_grad: bool = False,
) -> tuple[Tensor, Tensor]: ...
def response_logps(
    hidden: Tensor,
    lm_head_weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    chunk_size: int | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    return_entropy: bool = False,
    entropy_grad: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Log-probability of each target under a linear LM head, in chunks.

    The head's logits are `z = cap(logit_scale * (hidden @ weight.T + bias)) / temperature`, with
    `cap(u) = softcap * tanh(u / softcap)`; the result is `log_softmax(z)[target]`.
    Under autocast the matrix products run in autocast's dtype, otherwise in the weight's; softmax and sums over chunks
    are always fp32 (fp64 when the inputs are). Besides inputs and gradients it holds one `[chunk_size, V]` fp32 buffer,
    a 16-bit copy of it if the products are in 16 bits, and one more each for the entropy and a soft-cap's gradient.
    Gradients are computed for hidden, weight and bias, each only if it requires one; not twice differentiable.

    Args:
        hidden: `[N, d]` hidden states at the positions that predict the targets. N = 0 is fine.
        lm_head_weight: `[V, d]`.
        targets: `[N]` token ids, int64.
        bias: `[V]`, or None.
        temperature: Sampling temperature that the log-probs should refer to; > 0.
        chunk_size: Rows of logits held at a time. Default: `chunk_rows` of the vocabulary.
        logit_scale: Factor on the logits (Cohere's `logit_scale`, 1 / Granite's `logits_scaling`).
        softcap: Gemma 2's `final_logit_softcapping`, or None.
        return_entropy: Also return the entropy of each position's distribution.
        entropy_grad: Whether the entropy is differentiable (an entropy bonus) or only a statistic to log.

    Returns:
        Log-probs `[N]` in nats, fp32; with `return_entropy` a pair of log-probs and entropies, both `[N]`.

    Raises:
        ValueError: Shapes that don't fit, or a temperature, soft-cap or chunk size that is not positive.

    Example:
        >>> import torch
        >>> from hf_align.losses import response_logps
        >>> response_logps(torch.zeros(1, 4), torch.zeros(8, 4), torch.tensor([3]))  # one of 8 tokens: -log 8
        tensor([-2.0794])
    """
    chunk_size = chunk_rows(lm_head_weight.shape[0]) if chunk_size is None else chunk_size
    _check(hidden, targets, temperature, softcap, chunk_size)
    if lm_head_weight.shape[1:] != hidden.shape[1:]:
        raise ValueError(f"lm_head_weight must be [V, {hidden.shape[1]}], got {list(lm_head_weight.shape)}.")
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else lm_head_weight.dtype
    head = _Head(logit_scale, softcap, temperature, dtype, chunk_size, return_entropy, entropy_grad)
    if not torch.is_grad_enabled():
        hidden = hidden.detach()  # no backward pass follows: prepare nothing for one
    logps, entropy = _LinearHeadLogps.apply(hidden, lm_head_weight, bias, targets, head)
    return (logps, entropy) if return_entropy else logps


@overload
def response_logps_from_head(
    hidden: Tensor,
    head: Callable[[Tensor], Tensor],
    targets: Tensor,
    *,
    temperature: float = 1.0,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    return_entropy: Literal[False] = False,
) -> Tensor: ...
@overload
def response_logps_from_head(
    hidden: Tensor,
    head: Callable[[Tensor], Tensor],
    targets: Tensor,
    *,
    temperature: float = 1.0,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    return_entropy: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def response_logps_from_head(
    hidden: Tensor,
    head: Callable[[Tensor], Tensor],
    targets: Tensor,
    *,
    temperature: float = 1.0,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    return_entropy: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Log-probability of each target under any head, in chunks.

    For heads that are more than a weight matrix: LoRA on the head, a quantised head. Each chunk is checkpointed: its
    logits are recomputed in the backward pass by calling `head` again, so whatever the head depends on (the active
    adapter, train or eval mode) must not change in between. Takes twice as long as `response_logps` and holds about
    three `[chunk_size, V]` fp32 tensors at a time, five with the entropy, one more with a soft-cap.

    Args:
        hidden: `[N, d]`. N = 0 is fine: the head still takes part in the graph, with zero gradients.
        head: `[C, d] -> [C, V]` raw logits.
        targets: `[N]` token ids, int64.
        temperature: Sampling temperature that the log-probs should refer to; > 0.
        chunk_size: Rows of logits held at a time.
        logit_scale: As in `response_logps`; `head` returns unscaled logits.
        softcap: As in `response_logps`.
        return_entropy: Also return the entropy of each position's distribution, differentiable.

    Returns:
        Log-probs `[N]` in nats, fp32; with `return_entropy` a pair of log-probs and entropies, both `[N]`.

    Raises:
        ValueError: As `response_logps`.
    """
    _check(hidden, targets, temperature, softcap, chunk_size)

    def one_chunk(hidden: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        logits = head(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) * logit_scale
        logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
        logps = torch.log_softmax(logits / temperature, dim=-1)
        target_logps = logps.gather(-1, targets[:, None]).squeeze(-1)
        return (target_logps, entropy_from_logps(logps)) if return_entropy else (target_logps,)

    chunks = [slice(start, start + chunk_size) for start in range(0, max(hidden.shape[0], 1), chunk_size)]
    parts = [checkpoint(one_chunk, hidden[rows], targets[rows], use_reentrant=False) for rows in chunks]
    results = tuple(torch.cat(part) for part in zip(*parts, strict=True))
    return (results[0], results[1]) if return_entropy else results[0]


def entropy_from_logps(logps: Tensor) -> Tensor:
    """Entropy `[...]` in nats of log-softmax output `[..., V]`; ruled-out tokens (log-prob -inf) count as 0."""
    return -(logps.exp() * logps.clamp(min=torch.finfo(logps.dtype).min)).sum(-1)


def _check(hidden: Tensor, targets: Tensor, temperature: float, softcap: float | None, chunk_size: int) -> None:
    if hidden.dim() != 2 or targets.shape != hidden.shape[:1]:
        raise ValueError(
            f"hidden must be [N, d] and targets [N], got {list(hidden.shape)} and {list(targets.shape)}; flatten first."
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap must be positive or None, got {softcap}.")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}.")
