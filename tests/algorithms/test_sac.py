"""SAC against independent truths: Stable-Baselines3 on the same weights, batch and noise, and sums done by hand."""

import dataclasses
import math
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from robot_rl.algorithms.algorithm import get_algorithm
from robot_rl.algorithms.sac import (
    SAC,
    SACConfig,
    actor_gradients,
    actor_loss,
    alpha_loss,
    critic_gradient,
    critic_loss,
    smallest,
    target_terms,
)
from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.replay.ring_buffer import Batch

OBS, ACT, BATCH = 5, 3, 64


def make_batch(n: int = BATCH, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    g = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(shape, generator=g, dtype=dtype)  # noqa: E731
    flags = [(torch.rand(n, generator=g) < 0.2).to(dtype) for _ in range(2)]
    return Batch(normal(n, OBS), normal(n, ACT).tanh(), normal(n), flags[0], flags[1] * (1 - flags[0]), normal(n, OBS))


def test_lr_scale_shrinks_every_step():
    """Adam's first step is the learning rate times the gradient's sign, whatever the gradient."""
    config = SACConfig(learning_rate=1e-2, actor_hidden=(8,), critic_hidden=(8,))
    sac = SAC(config, OBS, ACT)
    before = {name: value.clone() for name, value in sac.state_dict().items()}
    sac.update(make_batch(), lr_scale=0.1)
    after = sac.state_dict()
    for name in ("actor", "critic"):
        moved = [float((after[k] - before[k]).abs().max()) for k in before if k.startswith(f"{name}.")]
        assert max(moved) == pytest.approx(1e-3, rel=1e-3)
    assert abs(float(after["log_alpha"] - before["log_alpha"])) == pytest.approx(1e-3, rel=1e-3)


def test_updates_equal_stable_baselines3_on_the_same_weights_batches_and_noise(monkeypatch):
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.buffers import ReplayBufferSamples
    from stable_baselines3.common.logger import Logger

    class Spaces(gym.Env):
        observation_space = gym.spaces.Box(-np.inf, np.inf, (OBS,), np.float32)
        action_space = gym.spaces.Box(-1, 1, (ACT,), np.float32)

    config = SACConfig(learning_rate=1e-3, actor_hidden=(32, 32), critic_hidden=(32, 32), gamma=0.9, tau=0.02)
    theirs = sb3.SAC(
        "MlpPolicy",
        Spaces(),
        learning_rate=1e-3,
        gamma=0.9,
        tau=0.02,
        policy_kwargs={"net_arch": [32, 32]},
        device="cpu",
    )
    theirs.set_logger(Logger(None, []))
    ours = SAC(config, OBS, ACT)
    # Double precision on both sides, so that what remains is a difference of equations and not of rounding.
    theirs.policy.double()
    theirs.actor.action_dist.epsilon = 0.0  # they add 1e-6 inside log(1 - a²); without it the two are the same equation
    optimizers = (ours.actor_optimizer, ours.critic_optimizer, ours.alpha_optimizer)
    for module in (ours.policy, ours.critic, ours.critic_target, *optimizers):
        module.double()
    for optimizer in optimizers:
        optimizer.steps = optimizer.steps.float()  # as torch's kernel asks
    ours._lr = ours._lr.double()
    ours.log_alpha.data = ours.log_alpha.double()  # the optimiser knows this tensor
    copy_weights(theirs, ours)

    updates = 4
    noise = [torch.randn(BATCH, ACT, dtype=torch.float64) for _ in range(2 * updates)]
    batches = [make_batch(seed=i, dtype=torch.float64) for i in range(updates)]
    # Ours draws the noise of both observations at once.
    streams = {
        "ours": iter([torch.cat(pair) for pair in zip(noise[::2], noise[1::2], strict=True)]),
        "theirs": iter(noise),
    }
    monkeypatch.setattr(torch, "randn", lambda *a, **k: next(streams["ours"]))
    monkeypatch.setattr("torch.distributions.normal._standard_normal", lambda *a, **k: next(streams["theirs"]))
    monkeypatch.setattr(
        "stable_baselines3.common.policies.preprocess_obs", lambda obs, *a, **k: obs
    )  # casts to float32
    column = lambda x: x.unsqueeze(-1)  # noqa: E731
    for i, batch in enumerate(batches):
        samples = ReplayBufferSamples(
            batch.obs, batch.action, batch.next_obs, column(batch.terminated), column(batch.reward)
        )
        monkeypatch.setattr(theirs.replay_buffer, "sample", lambda *a, samples=samples, **k: samples)
        theirs.train(1, BATCH)
        metrics = ours.update(batch)
        logged = theirs.logger.name_to_value
        for name, key in (("critic_loss", "critic_loss"), ("actor_loss", "actor_loss"), ("alpha", "ent_coef")):
            assert metrics[name].item() == pytest.approx(logged[f"train/{key}"], rel=1e-6), (i, name)
        logged.clear()

    expected = SAC(config, OBS, ACT)
    for module in (expected.policy, expected.critic, expected.critic_target):
        module.double()
    copy_weights(theirs, expected)
    for part in ("policy", "critic", "critic_target"):
        for name, value in getattr(expected, part).state_dict().items():
            torch.testing.assert_close(
                getattr(ours, part).state_dict()[name], value, rtol=0, atol=1e-8, msg=f"{part} {name}"
            )
    torch.testing.assert_close(ours.log_alpha.float(), theirs.log_ent_coef.detach()[0].float(), rtol=0, atol=1e-6)


def vector(module: torch.nn.Module) -> torch.Tensor:
    """A copy of all parameters."""
    return parameters_to_vector(module.parameters()).detach()


def copy_weights(theirs, ours: SAC) -> None:
    def fill(layers, index: int, linears) -> None:
        for layer, linear in zip(layers, linears, strict=True):
            layer.weight[index].copy_(linear.weight.T)
            layer.bias[index, 0].copy_(linear.bias)

    linear = [m for m in theirs.actor.latent_pi if isinstance(m, torch.nn.Linear)]
    mean, log_std = theirs.actor.mu, theirs.actor.log_std
    heads = torch.nn.Linear(mean.in_features, 2 * mean.out_features, dtype=mean.weight.dtype)
    with torch.no_grad():
        heads.weight.copy_(torch.cat([mean.weight, log_std.weight]))
        heads.bias.copy_(torch.cat([mean.bias, log_std.bias]))
        fill(ours.policy.body.layers, 0, [*linear, heads])
        for mine, other in ((ours.critic, theirs.critic), (ours.critic_target, theirs.critic_target)):
            for j, q in enumerate(other.q_networks):
                fill(mine.layers, j, q[::2])


def test_losses_by_hand():
    alpha = torch.tensor(0.5)
    next_q = torch.tensor([[1.0, 4.0], [2.0, 3.0]])
    shift, scale = target_terms(
        torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0]), torch.tensor([2.0, 2.0]), alpha, 0.9
    )
    torch.testing.assert_close(shift + scale * next_q.amin(0), torch.tensor([1 + 0.9 * (1.0 - 0.5 * 2.0), 1.0]))
    q = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    assert critic_loss(q, torch.tensor([1.0, 1.0])).item() == pytest.approx(0.5 * ((0 + 1) / 2 + (4 + 1) / 2))
    assert actor_loss(q, torch.tensor([2.0, 4.0]), alpha).item() == pytest.approx(((1 - 1) + (2 - 0)) / 2)


def test_discount_and_weight_per_sample_by_hand():
    alpha, weight = torch.tensor(0.5), torch.tensor([2.0, 0.5])
    next_q = torch.tensor([[1.0, 4.0], [2.0, 3.0]])
    shift, scale = target_terms(
        torch.tensor([1.0, 1.0]), torch.zeros(2), torch.tensor([1.0, 2.0]), alpha, torch.tensor([0.9, 0.81])
    )
    torch.testing.assert_close(
        shift + scale * next_q.amin(0), torch.tensor([1 + 0.9 * (1.0 - 0.5), 1 + 0.81 * (3.0 - 1.0)])
    )
    q = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    errors = 0.5 * ((2.0 * 0 + 0.5 * 1) / 2 + (2.0 * 4 + 0.5 * 1) / 2)
    assert critic_loss(q, torch.tensor([1.0, 1.0]), weight).item() == pytest.approx(errors)
    losses = (2.0 * (0.5 * 2.0 - 1.0) + 0.5 * (0.5 * 4.0 - 0.0)) / 2
    assert actor_loss(q, torch.tensor([2.0, 4.0]), alpha, weight).item() == pytest.approx(losses)


def test_update_takes_discount_and_weight_from_the_batch():
    """Discount γ and weight 1 in the batch change nothing; discount 0 makes the next observation irrelevant, and rows
    of weight 0 teach neither critics nor actor anything."""

    def after(batch: Batch) -> dict[str, torch.Tensor]:
        sac = SAC(SACConfig(actor_hidden=(8,), critic_hidden=(8,)), OBS, ACT)
        sac.update(batch)
        names = ("actor.", "critic.", "critic_target.", "log_alpha")
        return {k: v.clone() for k, v in sac.state_dict().items() if k.startswith(names)}

    def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(one[k], two[k]) for k in one)

    batch = make_batch()
    plain = after(batch)
    assert same(plain, after(replace(batch, discount=torch.full((BATCH,), 0.99), weight=torch.ones(BATCH))))
    blind = replace(batch, discount=torch.zeros(BATCH))
    assert same(after(blind), after(replace(blind, next_obs=batch.next_obs + 1)))
    assert not same(plain, after(replace(batch, next_obs=batch.next_obs + 1)))
    unweighted = torch.ones(BATCH)
    unweighted[3] = 0
    altered = batch.reward.clone()
    altered[3] += 100
    assert same(after(replace(batch, weight=unweighted)), after(replace(batch, weight=unweighted, reward=altered)))
    assert not same(plain, after(replace(batch, reward=altered)))
    fresh = SAC(SACConfig(actor_hidden=(8,), critic_hidden=(8,)), OBS, ACT).state_dict()
    ignored = after(replace(batch, weight=torch.zeros(BATCH)))
    assert all(torch.equal(ignored[k], fresh[k]) for k in ignored if k.startswith(("actor.", "critic.")))


def test_temperature_gradient_and_first_step_by_hand():
    log_alpha = torch.tensor(-0.7, requires_grad=True)
    log_prob = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    alpha_loss(log_alpha, log_prob, target_entropy=-2.0).backward()
    assert log_alpha.grad.item() == pytest.approx(-(3.0 - 2.0))  # too little entropy: alpha must rise
    assert log_prob.grad is None


def test_losses_use_the_temperature_of_before_the_step():
    sac = SAC(SACConfig(learning_rate=0.5, initial_alpha=0.3), OBS, ACT)
    metrics = sac.update(make_batch())
    assert metrics["alpha"].item() == pytest.approx(0.3)
    assert abs(sac.log_alpha.exp().item() - 0.3) > 0.1


@pytest.mark.parametrize("of", ["min", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_equal_autograd_of_the_losses(weighted, of):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(3, 10, generator=generator, dtype=torch.float64, requires_grad=True)
    target, log_prob = torch.randn(2, 10, generator=generator, dtype=torch.float64)
    log_prob.requires_grad_()
    weight = torch.rand(10, generator=generator, dtype=torch.float64) if weighted else None
    alpha = torch.tensor(0.3, dtype=torch.float64)
    (expected,) = torch.autograd.grad(critic_loss(q, target, weight), q)
    torch.testing.assert_close(critic_gradient(q, target, weight), expected)
    expected = torch.autograd.grad(actor_loss(q, log_prob, alpha, weight, of), (q, log_prob))
    torch.testing.assert_close(actor_gradients(q, alpha, weight, of), expected)


def test_targets_move_by_tau():
    sac = SAC(SACConfig(tau=0.25), OBS, ACT)
    before = vector(sac.critic_target)
    sac.update(make_batch())
    torch.testing.assert_close(vector(sac.critic_target), 0.75 * before + 0.25 * vector(sac.critic))


@pytest.mark.parametrize(("time_limit", "value"), [("bootstrap", 1 / (1 - 0.9)), ("terminal", 1 + 0.9 + 0.81)])
def test_time_limit_on_a_three_step_episode(time_limit, value):
    """Reward 1 on a ring of three states, cut by the clock after three steps: the first state is worth 1 / (1 - γ) when
    the limit is bootstrapped through, and 1 + γ + γ² when it counts as an end."""
    config = SACConfig(
        gamma=0.9, time_limit=time_limit, learning_rate=3e-3, tau=0.2, actor_hidden=(8,), critic_hidden=(32,)
    )
    sac = SAC(config, obs_dim=3, action_dim=1)
    with torch.no_grad():
        sac.log_alpha.fill_(
            -20.0
        )  # no entropy bonus to speak of, and Adam needs more steps than these to bring it back
    obs, generator = torch.eye(3), torch.Generator().manual_seed(0)
    for _ in range(900):
        action = torch.rand(3, 1, generator=generator) * 2 - 1
        sac.update(Batch(obs, action, torch.ones(3), torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]), obs.roll(-1, 0)))
    assert sac.critic(obs[:1], torch.zeros(1, 1)).mean().item() == pytest.approx(value, rel=0.03)


def test_entropy_in_environment_units_is_a_shift_of_the_target_entropy():
    half_range = torch.tensor([0.4, 2.0, 5.0])
    shift = half_range.log().sum().item()
    environment = SAC(
        SACConfig(entropy_units="environment", target_entropy=-1.0), OBS, ACT, action_half_range=half_range
    )
    normalized = SAC(SACConfig(target_entropy=-1.0 - shift), OBS, ACT)
    batch = make_batch()
    ours, reference = environment.update(batch), normalized.update(batch)
    assert ours["entropy"].item() == pytest.approx(reference["entropy"].item() + shift, rel=1e-5)
    # The temperature moves the same way; the critic target differs by the constant bonus α Σ log(half-range).
    torch.testing.assert_close(environment.log_alpha, normalized.log_alpha)
    with pytest.raises(ConfigError, match="action_half_range"):
        SAC(SACConfig(entropy_units="environment"), OBS, ACT)


@pytest.mark.parametrize("normalize", [False, True])
def test_state_restores_the_future_exactly(normalize):
    config = SACConfig(normalize_obs=normalize, actor_hidden=(16,), critic_hidden=(16,))
    first, second = SAC(config, OBS, ACT, seed=1), SAC(config, OBS, ACT, seed=2)
    first.observe(make_batch().obs * 3 + 1)
    for i in range(3):
        first.update(make_batch(seed=i))
    state = {k: v.clone() for k, v in first.state_dict().items()}
    assert all(isinstance(v, torch.Tensor) for v in state.values())
    second.load_state_dict(state)
    for i in range(3, 6):
        one, two = first.update(make_batch(seed=i)), second.update(make_batch(seed=i))
        assert one == two
    obs = make_batch(seed=9).obs
    assert torch.equal(first.act(obs), second.act(obs))
    torch.testing.assert_close(first.act(obs, deterministic=True), first.actor()(first.normalizer(obs)))


def test_loading_another_shape_or_an_incomplete_state_says_so():
    small, large = SAC(SACConfig(critic_hidden=(8,)), OBS, ACT), SAC(SACConfig(critic_hidden=(16,)), OBS, ACT)
    with pytest.raises(CheckpointError, match="does not fit"):
        large.load_state_dict(small.state_dict())
    state = small.state_dict()
    del state["log_alpha"]
    with pytest.raises(CheckpointError, match="log_alpha"):
        small.load_state_dict(state)


@pytest.mark.parametrize(
    "bad",
    [
        {"target_critics": 3},
        {"initial_std": 0.0},
        {"policy_delay": 0},
        {"gamma": 1.5},
        {"tau": 0.0},
        {"batch_size": 0},
        {"learning_rate": -1.0},
        {"tau": 2.0},
    ],
)
def test_bad_hyperparameters_are_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        SACConfig(**bad)


def test_seed_decides_weights_and_samples_and_the_global_stream_is_untouched():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a, b, c = (SAC(SACConfig(), OBS, ACT, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    obs = torch.randn(4, OBS)
    first = a.act(obs)
    assert torch.equal(first, b.act(obs))
    assert not torch.equal(first, c.act(obs))
    assert math.isclose(a.log_alpha.item(), 0.0)


def test_table_names_valid_algorithms():
    assert isinstance(get_algorithm("sac").make(SACConfig(), OBS, ACT), SAC)
    with pytest.raises(ConfigError, match="unknown algorithm 'ppo'; valid: sac"):
        get_algorithm("ppo")


def test_the_minimum_is_over_a_fresh_subset_of_the_target_critics():
    sac = SAC(SACConfig(n_critics=5, target_critics=2, actor_hidden=(8,), critic_hidden=(8,)), OBS, ACT)
    drawn = [sac._target_members() for _ in range(500)]
    assert all(len(set(members.tolist())) == 2 for members in drawn)
    # Minimum of 2 of 5 without replacement: P(0) = 4/10, P(1) = 3/10, P(2) = 2/10, P(3) = 1/10.
    share = torch.bincount(torch.stack([m.min() for m in drawn]), minlength=5) / 500
    torch.testing.assert_close(share, torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0]), atol=0.08, rtol=0)

    # Biases that make target critic j worth j everywhere: the loss tells which of them counted.
    last = sac.critic_target.layers[-1]
    last.weight.zero_()
    last.bias.copy_(torch.arange(5.0).view(5, 1, 1))
    batch = dataclasses.replace(make_batch(), terminated=torch.zeros(BATCH))
    following = sac.policy.run(batch.next_obs, torch.zeros(BATCH, ACT))
    q = sac.critic(batch.obs, batch.action).detach()
    for members in (torch.tensor([4, 2]), torch.tensor([3, 4])):
        _, loss, _ = sac._critic_phase(batch.obs, batch.next_obs, batch, torch.tensor(0.0), following, members)
        expected = critic_loss(q, batch.reward + 0.99 * members.min())
        torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("head", ["scalar", "categorical", "histogram"])
def test_every_head_learns_the_value_of_a_known_return(head):
    """Reward 1 for ever: Q = 1 / (1 - 0.8) = 5 for any action, whatever form the critic has."""
    config = SACConfig(
        critic_head=head, own_target=True, atoms=(0.0, 8.0, 33), gamma=0.8, tau=0.2, learning_rate=3e-3,
        backup_entropy=False, actor_hidden=(8,), critic_hidden=(32,),
    )  # fmt: skip
    sac = SAC(config, OBS, ACT)
    for i in range(800):
        batch = make_batch(seed=i)
        sac.update(dataclasses.replace(batch, reward=torch.ones(BATCH), terminated=torch.zeros(BATCH)))
    batch = make_batch(seed=1000)
    q = sac._q(sac.critic.run(batch.obs, batch.action)[0])
    torch.testing.assert_close(q.mean(-1), torch.full((2,), 5.0), atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("head", "own"), [("scalar", True), ("categorical", False), ("categorical", True), ("histogram", True)]
)
def test_actor_climbs_a_critic_of_any_form(head, own):
    """Reward 1 - |a - 0.5|²: the actor must come from a = 0 to near 0.5, through the gradient of the expectation."""
    config = SACConfig(
        critic_head=head, atoms=(-6.0, 2.0, 41), own_target=own, actor_critic="mean", gamma=0.0, learning_rate=3e-3,
        actor_hidden=(16,), critic_hidden=(64,), initial_alpha=0.1, target_entropy=-2.0, initial_std=0.3,
    )  # fmt: skip
    sac = SAC(config, OBS, ACT)
    for i in range(1500):
        batch = make_batch(seed=i)
        sac.update(dataclasses.replace(batch, reward=1 - (batch.action - 0.5).square().sum(-1)))
    action = sac.act(make_batch(seed=5000).obs, deterministic=True)
    assert (action.mean(0) - 0.5).abs().max() < 0.15


def test_smallest_takes_all_outputs_of_the_critic_whose_value_is_smallest():
    out = torch.arange(12.0).view(2, 3, 2)
    torch.testing.assert_close(smallest(out, torch.tensor([[1.0, 5.0, 0.0], [2.0, 4.0, 9.0]])),
                               torch.stack((out[0, 0], out[1, 1], out[0, 2])))  # fmt: skip


def test_delayed_policy_moves_at_every_third_update():
    sac = SAC(SACConfig(policy_delay=3, actor_hidden=(8,), critic_hidden=(8,)), OBS, ACT)
    moved = []
    for i in range(7):
        actor, alpha, critic = vector(sac.policy), sac.log_alpha.clone(), vector(sac.critic)
        sac.update(make_batch(seed=i))
        assert not torch.equal(critic, vector(sac.critic))
        moved.append(not torch.equal(actor, vector(sac.policy)))
        assert moved[-1] == (not torch.equal(alpha, sac.log_alpha))
    assert moved == [False, False, True, False, False, True, False]


def test_without_entropy_in_the_backup_the_temperature_does_not_matter_to_the_target():
    batch, noise = make_batch(), torch.zeros(BATCH, ACT)
    losses = {}
    for backup in (True, False):
        sac = SAC(SACConfig(backup_entropy=backup, actor_hidden=(8,), critic_hidden=(8,)), OBS, ACT)
        for alpha in (0.0, 5.0):
            following = sac.policy.run(batch.next_obs, noise)
            arguments = (batch.obs, batch.next_obs, batch, torch.tensor(alpha), following, None)
            losses[backup, alpha] = sac._critic_phase(*arguments)[1]
    torch.testing.assert_close(losses[False, 5.0], losses[True, 0.0])
    assert losses[True, 5.0] > losses[True, 0.0] + 1


def test_initial_std_is_that_of_the_first_policy():
    sac = SAC(SACConfig(initial_std=0.08), OBS, ACT)
    action = sac.act(10 * torch.randn(4000, OBS))
    assert action.std().item() == pytest.approx(0.08, rel=0.03)
    assert action.mean().abs().item() < 0.003


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_updates_equal_plain_ones(precision):
    config = SACConfig(actor_hidden=(32, 32), critic_hidden=(32, 32), policy_delay=2, precision=precision)
    plain, compiled = SAC(config, OBS, ACT), SAC(dataclasses.replace(config, compile=True), OBS, ACT)
    rounding = 1e-4 if precision == "float32" else 1e-2
    for i in range(6):
        lr_scale = 1 - i / 6
        one, two = plain.update(make_batch(seed=i), lr_scale), compiled.update(make_batch(seed=i), lr_scale)
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=rounding, atol=rounding)
    # Adam's steps are of one size whatever the gradient's, so rounding shows where gradients are near zero.
    difference = (vector(plain.critic) - vector(compiled.critic)).abs().mean()
    assert difference < 0.02 * 6 * config.learning_rate


@pytest.mark.parametrize("layer_norm", [False, True])
def test_bfloat16_gradients_are_those_of_float32_to_the_precision_of_bfloat16(layer_norm):
    options = dict(
        actor_hidden=(64, 64), critic_hidden=(64, 64), critic_layer_norm=layer_norm, actor_layer_norm=layer_norm
    )
    exact, rounded = (SAC(SACConfig(precision=p, **options), OBS, ACT) for p in ("float32", "bfloat16"))
    one, two = exact.update(make_batch()), rounded.update(make_batch())
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0.02, atol=0.01)
    for part in ("actor_optimizer", "critic_optimizer"):
        a, b = (vector(getattr(sac, part).means) for sac in (exact, rounded))
        assert b.dtype == torch.float32
        assert 0 < (a - b).norm() / a.norm() < 0.02  # bfloat16 has 8 bits: 2^-8 = 0.004 per operation


def test_bfloat16_training_acts_in_float32():
    sac = SAC(SACConfig(precision="bfloat16", actor_hidden=(64,), critic_hidden=(64,)), OBS, ACT)
    obs = make_batch().obs
    torch.testing.assert_close(sac.act(obs, deterministic=True), sac.actor()(obs), atol=1e-6, rtol=0)


def test_state_of_an_earlier_version_is_read():
    """There a network was one vector `flat`, and so were its moments, tensor after tensor."""
    config = SACConfig(actor_hidden=(8,), critic_hidden=(8,), actor_layer_norm=True, normalize_obs=True)
    sac, other = SAC(config, OBS, ACT, seed=1), SAC(config, OBS, ACT, seed=2)
    sac.update(make_batch())
    state = sac.state_dict()
    old = {name: value for name, value in state.items() if not {"layers", "means", "squares"} & set(name.split("."))}
    for name, part in (
        ("actor.body.flat", sac.policy),
        ("critic.flat", sac.critic),
        ("critic_target.flat", sac.critic_target),
    ):
        old[name] = vector(part)
    for name in ("actor_optimizer", "critic_optimizer", "alpha_optimizer"):
        old[f"{name}.mean"] = vector(getattr(sac, name).means)
        old[f"{name}.square"] = vector(getattr(sac, name).squares)
    old["alpha_optimizer.mean"], old["alpha_optimizer.square"] = (
        old[f"alpha_optimizer.{n}"].view(()) for n in ("mean", "square")
    )
    other.load_state_dict(old)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in state.items())
    with pytest.raises(CheckpointError, match="does not fit"):
        SAC(replace(config, actor_hidden=(9,)), OBS, ACT).load_state_dict(old)
