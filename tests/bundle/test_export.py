"""Export: the graph computes what training computes, in closed loop, and carries nothing of the machine."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from robot_rl.bundle import export
from robot_rl.bundle.export import Provenance, closed_loop, export_policy, golden_rows, to_onnx
from robot_rl.bundle.latency import measure_latency
from robot_rl.bundle.metadata import metadata_problems
from robot_rl.bundle.policy import OnnxPolicy
from robot_rl.bundle.verify import verify_bundle
from robot_rl.contract import ActionSpec, TensorSpec
from robot_rl.env import Step
from robot_rl.errors import BundleError
from robot_rl.networks.policy_io import ObservationTerm, PolicyGraph, PolicyIO
from robot_rl.robots import LEAP_HAND

TERMS = tuple(ObservationTerm(n, s) for n, s in (("joint_pos", 1.0), ("target_error", 3.0), ("tip_error", 10.0)))


class RandomJoints:
    """One hand whose joints jump at random; episodes of seven steps. Memory goes through PolicyIO as in every env."""

    num_envs, max_episode_steps, device = 1, 7, torch.device("cpu")

    def __init__(self, history_length: int) -> None:
        low = tuple(j.lower_rad for j in LEAP_HAND.joints)
        high = tuple(j.upper_rad for j in LEAP_HAND.joints)
        action = ActionSpec("position_delta", (0.1,) * 16, (0.0,) * 16, low, high)
        goal = TensorSpec("fingertip_goal", (12,), "m", "command", frame="palm")
        self.policy_io = PolicyIO(LEAP_HAND, TERMS, action, 0.05, goal, history_length)
        self.obs_dim, self.action_dim = self.policy_io.obs_dim, 16

    def reset(self, seed: int | None = None) -> torch.Tensor:
        self.generator = torch.Generator().manual_seed(seed or 0)
        self.steps = 0
        self._sense()
        self.memory = self.policy_io.start_memory(self.sensed)
        return self.policy_io.encode(self.sensed | self.memory)

    def _sense(self) -> None:
        self.sensed = {
            "joint_pos": torch.rand(1, 16, generator=self.generator),
            "command": 0.1 * torch.randn(1, 12, generator=self.generator),
        }

    def policy_inputs(self) -> dict[str, torch.Tensor]:
        named = self.sensed | self.memory
        return {("fingertip_goal" if k == "command" else k): v for k, v in named.items()}

    def step(self, action: torch.Tensor) -> Step:
        obs = self.policy_io.encode(self.sensed | self.memory)
        target = self.policy_io.decode(action, self.memory["last_target"])
        self.memory = self.policy_io.next_memory(self.memory, obs, action, target)
        self.steps += 1
        self._sense()
        ended = torch.tensor([self.steps % self.max_episode_steps == 0])
        if bool(ended):
            self.memory = self.policy_io.start_memory(self.sensed)
        zero = torch.zeros(1)
        return Step(obs, zero, torch.zeros(1, dtype=torch.bool), ended, obs)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: object) -> None: ...

    def close(self) -> None: ...


def modules(obs_dim: int) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    actor = nn.Sequential(nn.Linear(obs_dim, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16), nn.Tanh())
    return nn.LayerNorm(obs_dim, elementwise_affine=False), actor


PROVENANCE = Provenance("leap-test", "sac", "abc", "run", {"lr": 3e-4}, {"training": 1}, {"success": 0.5})


@pytest.mark.parametrize("history_length", [1, 3])
def test_bundle_matches_torch_over_a_thousand_closed_loop_steps_and_verifies(
    history_length: int, tmp_path: Path
) -> None:
    env = RandomJoints(history_length)
    loop = export_policy(env, *modules(env.obs_dim), tmp_path / "bundle", PROVENANCE, overwrite=False)
    assert loop.steps == 1000
    assert loop.max_error <= 1e-5
    assert loop.latency is not None
    assert 0 < loop.latency.p50_s <= loop.latency.p99_s < env.policy_io.contract.control_period_s
    report = verify_bundle(tmp_path / "bundle", LEAP_HAND)
    assert report.problems == ()
    assert report.rows == 64
    assert "sha256 " + env.policy_io.contract.digest() in (tmp_path / "bundle" / "CARD.md").read_text()


def test_a_graph_that_drifts_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Export a different actor than the one that is driven: the closed loop must notice and leave nothing behind."""
    env = RandomJoints(1)
    normalizer, actor = modules(env.obs_dim)
    other = nn.Sequential(*actor.children())
    wrong = to_onnx(PolicyGraph(env.policy_io, normalizer, nn.Sequential(nn.Linear(env.obs_dim, 16), nn.Tanh())))
    monkeypatch.setattr(export, "to_onnx", lambda *_: wrong)
    with pytest.raises(BundleError, match="differs from training by"):
        export_policy(env, normalizer, other, tmp_path / "bundle", PROVENANCE, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_policy_that_cannot_hold_its_rate_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is right, but every action of it takes 60 ms where the contract asks for one each 50 ms."""
    env = RandomJoints(1)
    run = OnnxPolicy.run

    def slow(self: OnnxPolicy, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(0.06)
        return run(self, inputs)

    monkeypatch.setattr(OnnxPolicy, "run", slow)
    monkeypatch.setattr(export, "CLOSED_LOOP_STEPS", 3)
    monkeypatch.setattr(export, "measure_latency", partial(measure_latency, runs=10))
    with pytest.raises(BundleError, match=r"cannot hold its rate.*6\d.* ms.*control period is 50 ms"):
        export_policy(env, *modules(env.obs_dim), tmp_path / "bundle", PROVENANCE, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_the_closed_loop_sees_a_fault_in_what_is_fed_back() -> None:
    """A joint target that is right and a next memory that is not: only the comparison of all outputs finds it."""
    env = RandomJoints(1)
    graph = PolicyGraph(env.policy_io, *modules(env.obs_dim)).eval()
    policy = OnnxPolicy(to_onnx(graph), env.policy_io.contract)

    class Forgetful:
        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            outputs = policy.run(inputs)
            return outputs | {"next_last_target": outputs["next_last_target"] + 0.01}

    class Broken(Forgetful):
        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return policy.run(inputs) | {"obs": np.full((1, env.obs_dim), np.nan, np.float32)}

    assert closed_loop(env, graph, policy, 20).max_error <= 1e-5
    assert closed_loop(env, graph, Forgetful(), 20).max_error == pytest.approx(0.01, rel=1e-3)  # type: ignore[arg-type]
    assert np.isnan(closed_loop(env, graph, Broken(), 20).max_error)  # type: ignore[arg-type]


def test_golden_rows_hold_inputs_with_torch_outputs() -> None:
    env = RandomJoints(1)
    normalizer, actor = modules(env.obs_dim)
    graph = PolicyGraph(env.policy_io, normalizer, actor).eval()
    loop = closed_loop(env, graph, OnnxPolicy(to_onnx(graph), env.policy_io.contract), 30)
    golden = golden_rows(loop, 8)
    inputs = [torch.from_numpy(golden[f"in/{t.name}"]) for t in env.policy_io.contract.inputs]
    with torch.no_grad():
        again = dict(zip(env.policy_io.contract.output_names, graph(*inputs), strict=True))
    for name, value in again.items():
        assert golden[f"out/{name}"].shape[0] == 8
        np.testing.assert_allclose(golden[f"out/{name}"], value.numpy(), atol=1e-6)


def test_model_is_one_file_with_full_precision_metadata_and_no_traces_of_this_machine() -> None:
    env = RandomJoints(1)
    data = to_onnx(PolicyGraph(env.policy_io, *modules(env.obs_dim)), "run")
    model = onnx.load_from_string(data)
    properties = {p.key: p.value for p in model.metadata_props}
    assert len(properties) == len(model.metadata_props)  # no key twice
    assert metadata_problems(properties, env.policy_io.contract) == []
    assert [float(x) for x in properties["joint_stiffness"].split(",")] == [j.kp_nm_rad for j in LEAP_HAND.joints]
    assert not any(i.data_location == onnx.TensorProto.EXTERNAL for i in model.graph.initializer)
    assert str(Path(export.__file__).parents[2]).encode() not in data
    assert b"site-packages" not in data
