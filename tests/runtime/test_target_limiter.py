"""The output pipeline: each stage by hand, numpy against torch, its memory, and the figures of the braking bound."""

import dataclasses
import tracemalloc
from functools import partial

import numpy as np
import pytest
import torch

from robot_rl.benchmarks.braking import (
    DESIGN_INERTIA,
    EFFORT_NM,
    FAST_S,
    LOAD_SHARE,
    SLOW_S,
    SOFT,
    TRIALS,
    UNDER_DAMPED,
    WELL_DAMPED,
    Law,
    Plant,
    Servo,
    braking_bound,
    clipping,
    exponential_cbf,
    joint_limiter,
    joint_limits,
    overshoot,
    simulate,
)  # fmt: skip
from robot_rl.errors import ConfigError, ContractError
from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec
from robot_rl.runtime.braking import under_damped
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.target_limiter import MODIFICATIONS, TargetLimiter
from robot_rl.testing.bundles import TinyPolicy

KP, KD = UNDER_DAMPED.kp_nm_rad, UNDER_DAMPED.kd_nms_rad
DT = 0.01


def limited(limits: SafetyLimits, target: float, **more) -> tuple[float, set[str]]:
    """What becomes of the target of the benchmark's one joint, and which stages changed it."""
    state = {name: np.array([float(more.pop(name, 0.0))]) for name in ("reference", "joint_pos", "joint_vel")}
    position, modified = np.array([target]), np.zeros((len(MODIFICATIONS), 1), np.bool_)
    TargetLimiter(limits).limit(position, **state, modified=modified, **{"age_s": 0.0, **more})
    return float(position[0]), {name for name, row in zip(MODIFICATIONS, modified, strict=True) if row.any()}


def no_bound(**changes) -> SafetyLimits:
    return joint_limits(UNDER_DAMPED, DT, brake_effort_share=None, **changes)


def test_nothing_is_done_to_a_target_that_is_fine() -> None:
    assert limited(no_bound(), 0.3) == (0.3, set())


def test_rate_limit() -> None:
    # 2 rad/s for 10 ms from 0.1.
    assert limited(no_bound(target_rate_limit_rad_s=(2.0,)), 0.5, reference=0.1) == (
        pytest.approx(0.12),
        {"rate_limit"},
    )


def test_residual_bound() -> None:
    limits = no_bound(residual_bound_rad=0.05)
    assert limited(limits, 0.5, base=np.array([0.2])) == (pytest.approx(0.25), {"residual_bound"})
    assert limited(limits, -0.5, base=np.array([0.2])) == (pytest.approx(0.15), {"residual_bound"})
    assert limited(limits, 0.5) == (0.5, set())


def test_low_pass_of_first_order() -> None:
    limits = dataclasses.replace(no_bound(), low_pass_hz=5.0)
    share = 1.0 - np.exp(-2.0 * np.pi * 5.0 * DT)
    assert limited(limits, 0.5, reference=0.1) == (pytest.approx(0.1 + share * 0.4), {"low_pass"})
    # Only a policy was trained with it.
    assert limited(limits, 0.5, reference=0.1, policy=False) == (0.5, set())


def test_effort_clamp() -> None:
    # At most 10 N m at the start of the tick: q + (kd v + 10) / kp.
    limits = no_bound(effort_clamp_share=10.0 / EFFORT_NM)
    expected = 0.2 + (KD * 1.5 + 10.0) / KP
    assert limited(limits, 0.9, joint_pos=0.2, joint_vel=1.5) == (pytest.approx(expected), {"braking"})
    low = 0.2 + (KD * 1.5 - 10.0) / KP
    assert limited(limits, -0.9, joint_pos=0.2, joint_vel=1.5) == (pytest.approx(low), {"braking"})
    assert limited(limits, 0.25, joint_pos=0.2, joint_vel=1.5) == (0.25, set())


def test_an_effort_clamp_above_what_the_motor_gives_holds_beside_the_braking_bound() -> None:
    # Far from its limits the joint may be asked for 1.2 times its effort, and no more.
    limits = joint_limits(UNDER_DAMPED, DT, effort_clamp_share=1.2)
    value, changed = limited(limits, 1.0, joint_pos=-0.5)
    assert (value, changed) == (pytest.approx(min(1.0, -0.5 + 1.2 * EFFORT_NM / KP)), {"braking"})


def braking_target(pos: float, vel: float, sign: float = 1.0) -> float:
    """The bound of the benchmark's joint, from its formula."""
    accel = 0.5 * EFFORT_NM / DESIGN_INERTIA
    q, v = sign * pos, sign * vel
    gap = 1.0 - q - v * DT / 2
    next_vel = accel * (-DT / 2 + np.sqrt(DT**2 / 4 + 2 * gap / accel))
    torque = np.clip(DESIGN_INERTIA * (next_vel - v) / DT, -EFFORT_NM, EFFORT_NM)
    return sign * (q + (KD * v + torque) / KP)


@pytest.mark.parametrize(("pos", "vel"), [(0.9, 5.0), (0.5, 14.0), (0.98, 2.0), (0.99, 1.5)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_braking_bound(pos: float, vel: float, sign: float) -> None:
    limits = joint_limits(UNDER_DAMPED, DT)
    value, changed = limited(limits, sign * 1.0, joint_pos=sign * pos, joint_vel=sign * vel)
    assert value == pytest.approx(np.clip(braking_target(sign * pos, sign * vel, sign), -1.0, 1.0))
    assert "braking" in changed


def test_an_ankle_keeps_its_torque_though_its_foot_alone_could_not_be_stopped() -> None:
    limits = SafetyLimits.make(UNITREE_G1, TinyPolicy(UNITREE_G1).contract(), 0.02)
    left_alone = {n for n, low in zip(UNITREE_G1.joint_names, limits.brake_lower, strict=True) if low < -100.0}
    kinds = {n.split("_", 1)[1].removesuffix("_joint") for n in left_alone}
    assert kinds == {"ankle_pitch", "ankle_roll", "wrist_roll", "wrist_pitch", "wrist_yaw"}
    wanted = limits.default_pos.copy()
    ankle = UNITREE_G1.joint_names.index("left_ankle_roll_joint")
    wanted[ankle] = limits.soft_upper[ankle]
    near = limits.default_pos.copy()
    near[ankle] = limits.upper[ankle] - 0.1
    position = wanted.copy()
    TargetLimiter(limits).limit(position, wanted, near, np.zeros(29), 0.0, policy=False)
    np.testing.assert_array_equal(position, wanted)


def test_far_from_a_limit_the_bound_does_nothing() -> None:
    limits = joint_limits(UNDER_DAMPED, DT)
    assert limited(limits, 1.0, joint_pos=0.0, joint_vel=5.0) == (1.0, set())
    # Nor while a joint moves away from it.
    assert limited(limits, -1.0, joint_pos=0.9, joint_vel=-3.0) == (-1.0, set())


def test_a_stale_state_is_predicted_forward_by_its_age() -> None:
    limits = joint_limits(UNDER_DAMPED, DT)
    stale, _ = limited(limits, 1.0, joint_pos=0.86, joint_vel=5.0, age_s=0.008)
    present, _ = limited(limits, 1.0, joint_pos=0.9, joint_vel=5.0)
    assert stale == pytest.approx(present)
    # Of any age, and none that is no number.
    oldest, _ = limited(limits, 1.0, joint_pos=0.5, joint_vel=2.0, age_s=limits.state_damp_s)
    for age_s in (10.0, np.inf, np.nan):
        assert limited(limits, 1.0, joint_pos=0.5, joint_vel=2.0, age_s=age_s)[0] == oldest


def test_a_joint_beyond_its_limit_is_brought_back_without_a_kick() -> None:
    limits = joint_limits(UNDER_DAMPED, DT)
    # At rest, a quarter of the effort; moving out, all of it.
    resting, _ = limited(limits, 1.0, joint_pos=1.05, joint_vel=0.0)
    assert resting == pytest.approx(1.05 - 0.25 * EFFORT_NM / KP)
    moving, _ = limited(limits, 1.0, joint_pos=1.05, joint_vel=2.0)
    assert moving == pytest.approx(1.05 + (KD * 2.0 - EFFORT_NM) / KP)


def test_soft_start_is_on_the_way_and_inside_the_limits() -> None:
    limiter = TargetLimiter(no_bound())
    position, modified = np.array([0.8]), np.zeros((len(MODIFICATIONS), 1), np.bool_)
    limiter.soft_start(position, np.array([0.4]), 0.25, modified)
    assert position[0] == pytest.approx(0.5)
    assert modified[MODIFICATIONS.index("soft_start"), 0]
    far = np.array([0.8])
    limiter.soft_start(far, np.array([-7.0]), 0.0)
    assert far[0] == -1.0


def states(limits: SafetyLimits, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    low, high = limits.lower - 0.1, limits.upper + 0.1
    draw = partial(rng.uniform, low, high, size=shape)
    return {
        "position": rng.uniform(2 * low, 2 * high, size=shape),
        "reference": draw(),
        "joint_pos": draw(),
        "joint_vel": rng.normal(scale=5.0, size=shape),
    }


@pytest.mark.parametrize("robot", [LEAP_HAND, UNITREE_G1])
def test_a_batch_of_worlds_in_torch_is_one_robot_in_numpy(robot: RobotSpec) -> None:
    contract = TinyPolicy(robot).contract()
    limits = SafetyLimits.make(robot, contract, 0.02)
    worlds = states(limits, (7, limits.n_joints))
    batch = TargetLimiter(limits, xp=torch, convert=partial(torch.as_tensor, dtype=torch.float64), batch=(7,))
    together = {name: torch.from_numpy(value.copy()) for name, value in worlds.items()}
    changed = torch.zeros(len(MODIFICATIONS), 7, limits.n_joints, dtype=torch.bool)
    batch.limit(**together, age_s=0.01, modified=changed)
    assert changed[MODIFICATIONS.index("braking")].any()
    single = TargetLimiter(limits)
    for world in range(7):
        alone = {name: value[world].copy() for name, value in worlds.items()}
        modified = np.zeros((len(MODIFICATIONS), limits.n_joints), np.bool_)
        single.limit(**alone, age_s=0.01, modified=modified)
        np.testing.assert_allclose(alone["position"], together["position"][world].numpy(), rtol=0, atol=1e-12)
        np.testing.assert_array_equal(modified, changed[:, world].numpy())


def peak_bytes(batch: tuple[int, ...]) -> int:
    """Most memory that ten calls have at any time beyond what there was before."""
    limits = SafetyLimits.make(LEAP_HAND, TinyPolicy(LEAP_HAND).contract(), 0.02)
    worlds = states(limits, (*batch, 16))
    limiter = TargetLimiter(limits, batch=batch)
    modified = np.zeros((len(MODIFICATIONS), *batch, 16), np.bool_)

    def calls() -> None:
        for _ in range(10):
            limiter.limit(**worlds, age_s=0.0, modified=modified)
            limiter.soft_start(worlds["position"], worlds["reference"], 0.3, modified)

    calls()
    tracemalloc.start()
    try:
        calls()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_call_allocates_an_array() -> None:
    # For 8000 worlds an array is 1 MB; to broadcast, numpy takes a buffer of 64 kB. For one robot there is nothing to
    # broadcast, and no more than views and Python's own numbers.
    assert peak_bytes((8000,)) < 100_000
    assert peak_bytes(()) < 4_000


# The independent truth: published figures of the same experiment (200 trials, kp 100, kd 2, 40 N m, A at half of the
# torque), rad: at half, once and twice the design inertia, and with an unmodelled load of a quarter of the torque.
BOUND_500_HZ, BOUND_50_HZ = (0.0, 0.0, 0.017), (0.0, 0.0005, 0.076)


def worst(servo: Servo, law: Law, period_s: float = FAST_S, **plant: float) -> list[float]:
    load_nm = plant.pop("load_nm", 0.0)
    return [overshoot(servo, law, period_s, Plant(share * DESIGN_INERTIA, load_nm)) for share in (0.5, 1.0, 2.0)]


@pytest.mark.slow
def test_under_damped_joint() -> None:
    fast = worst(UNDER_DAMPED, braking_bound(UNDER_DAMPED, FAST_S))
    slow = worst(UNDER_DAMPED, braking_bound(UNDER_DAMPED, SLOW_S), SLOW_S)
    # The adversary differs, so that what is not zero agrees in size; it did to within 0.015 rad.
    np.testing.assert_allclose(fast, BOUND_500_HZ, atol=0.015)
    np.testing.assert_allclose(slow, BOUND_50_HZ, atol=0.015)
    clipped = worst(UNDER_DAMPED, clipping(UNDER_DAMPED, FAST_S))
    assert all(c > at_least for c, at_least in zip(clipped, (0.5, 1.0, 1.3), strict=True))


@pytest.mark.slow
def test_a_well_damped_joint_needs_it_only_for_what_is_not_in_the_model() -> None:
    clipped = worst(WELL_DAMPED, clipping(WELL_DAMPED, FAST_S))
    bound = worst(WELL_DAMPED, braking_bound(WELL_DAMPED, FAST_S))
    np.testing.assert_allclose(clipped, (0.0, 0.0, 0.08), atol=0.025)
    np.testing.assert_allclose(bound, (0.0, 0.0, 0.006), atol=0.015)
    assert worst(SOFT, clipping(SOFT, FAST_S))[1] == 0.0


@pytest.mark.slow
def test_load_that_nobody_told_of() -> None:
    load_nm = LOAD_SHARE * EFFORT_NM
    fast = worst(UNDER_DAMPED, braking_bound(UNDER_DAMPED, FAST_S), load_nm=load_nm)
    assert fast[1] == pytest.approx(0.0004, abs=0.0005)
    assert fast[2] == pytest.approx(0.37, abs=0.03)
    slow = overshoot(UNDER_DAMPED, braking_bound(UNDER_DAMPED, SLOW_S), SLOW_S, Plant(load_nm=load_nm))
    assert slow == pytest.approx(0.023, abs=0.006)


@pytest.mark.slow
def test_it_is_better_than_what_others_do() -> None:
    bound = worst(UNDER_DAMPED, braking_bound(UNDER_DAMPED, FAST_S))
    for law in (joint_limiter(UNDER_DAMPED, FAST_S), exponential_cbf(UNDER_DAMPED, FAST_S, pole_1_s=60.0)):
        others = worst(UNDER_DAMPED, law)
        assert others[1] > 0.1 > bound[1]
        assert others[2] > 1.0 > 10 * bound[2]


def test_the_bound_in_one_step() -> None:
    """The fast form of the above: a joint thrown at its limit, at the design inertia."""
    assert overshoot_of_a_step(braking_bound(UNDER_DAMPED, FAST_S)) < 1e-6
    # Analytically, clipping overshoots an under-damped step by exp(-pi z / sqrt(1 - z²)) of it without saturation.
    z = UNDER_DAMPED.damping_ratio
    assert overshoot_of_a_step(clipping(UNDER_DAMPED, FAST_S)) > 2.0 * np.exp(-np.pi * z / np.sqrt(1 - z * z))


def overshoot_of_a_step(law: Law) -> float:
    targets = np.full((800, TRIALS), 2.0)
    return max(0.0, float(simulate(UNDER_DAMPED, law, FAST_S, Plant(), targets, start_rad=-1.0).max()) - 1.0)


def test_what_cannot_brake_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"brake_effort_share 0\.5 .* leaves nothing to brake joint"):
        joint_limits(UNDER_DAMPED, DT, joint_load_nm=(20.0,))
    with pytest.raises(ContractError, match="brake_effort_share must be in"):
        joint_limits(UNDER_DAMPED, DT, brake_effort_share=1.5)


def test_under_damped_joints_are_named_worst_first() -> None:
    # ζ = kd / (2 sqrt(kp I)): 0.25, 1 and 0.5.
    kp, kd, inertia = np.array([4.0, 1.0, 1.0]), np.array([1.0, 2.0, 1.0]), np.ones(3)
    assert under_damped(("a", "b", "c"), kp, kd, inertia).endswith("alone: a 0.25, c 0.50")
    assert under_damped(("b",), kp[1:2], kd[1:2], inertia[1:2]) == ""
    assert under_damped(("a", "b", "c"), kp, kd, None) == ""
