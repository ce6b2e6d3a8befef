"""Physics settings reach the model, and change the solution by what the method's order allows."""

import mujoco
import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl_sim.disturbances import ActionLatency
from robot_rl_sim.draws import Draws
from robot_rl_sim.models import load_model
from robot_rl_sim.physics import AS_MODELLED, PhysicsConfig, physics_of
from robot_rl_sim.randomization import NOMINAL
from robot_rl_sim.tasks.assemble import assemble
from robot_rl_sim.tasks.reach.hands import LEAP
from robot_rl_sim.tasks.reach.mdp import Reach, ReachConfig


def make(physics: PhysicsConfig):
    mdp = Reach(LEAP, seed=0, config=ReachConfig(pool_size=8))
    return assemble(mdp, 2, 0, NOMINAL, "cpu", 1, "mujoco", physics)


def test_settings_reach_the_model_and_none_leaves_it() -> None:
    model = load_model("leap_hand")
    own = physics_of(model)
    AS_MODELLED.apply(model)
    assert physics_of(model) == own
    changed = PhysicsConfig(0.001, "rk4", "cg", "elliptic", 7)
    changed.apply(model)
    assert physics_of(model) == changed
    assert model.opt.timestep == 0.001
    assert int(model.opt.integrator) == int(mujoco.mjtIntegrator.mjINT_RK4)
    assert int(model.opt.solver) == int(mujoco.mjtSolver.mjSOL_CG)
    assert int(model.opt.cone) == int(mujoco.mjtCone.mjCONE_ELLIPTIC)
    assert model.opt.iterations == 7


def test_the_control_period_stays() -> None:
    env = make(PhysicsConfig(timestep_s=0.0025))
    assert env.sim.substeps == 20
    assert make(AS_MODELLED).sim.substeps == 10
    with pytest.raises(ConfigError, match=r"steps of 0\.003 s are not the control period of 0\.05 s"):
        make(PhysicsConfig(timestep_s=0.003))


def test_finer_steps_converge() -> None:
    """Against a step of an eighth, half the step is nearer than the whole: the integrator is of first order."""
    ends = []
    for timestep_s in (0.005, 0.0025, 0.000625):
        env = make(PhysicsConfig(timestep_s=timestep_s))
        env.reset(seed=0)
        for _ in range(5):
            env.step(torch.full((2, 16), 0.5))
        ends.append(env.sim.joint_pos.clone())
    coarse, fine = ((end - ends[2]).abs().max() for end in ends[:2])
    assert 0 < fine < 0.7 * coarse


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"integrator": "leapfrog"}, "unknown integrator 'leapfrog'; valid: euler, rk4"),
        ({"solver": "admm"}, "unknown solver 'admm'; valid: pgs, cg, newton"),
        ({"cone": "round"}, "unknown cone 'round'"),
        ({"timestep_s": 0.0}, "timestep_s must be above 0"),
        ({"iterations": 0}, "iterations must be above 0"),
    ],
)
def test_settings_that_make_no_sense(settings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PhysicsConfig(**settings)


def test_the_same_draw_of_latency_is_the_same_time_in_another_step() -> None:
    """Otherwise variants of the physics step would be compared at different latencies."""
    delays_s = []
    for substeps in (10, 20):
        draws, cpu = Draws(), torch.device("cpu")
        latency = ActionLatency(1000, 1, substeps, (0.0, 1.0), draws, cpu)
        draws.allocate(1000, cpu)
        draws.draw(torch.arange(1000), torch.Generator().manual_seed(0))
        latency.reset(torch.arange(1000), torch.zeros(1000, 1))
        delays_s.append(latency.state["delay"] * 0.05 / substeps)
    assert (delays_s[0] - delays_s[1]).abs().max() <= 0.005
    assert delays_s[0].min() == 0.0
    assert delays_s[0].max() == pytest.approx(0.05)
