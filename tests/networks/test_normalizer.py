import numpy as np
import torch

from robot_rl.networks.normalizer import Normalizer, make_normalizer


def test_statistics_equal_numpy_whatever_the_batching():
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(1000, 3)) * [1e-2, 1.0, 300.0] + [5.0, 0.0, -1e4]).astype(np.float32)
    normalizer = Normalizer(3, eps=0.0, clip=100.0)
    for part in np.split(data, [1, 2, 40, 41, 700]):
        normalizer.update(torch.from_numpy(part))
    wide = data.astype(np.float64)
    np.testing.assert_allclose(normalizer.mean, wide.mean(0), rtol=1e-6)
    np.testing.assert_allclose(1 / normalizer.inverse_std, wide.std(0), rtol=1e-5)
    out = normalizer(torch.from_numpy(data)).numpy()
    np.testing.assert_allclose(out, (wide - wide.mean(0)) / wide.std(0), atol=2e-2)


def test_forward_clips_and_never_changes_the_statistics():
    normalizer = Normalizer(2, clip=5.0)
    normalizer.update(torch.randn(50, 2))
    before = {k: v.clone() for k, v in normalizer.state_dict().items()}
    out = normalizer.train()(torch.tensor([[1e9, -1e9]]))
    assert out.tolist() == [[5.0, -5.0]]
    assert all(torch.equal(v, before[k]) for k, v in normalizer.state_dict().items())


def test_identity_before_the_first_update_and_when_switched_off():
    obs = torch.randn(4, 3)
    assert torch.equal(Normalizer(3)(obs), obs)
    assert torch.equal(make_normalizer(False, 3)(obs), obs)


def test_constant_observation_stays_finite_and_small():
    normalizer = Normalizer(1)
    for _ in range(100):
        normalizer.update(torch.full((8, 1), 0.1))
    assert normalizer(torch.full((1, 1), 0.1)).abs().item() < 1e-2
