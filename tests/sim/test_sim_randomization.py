"""Each randomised term changes the fields it names, within its range, and no other."""

import dataclasses

import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.robots import LEAP_HAND
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.models import load_model
from robot_rl_sim.randomization import NOMINAL, RandomizationConfig, Randomizer

TERMS = {
    "link_mass_scale": {"body_mass", "body_inertia"},
    "friction_scale": {"geom_friction"},
    "kp_scale": {"actuator_gainprm", "actuator_biasprm"},
    "kd_scale": {"actuator_biasprm"},
    "joint_damping_scale": {"dof_damping"},
    "joint_frictionloss_scale": {"dof_frictionloss"},
    "armature_scale": {"dof_armature"},
}
FIELDS = sorted(set().union(*TERMS.values()))


def make_sim(num_worlds: int) -> MujocoCpuSim:
    return MujocoCpuSim(load_model("leap_hand"), LEAP_HAND, num_worlds, 10, 1)


@pytest.mark.parametrize("term", TERMS)
def test_term_scales_its_fields_and_only_those(term: str) -> None:
    sim = make_sim(50)
    config = dataclasses.replace(NOMINAL, **{term: (0.5, 2.0)})
    Randomizer(sim, config).reset(torch.arange(50), torch.Generator().manual_seed(0))
    for field in FIELDS:
        nominal, values = sim.nominal(field), sim.model_field(field)
        if field not in TERMS[term]:
            assert (values == nominal).all()
            continue
        scaled = nominal.abs() > 0
        ratio = (values / nominal)[:, scaled]
        assert ratio.min() >= 0.5 - 1e-9
        assert ratio.max() <= 2.0 + 1e-9
        assert ratio.max() > 1.8
        assert not torch.equal(values[0], values[1])


def test_mass_and_inertia_of_a_body_scale_together() -> None:
    sim = make_sim(5)
    Randomizer(sim, RandomizationConfig()).reset(torch.arange(5), torch.Generator().manual_seed(0))
    mass = (sim.model_field("body_mass") / sim.nominal("body_mass"))[:, 1:]
    inertia = (sim.model_field("body_inertia") / sim.nominal("body_inertia"))[:, 1:]
    torch.testing.assert_close(inertia, mass.unsqueeze(-1).expand_as(inertia))


def test_a_servo_stays_a_servo() -> None:
    """Gain and bias must carry the same kp, or a scaled servo would pull towards another target than the one given."""
    sim = make_sim(5)
    Randomizer(sim, RandomizationConfig()).reset(torch.arange(5), torch.Generator().manual_seed(0))
    gain, bias = sim.model_field("actuator_gainprm"), sim.model_field("actuator_biasprm")
    torch.testing.assert_close(gain[..., 0], -bias[..., 1], rtol=0, atol=0)
    assert (bias[..., 0] == 0).all()


def test_only_the_worlds_asked_for_change() -> None:
    sim = make_sim(4)
    randomizer, generator = Randomizer(sim, RandomizationConfig()), torch.Generator().manual_seed(0)
    randomizer.reset(torch.arange(4), generator)
    before = {f: sim.model_field(f).clone() for f in FIELDS}
    randomizer.reset(torch.tensor([2]), generator)
    for field, old in before.items():
        new = sim.model_field(field)
        assert torch.equal(new[[0, 1, 3]], old[[0, 1, 3]])
        assert not torch.equal(new[2], old[2])


def test_nominal_touches_nothing() -> None:
    sim = make_sim(2)
    Randomizer(sim, NOMINAL).reset(torch.arange(2), torch.Generator())
    assert set(sim.state_dict()) == {"rows"}


def test_bad_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"kp_scale.*\(1.2, 0.8\)"):
        RandomizationConfig(kp_scale=(1.2, 0.8))
