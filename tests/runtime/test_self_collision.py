"""Capsules: their kinematics against MuJoCo's, the fit around a model's geoms, and what the filter does with them."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import pytest

from robot_rl.errors import ConfigError, ContractError
from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl.robots.collision import Capsule, CollisionModel, Placement
from robot_rl.robots.unitree_g1_capsules import COLLISION
from robot_rl.runtime.limits import SafetyLimits, apply_overrides
from robot_rl.runtime.reading import Target
from robot_rl.runtime.self_collision import SelfCollision, _between_lines
from robot_rl.testing.bundles import TinyPolicy
from robot_rl.testing.filter_bench import DT, Bench
from robot_rl_sim.importing.capsules import PARTS, collision_model
from robot_rl_sim.models import load_model, scene_path

G1 = SelfCollision(UNITREE_G1, 0.01)
PROFILE = dataclasses.replace(UNITREE_G1.safety, self_collision_margin_m=0.01)
LIMITS = SafetyLimits.make(UNITREE_G1, TinyPolicy(UNITREE_G1, control_period_s=DT).contract(), DT, PROFILE)
STILL = np.zeros(29)
LOWER, UPPER = LIMITS.soft_lower, LIMITS.soft_upper


def posed(model: mujoco.MjModel, joint_pos: np.ndarray) -> mujoco.MjData:
    data = mujoco.MjData(model)
    for name, q in zip(UNITREE_G1.joint_names, joint_pos, strict=True):
        data.joint(name).qpos[0] = q
    mujoco.mj_kinematics(model, data)
    return data


def distance(model: mujoco.MjModel, data: mujoco.MjData, first: int, second: int) -> float:
    """MuJoCo's own, m, between two geoms."""
    return mujoco.mj_geomDistance(model, data, first, second, 10.0, np.zeros(6))


def geoms_of(model: mujoco.MjModel, capsule: str) -> list[int]:
    body = model.body(PARTS["unitree_g1"][capsule]).id
    return [g for g in range(model.ngeom) if model.geom_bodyid[g] == body]


def test_the_literal_is_what_the_tool_makes_of_the_model() -> None:
    scene = mujoco.MjModel.from_xml_path(str(scene_path("unitree_g1")))
    assert collision_model(UNITREE_G1, scene) == COLLISION == UNITREE_G1.collision


def test_distances_are_those_of_mujoco_between_the_same_capsules() -> None:
    spec = load_spec_with_capsules()
    model = spec.compile()
    rng = np.random.default_rng(0)
    for _ in range(30):
        q = rng.uniform(LOWER, UPPER)
        data = posed(model, q)
        ids = {c.name: model.geom(f"capsule_{c.name}").id for c in COLLISION.capsules}
        expected = [distance(model, data, ids[a], ids[b]) for a, b in COLLISION.pairs]
        apart = np.array(expected) > 0.0  # how deep capsules overlap, MuJoCo measures along a normal
        np.testing.assert_allclose(G1.distances(q)[apart], np.array(expected)[apart], atol=1e-6)
        assert (G1.distances(q)[~apart] <= 1e-6).all()


def load_spec_with_capsules() -> mujoco.MjSpec:
    from robot_rl_sim.models import load_spec

    spec = load_spec("unitree_g1")
    for c in COLLISION.capsules:
        body = spec.body(PARTS["unitree_g1"][c.name])
        ends = (*c.start_m, *c.end_m)
        body.add_geom(
            name=f"capsule_{c.name}", type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=ends, size=(c.radius_m, 0, 0), mass=0
        )
    return spec


def test_capsules_are_no_farther_apart_than_the_geoms_in_them_and_not_much_nearer() -> None:
    model = load_model("unitree_g1")
    rng = np.random.default_rng(1)
    excess = []
    for _ in range(40):
        q = rng.uniform(LOWER, UPPER)
        data, proxy = posed(model, q), G1.distances(q)
        for k, (a, b) in enumerate(COLLISION.pairs):
            true = min(distance(model, data, g, h) for g in geoms_of(model, a) for h in geoms_of(model, b))
            if true > 0.0:
                assert proxy[k] <= true + 1e-6, (a, b)
                excess.append(true - proxy[k])
    assert np.median(excess) < 0.03
    assert max(excess) < 0.12


def test_lines_by_hand() -> None:
    """Crossing, parallel, end to end, end to middle, and a point."""
    cases = (
        ((-1, 0, 0), (1, 0, 0), (0, -1, 2), (0, 1, 2), 2.0),
        ((0, 0, 0), (1, 0, 0), (0, 3, 0), (1, 3, 0), 3.0),
        ((0, 0, 0), (1, 0, 0), (4, 4, 0), (5, 9, 0), 5.0),
        ((0, 0, 0), (0, 0, 1), (2, -1, 5), (2, 1, 5), np.hypot(2, 4)),
        ((0, 0, 0), (0, 0, 0), (0, 3, 4), (0, 3, 4), 5.0),
    )
    points = np.array([case[:4] for case in cases], np.float64)
    np.testing.assert_allclose(_between_lines(*points.transpose(1, 0, 2)), [case[4] for case in cases])


def test_what_is_not_computed_anew_is_never_too_far() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        q = rng.uniform(LOWER, UPPER)
        _, last = G1.hold(q, q, STILL, None)
        moved = np.clip(q + rng.uniform(-0.3, 0.3, 29), LOWER, UPPER)
        assert (G1._at_least(moved, last) <= G1.distances(moved) + 1e-9).all()


@pytest.mark.parametrize("margin_m", [0.01, None])
def test_whatever_a_policy_asks_for_links_do_not_meet(margin_m: float | None) -> None:
    """Through the whole filter, with joints that follow at up to 3 rad/s and brake with 60 rad/s², as an arm can."""
    profile = dataclasses.replace(UNITREE_G1.safety, self_collision_margin_m=margin_m)
    limits = SafetyLimits.make(UNITREE_G1, TinyPolicy(UNITREE_G1, control_period_s=DT).contract(), DT, profile)
    bench, rng = Bench(limits), np.random.default_rng(3)
    q, v, least, held = limits.default_pos.copy(), STILL, 1.0, 0
    wanted = q
    for tick in range(600):
        if tick % 60 == 0:
            wanted = rng.uniform(LOWER, UPPER)
        if tick:
            v = v + np.clip(np.clip(10.0 * (bench.command.position - q), -3.0, 3.0) - v, -60.0 * DT, 60.0 * DT)
            q = q + v * DT
        bench.tick(target=Target(wanted, "policy"), joint_pos=q[None], joint_vel=v[None])
        assert bench.command.kp.any(), bench.outcome()
        least = min(least, float(G1.distances(q).min()))
        held += bool(bench.verdict.modified[-1].any())
    assert (least > 0.0) == (margin_m is not None)
    assert (held > 20) == (margin_m is not None)


def test_links_that_are_too_near_may_part_but_not_come_nearer() -> None:
    start = LIMITS.default_pos.copy()
    roll = UNITREE_G1.joint_names.index("left_shoulder_roll_joint")
    start[roll] = -0.1  # the forearm is in the trunk
    assert G1.distances(start).min() < 0.0
    away, nearer = start.copy(), start.copy()
    away[roll], nearer[roll] = 0.0, -0.2
    assert G1.hold(away, start, STILL, None)[0] is None
    held, _ = G1.hold(nearer, start, STILL, None)
    assert held is not None
    assert held[roll]
    # Legs have no part in it.
    assert not held[:12].any()


def test_a_unit_file_may_switch_it_on() -> None:
    profile, lines = apply_overrides(
        UNITREE_G1.safety, {"self_collision_margin_m": 0.01}, may_widen=False, source="unit"
    )
    assert profile.self_collision_margin_m == 0.01
    assert "tightened" in lines[0]
    with pytest.raises(ConfigError, match="self_collision_margin_m"):
        apply_overrides(profile, {"self_collision_margin_m": None}, may_widen=False, source="unit")


def test_a_robot_without_capsules_and_capsules_without_a_place_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"leap_hand.*no capsules"):
        SelfCollision(LEAP_HAND, 0.01)
    place = Placement("b", "a", (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    with pytest.raises(ContractError, match="'b' must come once, after its parent 'a'"):
        CollisionModel((place,), (), ())
    with pytest.raises(ContractError, match=r"capsules \['x'\]"):
        CollisionModel((), (Capsule("x", "a", (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), 0.1),), ())
    with pytest.raises(ContractError, match="unknown capsules"):
        dataclasses.replace(COLLISION, pairs=(("left_hand", "tail"),))
