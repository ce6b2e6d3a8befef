"""DSAC-T against independent truths: the authors' form of the update, written with ordinary layers."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from robot_rl.algorithms.algorithm import get_algorithm
from robot_rl.algorithms.dsact import DSACT, DSACTConfig
from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.replay.ring_buffer import Batch

OBS, ACT, BATCH = 5, 3, 64
SMALL = {"actor_hidden": (16,), "critic_hidden": (16,)}


def make_batch(n: int = BATCH, seed: int = 0, dtype: torch.dtype = torch.float32, **fields) -> Batch:
    g = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(shape, generator=g, dtype=dtype)  # noqa: E731
    flags = [(torch.rand(n, generator=g) < 0.2).to(dtype) for _ in range(2)]
    ended = (flags[0], flags[1] * (1 - flags[0]))
    return Batch(normal(n, OBS), normal(n, ACT).tanh(), 3 * normal(n), *ended, normal(n, OBS), **fields)


class Reference:
    """The update as the authors' code orders it, with ordinary layers, torch's distributions and one optimiser per
    network: all gradients first, then all steps. Noise is handed in."""

    def __init__(self, ours: DSACT) -> None:
        self.config = ours.config
        hidden = self.config.critic_hidden
        self.q = [mlp(OBS + ACT, hidden, 2) for _ in range(2)]
        self.q_target = [mlp(OBS + ACT, hidden, 2) for _ in range(2)]
        self.pi, self.pi_target = (mlp(OBS, self.config.actor_hidden, 2 * ACT) for _ in range(2))
        self.log_alpha = nn.Parameter(ours.log_alpha.detach().clone().double())
        self.m = [-1.0, -1.0]
        self.iteration = 0
        self.copy_from(ours)
        lr = self.config.learning_rate
        self.q_adam = [torch.optim.Adam(q.parameters(), lr) for q in self.q]
        self.pi_adam = torch.optim.Adam(self.pi.parameters(), lr)
        self.alpha_adam = torch.optim.Adam([self.log_alpha], self.config.alpha_learning_rate)

    def copy_from(self, ours: DSACT) -> None:
        for i in range(2):
            self.q[i].load_state_dict(ours.critic.sequential(i).state_dict())
            self.q_target[i].load_state_dict(ours.critic_target.sequential(i).state_dict())
        self.pi.load_state_dict(ours.policy.body.sequential(0).state_dict())
        self.pi_target.load_state_dict(ours.policy_target.body.sequential(0).state_dict())

    @staticmethod
    def sample(network: nn.Module, obs, noise):
        mean, log_std = network(obs).chunk(2, -1)
        std = log_std.clamp(-20, 0.5).exp()
        u = mean + std * noise
        base = torch.distributions.Normal(mean, std)
        squashed = torch.distributions.TransformedDistribution(base, torch.distributions.TanhTransform(cache_size=1))
        action = squashed.transforms[0](u)
        return action, squashed.log_prob(action).sum(-1)

    def heads(self, network: nn.Module, obs, action):
        q, raw = network(torch.cat((obs, action), -1)).unbind(-1)
        return q, F.softplus(raw)

    def update(self, batch: Batch, next_noise, z, noise) -> None:
        config, alpha = self.config, self.log_alpha.exp().item()
        new_action, new_log_prob = self.sample(self.pi, batch.obs, noise)
        with torch.no_grad():
            next_action, next_log_prob = self.sample(self.pi_target, batch.next_obs, next_noise)
            (n1, s1), (n2, s2) = (self.heads(q, batch.next_obs, next_action) for q in self.q_target)
            next_q = torch.minimum(n1, n2)
            z = z.clamp(-3, 3)
            next_sample = torch.where(n1 < n2, n1 + s1 * z, n2 + s2 * z)
            y = batch.reward + (1 - batch.terminated) * config.gamma * (next_q - alpha * next_log_prob)
            y_z = batch.reward + (1 - batch.terminated) * config.gamma * (next_sample - alpha * next_log_prob)
        loss = torch.zeros((), dtype=torch.float64)
        for i, network in enumerate(self.q):
            q, std = self.heads(network, batch.obs, batch.action)
            s = std.detach()
            batch_mean = s.mean().item()
            m = self.m[i] = (
                batch_mean if self.m[i] == -1 else (1 - config.tau_b) * self.m[i] + config.tau_b * batch_mean
            )
            bounded = q.detach() + torch.clamp(y_z - q.detach(), -3 * m, 3 * m)
            if config.critic_loss == "A":
                to_q = -(y - q.detach()) / (s**2 + 0.1) * q
                to_std = -((q.detach() - bounded) ** 2 - s**2) / (s**3 + 0.1) * std
                loss = loss + (m**2 + 0.1) * (to_q + to_std).mean()
            else:
                ratio = (m**2 / (s**2 + 0.1)).clamp(0.1, 10)
                huber = nn.HuberLoss(reduction="none", delta=50.0)
                to_std = std * (s**2 - huber(q.detach(), bounded)) / (s + 0.1)
                loss = loss + (ratio * (huber(q, y) + to_std)).mean()
        for adam in (*self.q_adam, self.pi_adam, self.alpha_adam):
            adam.zero_grad()
        loss.backward()
        q_gradients = [p.grad.clone() for q in self.q for p in q.parameters()]
        q_new = torch.minimum(*(self.heads(q, batch.obs, new_action)[0] for q in self.q))
        (alpha * new_log_prob - q_new).mean().backward()
        (-(self.log_alpha * (new_log_prob.detach() + -ACT)).mean()).backward()
        for p, gradient in zip((p for q in self.q for p in q.parameters()), q_gradients, strict=True):
            p.grad = gradient
        for adam in self.q_adam:
            adam.step()
        if self.iteration % config.delay == 0:
            self.pi_adam.step()
            self.alpha_adam.step()
            pairs = [*zip(self.q, self.q_target, strict=True), (self.pi, self.pi_target)]
            with torch.no_grad():
                for fast, slow in pairs:
                    for p, p_slow in zip(fast.parameters(), slow.parameters(), strict=True):
                        p_slow.copy_((1 - config.tau) * p_slow + config.tau * p)
        self.iteration += 1


def mlp(in_dim: int, hidden: tuple[int, ...], out_dim: int) -> nn.Sequential:
    widths = (in_dim, *hidden, out_dim)
    layers = [part for i in range(len(widths) - 1) for part in (nn.Linear(widths[i], widths[i + 1]), nn.GELU())]
    return nn.Sequential(*layers[:-1]).double()


@pytest.mark.parametrize("form", ["A", "B"])
def test_updates_equal_the_authors_form_on_the_same_weights_batches_and_noise(form, monkeypatch):
    config = DSACTConfig(
        critic_loss=form, learning_rate=1e-3, gamma=0.9, tau=0.1, tau_b=0.3, delay=2, actor_hidden=(16, 16),
        critic_hidden=(16, 16),
    )  # fmt: skip
    ours = DSACT(config, OBS, ACT)
    optimizers = (ours.actor_optimizer, ours.critic_optimizer, ours.alpha_optimizer)
    for module in (ours.policy, ours.policy_target, ours.critic, ours.critic_target, *optimizers):
        module.double()
    for tensor in (ours.mean_std, ours.log_alpha, ours.policy_metrics, ours._lr, ours._alpha_lr):
        tensor.data = tensor.double()
    with torch.no_grad():  # so that one action dimension is held by the upper bound of the log deviation
        for policy in (ours.policy, ours.policy_target):
            policy.body.layers[-1].bias[..., -1] = 0.6
    reference = Reference(ours)

    stream: list[torch.Tensor] = []
    monkeypatch.setattr(torch, "randn", lambda *a, **k: stream.pop(0).clone())
    for i in range(5):
        g = torch.Generator().manual_seed(100 + i)
        draw = lambda *shape, g=g: torch.empty(shape, dtype=torch.float64).normal_(generator=g)  # noqa: E731
        next_noise, z, noise = draw(BATCH, ACT), 2 * draw(BATCH), draw(BATCH, ACT)  # 2: so that the clip at 3 is hit
        stream[:] = [torch.cat((noise, next_noise)), z]
        batch = make_batch_without_randn(i)
        metrics = ours.update(batch)
        reference.update(batch, next_noise, z, noise)
        assert all(value.isfinite() for value in metrics.values())

    for i in range(2):
        for network, theirs in ((ours.critic, reference.q[i]), (ours.critic_target, reference.q_target[i])):
            assert_layers_equal(network.sequential(i), theirs)
    assert_layers_equal(ours.policy.body.sequential(0), reference.pi)
    assert_layers_equal(ours.policy_target.body.sequential(0), reference.pi_target)
    assert ours.log_alpha.item() == pytest.approx(reference.log_alpha.item(), abs=1e-12)
    assert ours.mean_std.flatten().tolist() == pytest.approx(reference.m, rel=1e-12)
    start = DSACT(config, OBS, ACT)
    assert (vector(ours.critic) - vector(start.critic)).abs().max() > 3e-3  # five steps of 1e-3 that mostly agree


def vector(module: torch.nn.Module) -> torch.Tensor:
    """A copy of all parameters."""
    return parameters_to_vector(module.parameters()).detach()


def make_batch_without_randn(seed: int) -> Batch:
    g = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.empty(shape, dtype=torch.float64).normal_(generator=g)  # noqa: E731
    ended = (torch.rand(BATCH, generator=g) < 0.2).double()
    return Batch(normal(BATCH, OBS), normal(BATCH, ACT).tanh(), 3 * normal(BATCH), ended, 1 - ended, normal(BATCH, OBS))


def assert_layers_equal(ours: nn.Module, theirs: nn.Module) -> None:
    for (name, one), two in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-9, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "low", "high"), [("A", 6.0, 7.2), ("B", 0.8, 1.2)])
def test_where_the_deviation_settles_with_networks(form, low, high):
    """The one-state problem through the whole algorithm, with next to no entropy bonus; over seeds, because what a
    network settles at wanders with the batches (by 0.5 with batches of 256, by 0.15 with these)."""
    values = []
    for seed in range(3):
        config = DSACTConfig(
            critic_loss=form, learning_rate=3e-3, alpha_learning_rate=1e-9, initial_alpha=1e-9, delay=1, tau=0.05,
            **SMALL,
        )  # fmt: skip
        dsact = DSACT(config, 1, 1, seed=seed)
        g, n, updates = torch.Generator().manual_seed(seed), 2048, 5000
        obs, none = torch.ones(n, 1), torch.zeros(n)
        for i in range(updates):
            action, reward = torch.rand(n, 1, generator=g) * 2 - 1, torch.randn(n, generator=g)
            metrics = dsact.update(Batch(obs, action, reward, none, none, obs), lr_scale=1 - i / updates)
            if i >= updates - 1000:
                values.append(metrics["return_std"].item())
    assert low < float(np.mean(values)) < high


def test_policy_temperature_and_targets_move_at_every_delayth_update_and_critics_at_each():
    dsact = DSACT(DSACTConfig(delay=3, **SMALL), OBS, ACT)
    drawn = []
    run = dsact.policy.run
    dsact.policy.run = lambda *a: (drawn.append(1), run(*a))[1]
    moved = []
    for i in range(7):
        before = {k: v.clone() for k, v in dsact.state_dict().items()}
        metrics = dsact.update(make_batch(seed=i))
        after = dsact.state_dict()
        changed = {k.split(".")[0] for k in after if k not in before or not torch.equal(before[k], after[k])}
        assert {"critic", "critic_optimizer", "mean_std", "updates", "generator"} <= changed
        delayed = {"actor", "actor_target", "critic_target", "log_alpha", "actor_optimizer", "alpha_optimizer"}
        assert changed & delayed in (delayed, set())
        moved.append("actor" in changed)
        assert len(drawn) == sum(moved), "gradients that are not used are not computed"
        assert metrics["entropy"] == after["policy_metrics"][2]
    assert moved == [True, False, False, True, False, False, True]


@pytest.mark.slow
def test_compiled_updates_equal_plain_ones():
    plain, compiled = DSACT(DSACTConfig(**SMALL), OBS, ACT), DSACT(DSACTConfig(**SMALL, compile=True), OBS, ACT)
    for i in range(6):
        one, two = plain.update(make_batch(seed=i), 1 - i / 6), compiled.update(make_batch(seed=i), 1 - i / 6)
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)
    assert (vector(plain.critic) - vector(compiled.critic)).abs().mean() < 0.02 * 6 * plain.config.learning_rate


def test_running_deviation_starts_with_the_first_batch_and_follows_by_tau_b():
    dsact = DSACT(DSACTConfig(tau_b=0.25, **SMALL), OBS, ACT)
    expected = None
    for i in range(3):
        batch = make_batch(seed=i)
        mean = dsact.critic(batch.obs, batch.action)[1].detach().mean(-1, keepdim=True)
        expected = mean if expected is None else 0.75 * expected + 0.25 * mean
        dsact.update(batch)
        torch.testing.assert_close(dsact.mean_std, expected)
    assert dsact.mean_std.shape == (2, 1)
    assert dsact.mean_std[0] != dsact.mean_std[1]


def test_initial_temperature_in_deviations_of_the_reward():
    """Taken from the first batch and never again, also not after a resume."""
    config = DSACTConfig(initial_alpha=0.5, initial_alpha_units="reward_std", alpha_learning_rate=1e-9, **SMALL)
    for scale in (0.1, 1.0, 10.0):
        batch = make_batch()
        batch.reward.mul_(scale)
        dsact = DSACT(config, OBS, ACT)
        expected = 0.5 * float(np.std(batch.reward.numpy()))
        assert dsact.update(batch)["alpha"].item() == pytest.approx(expected, rel=1e-5)
        resumed = DSACT(config, OBS, ACT)
        resumed.load_state_dict(dsact.state_dict())
        assert resumed.update(make_batch(seed=1))["alpha"].item() == pytest.approx(expected, rel=1e-5)
    alike = make_batch()
    alike.reward.fill_(1.0)
    assert DSACT(config, OBS, ACT).update(alike)["alpha"].item() == pytest.approx(0.5e-3, rel=1e-5)
    with pytest.raises(ConfigError, match="reward_std"):
        DSACTConfig(initial_alpha_units="std")


def test_lr_scale_shrinks_every_step():
    """Adam's first step is the learning rate times the gradient's sign, whatever the gradient."""
    dsact = DSACT(DSACTConfig(learning_rate=1e-2, alpha_learning_rate=5e-2, **SMALL), OBS, ACT)
    before = {name: value.clone() for name, value in dsact.state_dict().items()}
    dsact.update(make_batch(), lr_scale=0.1)
    after = dsact.state_dict()
    for name in ("actor", "critic"):
        moved = [float((after[k] - before[k]).abs().max()) for k in before if k.startswith(f"{name}.")]
        assert max(moved) == pytest.approx(1e-3, rel=1e-3)
    assert abs(float(after["log_alpha"] - before["log_alpha"])) == pytest.approx(5e-3, rel=1e-3)


def test_temperature_of_before_the_step_enters_the_losses():
    dsact = DSACT(DSACTConfig(alpha_learning_rate=0.5, initial_alpha=0.3, **SMALL), OBS, ACT)
    assert dsact.update(make_batch())["alpha"].item() == pytest.approx(0.3)
    assert abs(dsact.log_alpha.exp().item() - 0.3) > 0.1


def after_one_update(batch: Batch, **config) -> dict[str, torch.Tensor]:
    dsact = DSACT(DSACTConfig(**SMALL, **config), OBS, ACT)
    dsact.update(batch)
    return {k: v.clone() for k, v in dsact.state_dict().items()}


def test_discounts_of_the_batch_replace_gamma():
    gamma = 0.9
    plain = after_one_update(make_batch(), gamma=gamma)
    given = after_one_update(make_batch(discount=torch.full((BATCH,), gamma)), gamma=0.3)
    other = after_one_update(make_batch(discount=torch.full((BATCH,), gamma**3)), gamma=gamma)
    torch.testing.assert_close(given["critic_optimizer.means.2"], plain["critic_optimizer.means.2"])
    assert not torch.allclose(other["critic_optimizer.means.2"], plain["critic_optimizer.means.2"])


def test_weights_scale_each_samples_part_of_the_gradients():
    """Adam's first moment after one step is a tenth of the gradient, which is linear in the weights."""
    masks = torch.arange(BATCH) < 20
    parts = [after_one_update(make_batch(weight=w)) for w in (masks.float(), 3 * (~masks).float())]
    both = after_one_update(make_batch(weight=torch.where(masks, 1.0, 3.0)))
    for name in ("critic_optimizer.means.2", "actor_optimizer.means.2"):
        torch.testing.assert_close(both[name], parts[0][name] + parts[1][name], rtol=1e-4, atol=1e-7)
        assert parts[0][name].abs().max() > 1e-4
    ones = after_one_update(make_batch(weight=torch.ones(BATCH)))
    torch.testing.assert_close(ones["critic.layers.1.weight"], after_one_update(make_batch())["critic.layers.1.weight"])


def test_time_limits():
    """Bootstrapped through, a truncated row is like any other; as an end, it is like a terminated one."""
    batch, no, yes = make_batch(), torch.zeros(BATCH), torch.ones(BATCH)
    name = "critic_optimizer.means.2"
    neither = after_one_update(replace(batch, terminated=no, truncated=no))[name]
    ended = after_one_update(replace(batch, terminated=yes, truncated=no))[name]
    cut = replace(batch, terminated=no, truncated=yes)
    assert torch.equal(after_one_update(cut, time_limit="bootstrap")[name], neither)
    assert torch.equal(after_one_update(cut, time_limit="terminal")[name], ended)
    assert not torch.allclose(neither, ended)


def test_entropy_in_environment_units_is_a_shift_of_the_target_entropy_and_a_bonus():
    half_range = torch.tensor([0.4, 2.0, 5.0])
    shift = half_range.log().sum().item()
    environment = DSACT(
        DSACTConfig(entropy_units="environment", target_entropy=-1.0, **SMALL), OBS, ACT, action_half_range=half_range
    )
    normalized = DSACT(DSACTConfig(target_entropy=-1.0 - shift, **SMALL), OBS, ACT)
    batch = make_batch()
    arguments = (batch, torch.tensor(0.5), torch.zeros(BATCH, ACT), torch.zeros(BATCH))
    bonus = environment._targets(*arguments)[0] - normalized._targets(*arguments)[0]
    torch.testing.assert_close(bonus, 0.99 * (1 - batch.terminated) * 0.5 * shift, rtol=1e-4, atol=1e-5)
    ours, reference = environment.update(batch), normalized.update(batch)
    assert ours["entropy"].item() == pytest.approx(reference["entropy"].item() + shift, rel=1e-5)
    torch.testing.assert_close(environment.log_alpha, normalized.log_alpha)
    with pytest.raises(ConfigError, match="action_half_range"):
        DSACT(DSACTConfig(entropy_units="environment"), OBS, ACT)


@pytest.mark.parametrize("done", [3, 4])
@pytest.mark.parametrize("form", ["A", "B"])
def test_state_restores_the_future_exactly(form, done):
    """Whether the next update moves the policy or not."""
    config = DSACTConfig(critic_loss=form, normalize_obs=True, **SMALL)
    first, second = DSACT(config, OBS, ACT, seed=1), DSACT(config, OBS, ACT, seed=2)
    first.observe(make_batch().obs * 3 + 1)
    for i in range(done):
        first.update(make_batch(seed=i))
    state = {k: v.clone() for k, v in first.state_dict().items()}
    second.load_state_dict(state)
    for i in range(10, 15):
        assert first.update(make_batch(seed=i)) == second.update(make_batch(seed=i))
    one, two = first.state_dict(), second.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["critic.layers.1.weight"], state["critic.layers.1.weight"])
    obs = make_batch(seed=9).obs
    assert torch.equal(first.act(obs), second.act(obs))
    torch.testing.assert_close(first.act(obs, deterministic=True), first.actor()(first.normalizer(obs)))


def test_a_state_without_the_running_deviation_is_refused():
    dsact = DSACT(DSACTConfig(**SMALL), OBS, ACT)
    state = dict(dsact.state_dict())
    del state["mean_std"]
    with pytest.raises(CheckpointError, match="mean_std"):
        dsact.load_state_dict(state)


def test_reported_values_do_not_change_with_later_updates():
    dsact = DSACT(DSACTConfig(delay=1, **SMALL), OBS, ACT)
    metrics = dsact.update(make_batch())
    assert tuple(metrics) == dsact.metrics
    kept = {k: v.item() for k, v in metrics.items()}
    dsact.update(make_batch(seed=1))
    assert kept == {k: v.item() for k, v in metrics.items()}


@pytest.mark.parametrize(
    "bad",
    [{"gamma": 1.5}, {"tau": 0.0}, {"tau_b": 2.0}, {"delay": 0}, {"alpha_learning_rate": -1.0}, {"critic_loss": "C"}],
)
def test_bad_hyperparameters_are_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        DSACTConfig(**bad)


def test_seed_decides_weights_and_samples_and_the_global_stream_is_untouched():
    before = torch.get_rng_state()
    a, b, c = (DSACT(DSACTConfig(), OBS, ACT, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    obs = torch.ones(4, OBS)
    first = a.act(obs)
    assert torch.equal(first, b.act(obs))
    assert not torch.equal(first, c.act(obs))
    assert a.log_alpha.exp().item() == pytest.approx(math.e)
    assert isinstance(get_algorithm("dsact").make(DSACTConfig(), OBS, ACT), DSACT)
