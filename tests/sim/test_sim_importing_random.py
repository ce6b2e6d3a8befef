"""Random kinematic trees: whatever MuJoCo takes either becomes a robot that moves as its file says, or is refused."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robot_rl.errors import ConfigError
from robot_rl.robots.files import read_robot
from robot_rl_sim.importing.add import add_robot
from robot_rl_sim.models import add_motors


@dataclass(frozen=True)
class Body:
    parent: int
    """Index of an earlier body; -1: the world."""
    joint: str
    """hinge, slide, ball, free or none."""
    limited: bool
    actuator: str
    """position, motor, velocity, general or none."""
    pos: tuple[float, float, float]
    axis: tuple[float, float, float]
    mass: float


_COORDINATE = st.integers(-50, 50).map(lambda cm: cm / 100)
_BODIES = st.builds(
    Body,
    parent=st.integers(-1, 8),
    joint=st.sampled_from(("hinge", "hinge", "slide", "ball", "free", "none")),
    limited=st.booleans(),
    actuator=st.sampled_from(("position", "motor", "velocity", "general", "none")),
    pos=st.tuples(_COORDINATE, _COORDINATE, _COORDINATE),
    axis=st.sampled_from(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.3, -0.5, 1.0))),
    mass=st.integers(1, 2000).map(lambda g: g / 100),
)
_ACTUATORS = {
    "position": '<position joint="j{0}" kp="30" kv="2"/>',
    "motor": '<motor joint="j{0}" gear="5" ctrlrange="-2 2"/>',
    "velocity": '<velocity joint="j{0}" kv="3"/>',
    "general": '<general joint="j{0}" biastype="affine" gainprm="4" biasprm="0 -4 -1" forcerange="-3 3"/>',
}


def mjcf(bodies: list[Body]) -> str:
    """The tree as MJCF. A free joint is a hinge where its body is not a child of the world."""
    parents = [min(b.parent, i - 1) for i, b in enumerate(bodies)]

    def text(i: int) -> str:
        body = bodies[i]
        inside = "".join(text(k) for k, parent in enumerate(parents) if parent == i)
        return (
            f'<body name="b{i}" pos="{" ".join(map(repr, body.pos))}">{joint(i)}'
            f'<geom type="box" size="0.05 0.04 0.03" mass="{body.mass}"/>{inside}</body>'
        )

    def joint(i: int) -> str:
        kind = kinds[i]
        if kind == "none":
            return ""
        if kind == "free":
            return f'<freejoint name="j{i}"/>'
        limits = 'range="-0.4 0.9"' if bodies[i].limited and kind != "ball" else ""
        return f'<joint name="j{i}" type="{kind}" axis="{" ".join(map(str, bodies[i].axis))}" {limits}/>'

    kinds = ["hinge" if b.joint == "free" and p >= 0 else b.joint for b, p in zip(bodies, parents, strict=True)]
    driven = [(i, b.actuator) for i, b in enumerate(bodies) if b.actuator != "none" and kinds[i] in ("hinge", "slide")]
    actuators = "".join(_ACTUATORS[kind].format(i) for i, kind in driven)
    tree = "".join(text(i) for i, parent in enumerate(parents) if parent == -1)
    return (
        '<mujoco><compiler angle="radian"/><option gravity="0 0 -9.81"/>'
        f"<worldbody>{tree}</worldbody><actuator>{actuators}</actuator></mujoco>"
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_BODIES, min_size=1, max_size=9))
def test_every_tree_becomes_a_robot_or_is_refused(bodies: list[Body]) -> None:
    text = mjcf(bodies)
    source = mujoco.MjModel.from_xml_string(text)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tree.xml"
        file.write_text(text)
        try:
            added = add_robot(file, Path(folder) / "robots")
        except ConfigError as error:
            refused(source, str(error))
            return
        robot = read_robot(added.folder)
        assert robot == added.robot
        spec = mujoco.MjSpec.from_file(str(added.folder / "tree.xml"))
        add_motors(spec, robot)
        model = spec.compile()
    driven = [source.actuator(a).trnid[0] for a in range(source.nu)]
    names = [source.joint(j).name for j in driven or singles(source)]
    assert list(robot.joint_names) == names
    assert [model.actuator(a).name for a in range(model.nu)] == names
    _moves_alike(source, model)


def singles(model: mujoco.MjModel) -> list[int]:
    """Hinges and slides."""
    return [j for j in range(model.njnt) if int(model.jnt_type[j]) >= int(mujoco.mjtJoint.mjJNT_SLIDE)]


def refused(source: mujoco.MjModel, reason: str) -> None:
    """Only for these reasons, where they hold."""
    if "of which one floats" in reason:
        roots = {int(source.body_rootid[source.jnt_bodyid[j]]) for j in singles(source)}
        assert len(roots) > 1
        assert int(mujoco.mjtJoint.mjJNT_FREE) in source.jnt_type.tolist()
    else:
        assert "no hinge or slide" in reason
        assert not singles(source)


def _moves_alike(source: mujoco.MjModel, model: mujoco.MjModel) -> None:
    """Same places, masses and inertias of all bodies that were kept, in random poses."""
    a, b = mujoco.MjData(source), mujoco.MjData(model)
    rng = np.random.default_rng(0)
    kept = [model.body(i).name for i in range(1, model.nbody)]
    for _ in range(3):
        for j in range(model.njnt):
            name = model.joint(j).name
            value = rng.uniform(-1, 1, len(a.joint(name).qpos))
            a.joint(name).qpos = b.joint(name).qpos = value
        mujoco.mj_kinematics(source, a)
        mujoco.mj_kinematics(model, b)
        for name in kept:
            np.testing.assert_allclose(b.body(name).xpos, a.body(name).xpos, atol=1e-4)
            np.testing.assert_allclose(b.body(name).xmat, a.body(name).xmat, atol=1e-4)
    np.testing.assert_allclose(
        [model.body(n).mass[0] for n in kept], [source.body(n).mass[0] for n in kept], rtol=1e-5
    )  # fmt: skip
