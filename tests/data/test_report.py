"""Each number of a report, on data for which it is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from robot_rl.data.dataset import Dataset
from robot_rl.data.plot import plot_report
from robot_rl.data.report import Report, effective_number, make_report, principal_components
from robot_rl.replay.ring_buffer import Batch


def dataset(lengths, rewards=None, obs=None, action=None, **more) -> Dataset:
    """Episodes that are truncated, of independent normal observations and uniform actions unless given."""
    n, rng = sum(lengths), np.random.default_rng(0)
    obs = torch.tensor(rng.normal(size=(n, 3)) if obs is None else obs, dtype=torch.float32)
    action = torch.tensor(rng.uniform(-1, 1, (n, 2)) if action is None else action, dtype=torch.float32)
    truncated = torch.zeros(n)
    truncated[np.cumsum(lengths) - 1] = 1
    reward = torch.ones(n) if rewards is None else torch.tensor(rewards, dtype=torch.float32)
    return Dataset(Batch(obs, action, reward, torch.zeros(n), truncated, obs.roll(-1, 0)), **more)


def test_lengths_returns_and_ends():
    data = dataset([1, 2, 3, 4], rewards=[1, 1, 1, 2, 2, 2, 5, 5, 5, 5])
    data.transitions.truncated[2], data.transitions.terminated[2] = 0, 1
    data.transitions.truncated[9] = 0
    values = make_report(data).values
    assert (values["episodes"], values["steps"]) == (4, 10)
    assert (values["end/terminated"], values["end/truncated"], values["end/cut without a flag"]) == (1, 2, 1)
    assert (values["length/min"], values["length/mean"], values["length/max"]) == (1, 2.5, 4)
    # Returns 1, 2, 6 and 20.
    assert (values["return/min"], values["return/median"], values["return/max"]) == (1, 4, 20)
    assert values["return/mean"] == 7.25
    assert values["return/std"] == pytest.approx(np.std([1, 2, 6, 20]))
    assert values["quality/best tenth returns"] == 20
    assert values["quality/best tenth holds"] == pytest.approx(19 / (0 + 1 + 5 + 19))
    assert values["quality/upside"] == pytest.approx(np.sqrt((20 - 7.25) ** 2 / 4))


def test_a_normalised_return_where_references_are_known():
    data = dataset([2, 2], about={"ref_min_score": "1", "ref_max_score": "5"})
    assert make_report(data).values["quality/normalised return"] == 0.25
    assert "quality/normalised return" not in make_report(dataset([2, 2])).values


def test_the_share_of_the_best_tenth_of_equal_and_of_lone_episodes():
    assert make_report(dataset([1] * 20, rewards=[3] * 20)).values["quality/best tenth holds"] is None
    lone = make_report(dataset([1] * 20, rewards=[0] * 19 + [1])).values
    assert lone["quality/best tenth holds"] == 1


def test_principal_components_are_those_of_the_correlation_matrix():
    rng = np.random.default_rng(1)
    obs = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) * [1, 10, 0.1, 3] + [5, 0, 0, -2]
    obs = np.concatenate((obs, np.full((500, 1), 7.0)), axis=1)
    components, shares = principal_components(obs)
    eigenvalues = np.sort(np.linalg.eigvals(np.corrcoef(obs[:, :4].T)).real)[::-1]
    np.testing.assert_allclose(shares, eigenvalues / 4, rtol=1e-6)
    np.testing.assert_allclose(components.std(0), 1, rtol=1e-6)
    np.testing.assert_allclose(np.corrcoef(components.T), np.eye(2), atol=1e-6)


def test_effective_numbers():
    assert effective_number(np.array([0.25] * 4)) == pytest.approx(4)
    assert effective_number(np.array([1.0, 0, 0])) == 1
    assert effective_number(np.array([0.5, 0.5, 0])) == pytest.approx(2)


def test_coverage_of_a_line_a_ball_and_a_point():
    line = make_report(dataset([2000], obs=np.linspace(0, 1, 2000)[:, None] * [1, -2, 3])).values
    assert line["coverage/effective rank"] == pytest.approx(1, abs=1e-3)
    ball = make_report(dataset([2000])).values
    assert ball["coverage/effective rank"] == pytest.approx(3, abs=0.05)
    assert ball["coverage/first two components"] == pytest.approx(2 / 3, abs=0.05)
    assert ball["coverage/cells"] > 5 * line["coverage/cells"]
    point = make_report(dataset([5], obs=np.ones((5, 3)))).values
    assert (point["coverage/effective rank"], point["coverage/cells"]) == (0, 1 / 400)
    assert point["observation/constant"] == 3


def test_actions():
    # One at its limits and jumping at every step; one constant, but for the step from one episode to the next.
    action = np.stack(([1, -1, 1, -1], [0.0, 0.0, 0.5, 0.5]), axis=1)
    report = make_report(dataset([2, 2], action=action))
    assert report.values["action/at limit"] == 0.5
    assert report.values["action/change"] == 1.0
    assert report.details["action_at_limit"] == [1, 0]
    assert "action/changed by filter" not in report.values
    noise = make_report(dataset([20_000])).values
    assert noise["action/change"] == pytest.approx(2 / 3, abs=0.01)
    assert noise["action/std"] == pytest.approx(1 / np.sqrt(3), abs=0.01)


def test_what_the_filter_changed_and_what_succeeded():
    data = dataset([2, 2])
    proposed = data.transitions.action.clone()
    proposed[1, 0] += 0.01
    values = make_report(replace(data, action_proposed=proposed, success=torch.tensor([1.0, 0, 0, 1]))).values
    assert (values["action/changed by filter"], values["success"]) == (0.25, 0.5)


def test_faults_are_counted_and_named_by_row():
    data = dataset([50, 50], time_s=torch.arange(100, dtype=torch.float64) * 0.1)
    batch, time_s = data.transitions, data.time_s
    batch.obs[7, 1] = torch.nan
    batch.obs[60, 0] = 1e3
    batch.obs[90], batch.action[90] = batch.obs[80], batch.action[80]
    time_s[20:] += 0.3
    time_s[50:] += 100  # between episodes there is no gap
    report = make_report(data)
    assert report.values["fault/rows not finite"] == 1
    assert report.details["not_finite_rows"] == [7]
    assert report.values["observation/outliers"] == 1
    assert report.details["observation_outliers"] == [1, 0, 0]
    assert report.values["fault/repeated rows"] == 1
    assert report.values["fault/gaps in time"] == 1
    assert report.values["time/step"] == pytest.approx(0.1)


def test_an_outlier_is_named_by_its_row_in_the_file():
    data = dataset([50])
    data.transitions.obs[3, 0], data.transitions.obs[40, 2] = torch.nan, 1e4
    assert make_report(data).details["observation_outlier_rows"] == [40]


def test_without_a_reward_there_is_no_return():
    values = make_report(dataset([3, 3], rewards=[np.nan] * 6)).values
    assert values["return/mean"] is None
    assert not any(name.startswith("quality/") for name in values)
    assert values["fault/rows not finite"] == 0


def some_reports() -> dict[str, Dataset]:
    wide = np.random.default_rng(0).uniform(-1, 1, (6, 16))
    nan = dataset([3, 3])
    nan.transitions.obs[:] = torch.nan
    return {
        "plain": dataset([3] * 30),
        "unknown": dataset([3, 3], rewards=[np.nan] * 6, action=wide[:6]),
        "one row": dataset([1]),
        "one observation": dataset([4, 4], obs=np.ones((8, 1))),
        "nan": nan,
    }


@pytest.mark.parametrize("name", list(some_reports()))
def test_whatever_is_in_a_dataset_is_drawn(name, tmp_path):
    data = some_reports()[name]
    report = make_report(data)
    assert isinstance(report, Report)
    plot_report(data, report, name, tmp_path / "new" / "plot.png")
    assert (tmp_path / "new" / "plot.png").read_bytes().startswith(b"\x89PNG")
