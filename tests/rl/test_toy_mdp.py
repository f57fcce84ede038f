"""The toy MDP by hand, and losses, advantages and KL estimators compared with its exact solutions."""

import math

import pytest
import torch
from torch import Tensor

from hf_align.losses import dpo_loss, ppo_clip_loss, reinforce_loss
from hf_align.losses.kl import estimate_kl
from hf_align.rl.advantages import discounted_returns, gae
from hf_align.rl.toy_mdp import LanguageMDP, Policy, Response, State

EOS = 2


def count_of_ones(response: Response) -> float:
    return float(response.count(1)) - 0.5 * (response[-1] == EOS)


def make_mdp() -> LanguageMDP:
    return LanguageMDP(vocab_size=3, eos=EOS, max_length=3, reward=count_of_ones, prompt=(7, 8))


class TablePolicy:
    """Free logits for every state: `[states, vocab]` with a gradient."""

    def __init__(self, mdp: LanguageMDP, seed: int) -> None:
        states = {(*mdp.prompt, *response[:t]) for response in mdp.responses for t in range(len(response))}
        self.row = {state: index for index, state in enumerate(sorted(states))}
        gen = torch.Generator().manual_seed(seed)
        self.logits = torch.randn(len(states), mdp.vocab_size, generator=gen, dtype=torch.float64, requires_grad=True)

    def __call__(self, state: State) -> Tensor:
        return self.logits[self.row[state]]


def gradient(value: Tensor, policy: TablePolicy) -> Tensor:
    return torch.autograd.grad(value, policy.logits)[0]


def weighted_by_probability(mdp: LanguageMDP, policy: Policy, x: Tensor) -> Tensor:
    """Scale `[R, T]` so that a mean over the mask becomes an expectation over episodes."""
    return x * mdp.response_logps(policy).detach().exp()[:, None] * mdp.mask().sum()


def test_every_response_once() -> None:
    responses = make_mdp().responses
    # EOS at once; after one of 2 tokens; or any of 2 * 2 * 3 responses of full length.
    assert len(responses) == len(set(responses)) == 1 + 2 + 12
    assert responses == sorted(responses)
    assert all(EOS not in response[:-1] and (response[-1] == EOS or len(response) == 3) for response in responses)


def test_an_episode_step_by_step() -> None:
    mdp = make_mdp()
    assert mdp.step(mdp.initial_state, 1) == ((7, 8, 1), 0.0, False)
    assert mdp.step((7, 8, 1), EOS) == ((7, 8, 1, EOS), 0.5, True)
    assert mdp.step((7, 8, 1, 0), 1) == ((7, 8, 1, 0, 1), 2.0, True)
    with pytest.raises(ValueError, match="ended"):
        mdp.step((7, 8, 1, EOS), 0)
    with pytest.raises(ValueError, match="action"):
        mdp.step((7, 8), 3)


def test_tensors_of_a_response() -> None:
    mdp = make_mdp()
    row = mdp.responses.index((1, EOS))
    assert mdp.mask()[row].tolist() == [True, True, False]
    assert mdp.token_rewards()[row].tolist() == [0.0, 0.5, 0.0]
    torch.testing.assert_close(mdp.token_rewards().sum(1), mdp.rewards())
    policy = TablePolicy(mdp, 0)
    expected = [policy((7, 8)).log_softmax(-1)[1].item(), policy((7, 8, 1)).log_softmax(-1)[EOS].item(), 0.0]
    assert mdp.token_logps(policy)[row].tolist() == pytest.approx(expected)


def test_probabilities_sum_to_one_and_a_uniform_policy_is_known() -> None:
    mdp = make_mdp()
    assert mdp.response_logps(TablePolicy(mdp, 0)).exp().sum().item() == pytest.approx(1.0)
    uniform = mdp.response_logps(lambda state: torch.zeros(3).double())
    assert uniform.tolist() == pytest.approx([-len(response) * math.log(3.0) for response in mdp.responses])


def test_rollouts_follow_the_exact_distribution() -> None:
    mdp = make_mdp()
    policy = TablePolicy(mdp, 0)
    gen = torch.Generator().manual_seed(0)
    episodes = [mdp.rollout(policy, gen) for _ in range(2000)]
    assert all(reward == count_of_ones(response) for response, reward in episodes)
    for response, logp in zip(mdp.responses, mdp.response_logps(policy).tolist(), strict=True):
        probability = math.exp(logp)
        share = sum(sampled == response for sampled, _ in episodes) / len(episodes)
        assert abs(share - probability) < 4 * math.sqrt(probability * (1 - probability) / len(episodes))


def test_reinforce_is_the_gradient_of_the_exact_return() -> None:
    mdp = make_mdp()
    policy = TablePolicy(mdp, 0)
    exact = gradient(mdp.expected_return(policy), policy)
    returns = discounted_returns(mdp.token_rewards(), mdp.mask())
    loss = reinforce_loss(mdp.token_logps(policy), weighted_by_probability(mdp, policy, returns), mdp.mask())
    torch.testing.assert_close(gradient(loss, policy), -exact)


@pytest.mark.parametrize("lam", [1.0, 0.5, 0.0])
def test_ppo_with_gae_is_the_gradient_of_the_exact_return(lam: float) -> None:
    # With the true value function, GAE is unbiased for every lambda.
    mdp = make_mdp()
    policy = TablePolicy(mdp, 0)
    logps, probs = mdp.token_logps(policy), mdp.response_logps(policy).detach().exp()
    values = torch.zeros(logps.shape, dtype=torch.float64)
    for row, response in enumerate(mdp.responses):
        for t in range(len(response)):
            same = torch.tensor([other[:t] == response[:t] for other in mdp.responses])
            values[row, t] = (probs * mdp.rewards())[same].sum() / probs[same].sum()
    advantages, _ = gae(mdp.token_rewards(), values, mdp.mask(), lam=lam)
    loss = ppo_clip_loss(logps, logps.detach(), weighted_by_probability(mdp, policy, advantages), mdp.mask())
    torch.testing.assert_close(gradient(loss, policy), -gradient(mdp.expected_return(policy), policy))


def test_k1_in_the_reward_is_the_gradient_of_the_regularised_return() -> None:
    mdp = make_mdp()
    policy, reference, beta = TablePolicy(mdp, 0), TablePolicy(mdp, 1), 0.7
    exact = gradient(mdp.expected_return(policy) - beta * mdp.kl(policy, reference), policy)
    logps = mdp.token_logps(policy)
    rewards = mdp.token_rewards() - beta * estimate_kl(logps, mdp.token_logps(reference)).detach()
    returns = discounted_returns(rewards, mdp.mask())
    loss = reinforce_loss(logps, weighted_by_probability(mdp, policy, returns), mdp.mask())
    torch.testing.assert_close(gradient(loss, policy), -exact)


def test_the_optimum_beats_its_neighbours_and_has_the_stated_value() -> None:
    mdp = make_mdp()
    reference, beta = TablePolicy(mdp, 1), 0.7
    logps, best = mdp.optimal_response_logps(reference, beta)
    assert logps.exp().sum().item() == pytest.approx(1.0)
    optimum = mdp.policy_of(logps)
    torch.testing.assert_close(mdp.response_logps(optimum), logps)
    value = mdp.expected_return(optimum) - beta * mdp.kl(optimum, reference)
    assert value.item() == pytest.approx(best.item())
    for seed in range(20):
        noise = TablePolicy(mdp, seed)
        other: Policy = lambda state, noise=noise: optimum(state) + 0.1 * noise(state)  # noqa: E731
        assert mdp.expected_return(other) - beta * mdp.kl(other, reference) < best


def test_gradient_ascent_on_the_exact_objective_reaches_the_optimum() -> None:
    mdp = make_mdp()
    policy, reference, beta = TablePolicy(mdp, 0), TablePolicy(mdp, 1), 0.7
    logps, best = mdp.optimal_response_logps(reference, beta)
    optimizer = torch.optim.LBFGS([policy.logits], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = beta * mdp.kl(policy, reference) - mdp.expected_return(policy)
        loss.backward()
        return loss.item()

    optimizer.step(closure)
    assert -closure() == pytest.approx(best.item(), abs=1e-6)
    torch.testing.assert_close(mdp.response_logps(policy), logps, atol=1e-2, rtol=0)


def test_dpo_is_stationary_at_the_optimum_of_its_reward() -> None:
    # Preferences drawn from Bradley-Terry on the reward: DPO's population loss has its minimum at the optimal policy.
    mdp = make_mdp()
    reference, beta = TablePolicy(mdp, 1), 0.7
    ref_logps = mdp.response_logps(reference).detach()
    optimal_logps, _ = mdp.optimal_response_logps(reference, beta)
    logps = optimal_logps.detach().requires_grad_()
    first, second = torch.combinations(torch.arange(len(mdp.responses))).unbind(1)
    first_wins = torch.sigmoid(mdp.rewards()[first] - mdp.rewards()[second])
    loss = torch.zeros((), dtype=torch.float64)
    for chosen, rejected, share in ((first, second, first_wins), (second, first, 1 - first_wins)):
        pairs = dpo_loss(logps[chosen], logps[rejected], ref_logps[chosen], ref_logps[rejected], beta=beta)
        loss = loss + (share * pairs).sum()
    torch.testing.assert_close(torch.autograd.grad(loss, logps)[0], torch.zeros_like(logps), atol=1e-10, rtol=0)


@pytest.mark.parametrize(("eos", "max_length", "message"), [(3, 2, "eos"), (-1, 2, "eos"), (0, 0, "max_length")])
def test_impossible_settings_are_refused(eos: int, max_length: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LanguageMDP(3, eos, max_length, count_of_ones)
