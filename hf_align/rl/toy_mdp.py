"""Language generation as a Markov decision process, small enough to be solved exactly.

- State: the prompt and the tokens generated so far.
- Action: the next token. A policy is a distribution over the vocabulary for each state.
- Transition: deterministic; the token is appended.
- End: after the EOS token, or when the response has `max_length` tokens.
- Reward: 0 at every step but the last, which gets the score of the whole response. No discount.

Over a toy vocabulary every response can be listed, so expectations, gradients and the KL-regularised optimum are exact:
the estimates and limits of REINFORCE, PPO or DPO can be compared with them. V tokens and L steps give about V**L
responses: keep V**L below about ten thousand.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Response = tuple[int, ...]
State = tuple[int, ...]  # the prompt's tokens, then the response's
Policy = Callable[[State], Tensor]  # the next token's logits, [vocab_size]


class Step(NamedTuple):
    """Result of one action."""

    state: State
    reward: float
    done: bool


class LanguageMDP:
    """Deterministic token-by-token generation with one reward at the end.

    Notation: R responses (all possible ones), T = max_length.

    Args:
        vocab_size: Tokens are 0 ... vocab_size - 1.
        eos: The token that ends a response, and is part of it.
        max_length: Tokens after which a response ends without EOS.
        reward: Scores a complete response, EOS included.
        prompt: Tokens before the response; part of every state, not of the responses.

    Attributes:
        responses: All complete responses, in lexicographic order.

    Raises:
        ValueError: eos is not a token, or max_length or vocab_size is less than 1.

    Example:
        >>> from hf_align.rl import LanguageMDP
        >>> mdp = LanguageMDP(vocab_size=2, eos=0, max_length=2, reward=lambda response: float(response[0] == 1))
        >>> mdp.responses
        [(0,), (1, 0), (1, 1)]
        >>> mdp.step(mdp.initial_state, 1)
        Step(state=(1,), reward=0.0, done=False)
    """

    def __init__(
        self,
        vocab_size: int,
        eos: int,
        max_length: int,
        reward: Callable[[Response], float],
        prompt: State = (),
    ):
        if not 0 <= eos < vocab_size:
            raise ValueError(f"eos must be a token in 0 ... {vocab_size - 1}, got {eos}.")
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}.")
        self.vocab_size, self.eos, self.max_length = vocab_size, eos, max_length
        self.reward, self.prompt = reward, prompt
        self.responses: list[Response] = list(self._completions(()))

    @property
    def initial_state(self) -> State:
        """The prompt."""
        return self.prompt

    def step(self, state: State, action: int) -> Step:
        """Append a token.

        Raises:
            ValueError: The action is not a token, or the episode has already ended.
        """
        response = state[len(self.prompt) :]
        if not 0 <= action < self.vocab_size:
            raise ValueError(f"The action must be a token in 0 ... {self.vocab_size - 1}, got {action}.")
        if self._is_complete(response):
            raise ValueError(f"The episode ended with {response}; start again from initial_state.")
        response = (*response, action)
        done = self._is_complete(response)
        return Step((*self.prompt, *response), float(self.reward(response)) if done else 0.0, done)

    def rollout(self, policy: Policy, generator: torch.Generator | None = None) -> tuple[Response, float]:
        """Sample one episode: the response and its reward."""
        state, done, reward = self.initial_state, False, 0.0
        while not done:
            action = torch.multinomial(policy(state).detach().softmax(-1), 1, generator=generator)
            state, reward, done = self.step(state, int(action))
        return state[len(self.prompt) :], reward

    def rewards(self) -> Tensor:
        """Reward of every response, `[R]`, fp64."""
        return torch.tensor([float(self.reward(response)) for response in self.responses], dtype=torch.float64)

    def token_rewards(self) -> Tensor:
        """Rewards as a trainer sees them, `[R, T]`: each response's reward at its last token, 0 elsewhere."""
        mask = self.mask()
        last = mask.sum(1, keepdim=True) - 1
        return torch.zeros(mask.shape, dtype=torch.float64).scatter(1, last, self.rewards()[:, None])

    def mask(self) -> Tensor:
        """`[R, T]` bool, true at each response's tokens."""
        return torch.arange(self.max_length) < torch.tensor([[len(response)] for response in self.responses])

    def token_logps(self, policy: Policy) -> Tensor:
        """Log-prob of each token of every response, `[R, T]`, 0 outside the mask; differentiable."""
        states = {response[:t] for response in self.responses for t in range(len(response))}
        logps = {state: policy((*self.prompt, *state)).log_softmax(-1) for state in states}
        zero = logps[()].new_zeros(())
        rows = [
            [logps[response[:t]][response[t]] if t < len(response) else zero for t in range(self.max_length)]
            for response in self.responses
        ]
        return torch.stack([torch.stack(row) for row in rows])

    def response_logps(self, policy: Policy) -> Tensor:
        """Log-prob of every response, `[R]`; their exponentials sum to 1. Differentiable."""
        return self.token_logps(policy).sum(1)

    def expected_return(self, policy: Policy) -> Tensor:
        """Exact expected reward of an episode, a scalar; differentiable."""
        logps = self.response_logps(policy)
        return logps.exp() @ self.rewards().to(logps.dtype)

    def kl(self, policy: Policy, reference: Policy) -> Tensor:
        """Exact KL(policy || reference) over whole responses in nats, a scalar; differentiable."""
        logps = self.response_logps(policy)
        return logps.exp() @ (logps - self.response_logps(reference))

    def optimal_response_logps(self, reference: Policy, beta: float) -> tuple[Tensor, Tensor]:
        """The policy that maximises `expected_return - beta * kl`: `pi_ref(y) * exp(r(y) / beta) / Z`.

        Args:
            reference: The reference policy.
            beta: KL coefficient, > 0.

        Returns:
            Log-probs of every response under the optimum, `[R]`, and the objective's value there, beta * log Z.
        """
        tilted = self.response_logps(reference) + self.rewards() / beta
        log_z = tilted.logsumexp(0)
        return tilted - log_z, beta * log_z

    def policy_of(self, response_logps: Tensor) -> Policy:
        """The token-by-token policy with a given distribution over responses (log-probs `[R]`).

        Its next-token probabilities in a state are the conditional shares of the responses that continue with each
        token. States that the distribution never reaches have no policy: they raise KeyError.
        """
        table: dict[State, Tensor] = {}
        for response, probability in zip(self.responses, response_logps.detach().double().exp(), strict=True):
            for t, token in enumerate(response):
                counts = table.setdefault((*self.prompt, *response[:t]), torch.zeros(self.vocab_size).double())
                counts[token] += probability
        return {state: counts.log() for state, counts in table.items() if counts.any()}.__getitem__

    def _is_complete(self, response: Response) -> bool:
        return len(response) >= self.max_length or response[-1:] == (self.eos,)

    def _completions(self, prefix: Response) -> list[Response]:
        if self._is_complete(prefix):
            return [prefix]
        return [done for token in range(self.vocab_size) for done in self._completions((*prefix, token))]
