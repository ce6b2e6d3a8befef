"""ARSQ against independent truths: sums over the whole action grid, and numbers worked out by hand."""

import dataclasses
import itertools
import math

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from robot_rl.algorithms.arsq import (
    ARSQ,
    ARSQConfig,
    bc_loss,
    bc_violation,
    centres,
    decode,
    encode,
    normalize_advantage,
    prefixes,
    rl_loss,
    soft_target,
)
from robot_rl.algorithms.arsq import bc_loss as bc_loss_of
from robot_rl.algorithms.compiling import compiler_found
from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.replay.ring_buffer import Batch

OBS, ACT, BATCH = 4, 2, 32
SMALL = {"hidden": (16, 16), "batch_size": BATCH}


def make_batch(seed: int = 0, n: int = BATCH, demonstration: torch.Tensor | None = None) -> Batch:
    g = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(shape, generator=g)  # noqa: E731
    ended = (torch.rand(n, generator=g) < 0.2).float()
    action = normal(n, ACT).tanh()
    return Batch(normal(n, OBS), action, normal(n), ended, torch.zeros(n), normal(n, OBS), demonstration=demonstration)


def vector(module: torch.nn.Module) -> torch.Tensor:
    """A copy of all parameters."""
    return parameters_to_vector(module.parameters()).detach()


def spread(arsq: ARSQ, seed: int = 0) -> ARSQ:
    """Weights of order one, so that advantages differ by many temperatures."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for stack in (arsq.advantage, arsq.value):
            for parameter in stack.parameters():
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=g))
        arsq.value_target.load_state_dict(arsq.value.state_dict())
    return arsq


# The discretisation.


def test_choices_are_nested_intervals_by_hand():
    """B = 3, L = 2: cells of width 2/9. 0.5 lies in the last third [1/3, 1], and there in its first part [1/3, 5/9]."""
    action = torch.tensor([[0.5], [-1.0], [1.0], [0.0], [7.0]])
    choices = encode(action, levels=2, bins=3)
    assert choices[:, :, 0].tolist() == [[2, 0], [0, 0], [2, 2], [1, 1], [2, 2]]
    torch.testing.assert_close(decode(choices, 3)[:, 0], torch.tensor([4 / 9, -8 / 9, 8 / 9, 0.0, 8 / 9]))
    torch.testing.assert_close(centres(choices[:1], 3)[0, :, 0], torch.tensor([0.0, 2 / 3, 4 / 9]))


@pytest.mark.parametrize(("levels", "bins"), [(1, 41), (2, 7), (3, 5), (4, 2)])
def test_round_trip_is_within_half_a_bin_and_exact_on_centres(levels, bins):
    action = 2 * torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) - 1
    choices = encode(action, levels, bins)
    assert choices.min() == 0
    assert choices.max() == bins - 1
    assert (decode(choices, bins) - action).abs().max() <= bins**-levels + 1e-6
    every = torch.tensor(list(itertools.product(range(bins), repeat=levels))).unsqueeze(-1)
    assert torch.equal(encode(decode(every, bins), levels, bins), every)


def test_prefix_by_hand():
    """Two dimensions, two levels of three bins; dimension 0 takes (2, 0), dimension 1 takes (0, 1)."""
    choices = torch.tensor([[[2, 0], [0, 1]]])
    a = (2 / 3, 4 / 9)  # centres of dimension 0 after each level
    b = -2 / 3  # of dimension 1 after the first
    expected = {
        "prefix": [[0, 0], [a[0], 0], [a[0], b], [a[1], b]],
        "level": [[0, 0], [0, 0], [a[0], b], [a[0], b]],
        "none": [[0, 0]] * 4,
    }
    for conditioning, rows in expected.items():
        torch.testing.assert_close(prefixes(choices, 3, conditioning)[0], torch.tensor(rows, dtype=torch.float32))


# The identities.


def test_every_conditional_is_a_distribution():
    arsq = spread(ARSQ(ARSQConfig(**SMALL), OBS, ACT))
    batch = make_batch()
    _, advantage, _ = arsq.evaluate(batch.obs, batch.action)
    assert advantage.shape == (2, BATCH, 2 * ACT, 7)
    torch.testing.assert_close((advantage / 0.01).exp().sum(-1), torch.ones(2, BATCH, 2 * ACT), atol=1e-5, rtol=0)
    assert advantage.min() < -1  # a hundred temperatures: the sum is no sum of equal terms


@pytest.mark.parametrize("conditioning", ["prefix", "level", "none"])
@pytest.mark.parametrize(("levels", "bins"), [(1, 7), (2, 3)])
def test_value_is_the_soft_maximum_over_the_enumerated_grid(levels, bins, conditioning):
    """α log Σ_a exp(Q(s, a) / α) over every action of the grid equals the output of V, for any weights."""
    config = ARSQConfig(levels=levels, bins=bins, alpha=0.3, conditioning=conditioning, **SMALL)
    arsq = spread(ARSQ(config, OBS, ACT))
    arsq.advantage.double()
    arsq.value.double()
    cells = bins**levels
    line = (2 * torch.arange(cells) + 1) / cells - 1
    grid = torch.cartesian_prod(line, line)
    obs = torch.randn(1, OBS, dtype=torch.float64).expand(len(grid), -1)
    value, advantage, choices = arsq.evaluate(obs, grid)
    taken = advantage.gather(-1, choices.expand(2, -1, -1).unsqueeze(-1)).squeeze(-1)
    q = value + taken.sum(-1)
    torch.testing.assert_close(0.3 * (q / 0.3).logsumexp(-1), value[:, 0])


def test_each_choice_depends_on_the_choices_before_it_and_on_no_other():
    arsq = spread(ARSQ(ARSQConfig(**SMALL), OBS, ACT))
    obs = torch.randn(1, OBS)
    base = torch.zeros(1, 2, ACT, dtype=torch.long)
    order = [(level, dim) for level in range(2) for dim in range(ACT)]
    of = lambda choices: arsq.evaluate(obs, decode(choices, 7))[1][:, 0]  # noqa: E731
    for position, (level, dim) in enumerate(order):
        changed = base.clone()
        changed[0, level, dim] = 5
        moved = (of(changed) - of(base)).abs().amax((0, 2)) > 1e-4
        assert moved.tolist() == [i > position for i in range(len(order))]


# The losses.


def test_target_and_rl_loss_by_hand():
    target = soft_target(
        torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0]), torch.tensor([[4.0, 4.0], [2.0, 9.0]]), 0.5
    )
    assert target.tolist() == [2.0, 1.0]
    q = torch.tensor([[3.0, 1.0], [2.0, 4.0]])
    assert rl_loss(q, target).item() == pytest.approx((1 + 0) / 2 + (0 + 9) / 2)
    assert rl_loss(q, target, torch.tensor([2.0, 1.0])).item() == pytest.approx((2 + 0) / 2 + (0 + 9) / 2)


def test_normalised_advantage_by_hand():
    advantage = normalize_advantage(torch.tensor([0.0, 2 * math.log(3.0)]), alpha=2.0)
    torch.testing.assert_close(advantage, torch.tensor([2 * math.log(0.25), 2 * math.log(0.75)]))


@pytest.mark.parametrize(
    ("kind", "clamp", "expected"),
    [
        ("margin", -10.0, (-1.0 + 0.5 - 2.0) / 3),
        ("margin", -1.5, (-1.0 + 0.5 - 1.5) / 3),
        ("margin", 1.0, 1.0),
        ("cql", -10.0, math.log(math.exp(-1) + math.exp(0.5) + math.exp(-2))),
        ("cql", 2.0, 2.0),
    ],
)
def test_violations_by_hand(kind, clamp, expected):
    advantage = torch.tensor([-2.0, -1.0, -0.5, -3.0])
    violation = bc_violation(advantage.unsqueeze(0), torch.tensor([1]), kind, clamp)
    assert violation.item() == pytest.approx(expected)


def test_a_clamped_violation_has_no_gradient():
    advantage = torch.tensor([[-1.0, -2.0, -4.0]], requires_grad=True)
    bc_violation(advantage, torch.tensor([0]), "margin", -2.0).sum().backward()
    torch.testing.assert_close(advantage.grad, torch.tensor([[-0.5, 0.5, 0.0]]))


def test_cloning_sees_demonstrations_only():
    violation = torch.arange(2 * 3 * 4, dtype=torch.float32).view(2, 3, 4)
    loss = bc_loss(violation, torch.tensor([1.0, 0.0, 1.0]))
    assert loss.item() == pytest.approx(float(violation[:, [0, 2]].sum()) / 2)
    assert bc_loss(violation, torch.zeros(3)).item() == 0.0


@pytest.mark.parametrize("conditioning", ["prefix", "level", "none"])
def test_losses_equal_a_loop_over_prefixes_and_ordinary_layers(conditioning):
    config = ARSQConfig(levels=2, bins=3, alpha=0.2, conditioning=conditioning, bc_weight=0.7, bc_clamp=-0.3, **SMALL)
    arsq = spread(ARSQ(config, OBS, ACT))
    demonstration = (torch.arange(BATCH) % 2).float()
    batch = make_batch(demonstration=demonstration)
    with torch.no_grad():
        next_v = torch.stack([arsq.value.sequential(i)(batch.next_obs)[:, 0] for i in range(2)]).amin(0)
    target = batch.reward + 0.99 * (1 - batch.terminated) * next_v
    expected_rl, expected_bc = torch.zeros(()), torch.zeros(())
    for i in range(2):
        net, value = arsq.advantage.sequential(i), arsq.value.sequential(i)
        for row in range(BATCH):
            known, q = [0.0] * ACT, value(batch.obs[row])[0]
            width = 2.0
            for level in range(2):
                at_level = list(known)
                for dim in range(ACT):
                    seen = {"prefix": known, "level": at_level, "none": [0.0] * ACT}[conditioning]
                    out = net(torch.cat((batch.obs[row], torch.tensor(seen))))
                    u = out[(level * ACT + dim) * 3 :][:3]
                    a = u - 0.2 * (u / 0.2).logsumexp(0)
                    low = known[dim] - width / 2
                    chosen = min(2, int((batch.action[row, dim] - low) / (width / 3)))
                    q = q + a[chosen]
                    others = [a[b] - a[chosen] for b in range(3) if b != chosen]
                    if demonstration[row]:
                        expected_bc += sum(torch.clamp(o, min=-0.3) for o in others) / 2 / demonstration.sum()
                    known[dim] = low + (chosen + 0.5) * width / 3
                width /= 3
            expected_rl += (q - target[row]) ** 2 / BATCH
    metrics = arsq.update(batch)
    assert metrics["rl_loss"].item() == pytest.approx(expected_rl.item(), rel=1e-4)
    assert metrics["bc_loss"].item() == pytest.approx(expected_bc.item(), rel=1e-4)


@pytest.mark.parametrize("bc_loss", ["margin", "cql"])
@pytest.mark.parametrize("conditioning", ["prefix", "level", "none"])
def test_the_step_is_adam_s_along_the_gradient_of_the_losses(conditioning, bc_loss):
    """Autograd through `evaluate`, which knows no other way to the parameters, and torch's own Adam."""
    config = ARSQConfig(levels=2, bins=3, alpha=0.2, conditioning=conditioning, bc_loss=bc_loss, **SMALL)
    arsq, other = (spread(ARSQ(config, OBS, ACT)) for _ in range(2))
    optimizer = torch.optim.Adam(
        [*other.advantage.parameters(), *other.value.parameters()], lr=0.5 * config.learning_rate
    )
    demonstration, weight = (torch.arange(BATCH) % 2).float(), torch.rand(BATCH)
    for i in range(3):
        batch = dataclasses.replace(make_batch(i, demonstration=demonstration), weight=weight)
        with torch.no_grad():
            target = soft_target(batch.reward, batch.terminated, other.value_target(batch.next_obs)[..., 0], 0.99)
        value, advantage, choices = other.evaluate(batch.obs, batch.action)
        taken = advantage.gather(-1, choices.expand(2, -1, -1).unsqueeze(-1)).squeeze(-1)
        violation = bc_violation(advantage, choices.expand(2, -1, -1), bc_loss, config.bc_clamp)
        cloning = config.bc_weight * bc_loss_of(violation, demonstration, weight)
        optimizer.zero_grad()
        (rl_loss(value + taken.sum(-1), target, weight) + cloning).backward()
        optimizer.step()
        for behind, ahead in zip(other.value_target.parameters(), other.value.parameters(), strict=True):
            behind.lerp_(ahead.detach(), config.tau)
        arsq.update(batch, lr_scale=0.5)
    for mine, theirs in ((arsq.advantage, other.advantage), (arsq.value, other.value)):
        torch.testing.assert_close(vector(mine), vector(theirs), atol=2e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(not compiler_found(), reason="no C++ compiler")
def test_compiled_updates_equal_plain_ones():
    config = ARSQConfig(**SMALL)
    plain, compiled = ARSQ(config, OBS, ACT), ARSQ(dataclasses.replace(config, compile=True), OBS, ACT)
    demonstration = (torch.arange(BATCH) % 2).float()
    for i in range(6):
        batch = make_batch(i, demonstration=demonstration)
        one, two = plain.update(batch, 1 - i / 6), compiled.update(batch, 1 - i / 6)
        for name in plain.metrics:
            assert one[name].item() == pytest.approx(two[name].item(), rel=1e-4, abs=1e-5), name
    assert (vector(plain.advantage) - vector(compiled.advantage)).abs().mean() < 0.02 * 6 * config.learning_rate
    assert (vector(plain.value) - vector(compiled.value)).abs().mean() < 0.02 * 6 * config.learning_rate


def test_without_demonstrations_the_cloning_loss_is_zero():
    arsq = ARSQ(ARSQConfig(**SMALL), OBS, ACT)
    assert arsq.update(make_batch())["bc_loss"] == 0
    assert arsq.update(make_batch(demonstration=torch.zeros(BATCH)))["bc_loss"] == 0
    assert arsq.update(make_batch(demonstration=torch.ones(BATCH)))["bc_loss"] != 0


# Acting.


@pytest.mark.parametrize("conditioning", ["prefix", "level", "none"])
def test_greedy_action_follows_the_smaller_advantage_choice_by_choice(conditioning):
    """The teacher-forced pass on the action taken must show, at every choice, that its bin had the highest minimum."""
    arsq = spread(ARSQ(ARSQConfig(conditioning=conditioning, **SMALL), OBS, ACT))
    obs = torch.randn(50, OBS)
    action = arsq.act(obs, deterministic=True)
    _, advantage, choices = arsq.evaluate(obs, action)
    assert torch.equal(advantage.amin(0).argmax(-1), choices)
    torch.testing.assert_close(decode(encode(action, 2, 7), 7), action)


def test_sampled_actions_have_the_policy_s_frequencies():
    config = ARSQConfig(levels=1, bins=3, alpha=0.5, **SMALL)
    arsq = spread(ARSQ(config, OBS, 2))
    obs = torch.randn(1, OBS)
    n = 40_000
    choices = encode(arsq.act(obs.expand(n, -1)), 1, 3)[:, 0]
    counts = torch.zeros(3, 3).index_put_((choices[:, 0], choices[:, 1]), torch.ones(n), accumulate=True)
    for i, j in itertools.product(range(3), range(3)):
        chosen = decode(torch.tensor([[[i, j]]]), 3)
        conditional = (arsq.evaluate(obs, chosen)[1].detach().amin(0)[0] / 0.5).softmax(-1)
        p = float(conditional[0, i] * conditional[1, j])
        assert abs(float(counts[i, j]) / n - p) < 5 * math.sqrt(p * (1 - p) / n) + 1e-9


def test_actor_is_the_greedy_policy_with_weights_of_its_own_and_runs_in_onnx(tmp_path):
    arsq = spread(ARSQ(ARSQConfig(**SMALL), OBS, 3))
    obs = torch.randn(200, OBS)
    expected = arsq.act(obs, deterministic=True)
    actor = arsq.actor().eval()
    spread(arsq, seed=1)  # training goes on
    assert torch.equal(actor(obs), expected)
    path = tmp_path / "actor.onnx"
    torch.onnx.export(
        actor, (torch.zeros(2, OBS),), path, dynamo=True, verbose=False, external_data=False, opset_version=20,
        dynamic_shapes=({0: torch.export.Dim("n")},),
    )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for rows in (1, 200):
        np.testing.assert_allclose(session.run(None, {name: obs[:rows].numpy()})[0], expected[:rows], atol=1e-6)


# State.


@pytest.mark.parametrize("normalize", [False, True])
def test_state_restores_the_future_exactly(normalize):
    config = ARSQConfig(normalize_obs=normalize, **SMALL)
    first, second = ARSQ(config, OBS, ACT, seed=1), ARSQ(config, OBS, ACT, seed=2)
    first.observe(make_batch().obs * 3 + 1)
    demonstration = (torch.arange(BATCH) < BATCH // 2).float()
    for i in range(3):
        first.update(make_batch(i, demonstration=demonstration))
        first.act(make_batch(i).obs)
    second.load_state_dict({k: v.clone() for k, v in first.state_dict().items()})
    for i in range(3, 6):
        batch = make_batch(i, demonstration=demonstration)
        assert first.update(batch) == second.update(batch)
    obs = make_batch(9).obs
    assert torch.equal(first.act(obs), second.act(obs))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_targets_follow_and_lr_scale_shrinks_the_step():
    arsq = ARSQ(ARSQConfig(tau=0.25, learning_rate=1e-2, **SMALL), OBS, ACT)
    value, target = vector(arsq.value), vector(arsq.value_target)
    arsq.update(make_batch(), lr_scale=0.1)
    assert (vector(arsq.value) - value).abs().max().item() == pytest.approx(1e-3, rel=1e-3)
    torch.testing.assert_close(vector(arsq.value_target), 0.75 * target + 0.25 * vector(arsq.value))


def test_a_time_limit_bootstraps_and_an_n_step_discount_is_used():
    batch = make_batch()
    one = torch.ones(BATCH)
    cut = Batch(batch.obs, batch.action, batch.reward, 0 * one, one, batch.next_obs, discount=0.5 * one)
    targets = {}
    for limit in ("bootstrap", "terminal"):
        arsq = spread(ARSQ(ARSQConfig(time_limit=limit, **SMALL), OBS, ACT))
        next_v = arsq.value(batch.next_obs).squeeze(-1).amin(0).mean().item()
        targets[limit] = arsq.update(cut)["target"].item()
    assert targets["terminal"] == pytest.approx(batch.reward.mean().item(), rel=1e-5)
    assert targets["bootstrap"] == pytest.approx(batch.reward.mean().item() + 0.5 * next_v, rel=1e-5)


def test_loading_another_discretisation_says_so():
    with pytest.raises(CheckpointError, match="does not fit"):
        ARSQ(ARSQConfig(bins=9, **SMALL), OBS, ACT).load_state_dict(ARSQ(ARSQConfig(**SMALL), OBS, ACT).state_dict())


@pytest.mark.parametrize(
    "bad", [{"bins": 1}, {"levels": 0}, {"alpha": 0.0}, {"bc_weight": -1.0}, {"hidden": ()}, {"levels": 8, "bins": 7}]
)
def test_bad_hyperparameters_are_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        ARSQConfig(**bad)


def test_hidden_layers_start_orthogonal_and_all_bins_nearly_equal():
    arsq = ARSQ(ARSQConfig(hidden=(32, 32)), OBS, ACT)
    weight = arsq.advantage.layers[1].weight[0]
    torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(32))
    u = nn.Sequential(*arsq.advantage.sequential(0))(torch.randn(100, OBS + ACT))
    assert u.abs().max() < 0.2
