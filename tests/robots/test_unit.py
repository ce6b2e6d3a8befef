import math
from pathlib import Path

import pytest

from robot_rl.errors import ConfigError
from robot_rl.robots import LEAP_HAND
from robot_rl.robots.unit import JointWiring, UnitConfig, load_unit

UNITS = Path(__file__).parents[2] / "hardware" / "units"

MINIMAL = "serial: u\nrobot: leap_hand\ndriver: {name: mock}\n"
WIRED = (
    MINIMAL
    + "joints:\n"
    + "".join(
        f"  {name}: {{id: {20 - i}, sign: {-1 if i % 3 else 1}, zero_offset_rad: {i / 8}}}\n"
        # Written in another order than the robot's: names decide, not places.
        for i, name in reversed(list(enumerate(LEAP_HAND.joint_names)))
    )
)


def write(folder: Path, text: str, name: str = "u.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_unit_needs_serial_robot_and_driver_only(tmp_path: Path) -> None:
    assert load_unit(write(tmp_path, MINIMAL)) == UnitConfig("u", "leap_hand", "mock", {}, (), {})


def test_joints_come_in_the_robots_order(tmp_path: Path) -> None:
    extra = "safety: {soft_margin: 0.08, joint_vel_trip_rad_s: 3.0}\n"
    unit = load_unit(write(tmp_path, WIRED.replace("name: mock", "name: leap_hand, options: {port: /dev/x}") + extra))
    assert unit.joints == tuple(JointWiring(20 - i, -1 if i % 3 else 1, i / 8) for i in range(16))
    assert (unit.driver, unit.options) == ("leap_hand", {"port": "/dev/x"})
    assert unit.safety == {"soft_margin": 0.08, "joint_vel_trip_rad_s": 3.0}


@pytest.mark.parametrize("path", sorted(UNITS.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_units_load(path: Path) -> None:
    assert load_unit(path).joints


def test_the_example_is_the_hand_as_assembled() -> None:
    """Ids by finger from 0, 4, 8 and 12; in a finger the side-to-side joint is the first servo, flexion the second."""
    unit = load_unit(UNITS / "leap-example.yaml")
    ids = {name: joint.id for name, joint in zip(LEAP_HAND.joint_names, unit.joints, strict=True)}
    assert [ids[f"{finger}_rot"] for finger in ("if", "mf", "rf")] == [0, 4, 8]
    assert [ids[f"{finger}_mcp"] for finger in ("if", "mf", "rf")] == [1, 5, 9]
    assert [ids[f"th_{joint}"] for joint in ("cmc", "axl", "mcp", "ipl")] == [12, 13, 14, 15]
    assert {joint.zero_offset_rad for joint in unit.joints} == {math.pi}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing serial, robot, driver"),
        ("- a\n", "expected keys and values, got list"),
        ("serial: [u\n", "cannot be read"),
        (MINIMAL + "colour: red\n", "unknown key 'colour'; valid: serial, robot, driver, joints, safety"),
        (MINIMAL + "serial: v\n", "key 'serial' stands twice"),
        (MINIMAL.replace("serial: u", "serial: v"), "a unit's file is named v.yaml"),
        (MINIMAL.replace("serial: u", "serial: 17"), "serial must be text, got 17; quote it"),
        (MINIMAL.replace("leap_hand", "r2d2"), "unknown robot 'r2d2'; valid: leap_hand"),
        (MINIMAL.replace("name: mock", "nam: mock"), "driver: unknown key 'nam'; valid: name, options"),
        (MINIMAL.replace("{name: mock}", "mock"), "driver: expected keys and values, got str"),
        (MINIMAL + "safety: &a {b: *a}\n", r"aliases \(\*name\) are not supported"),
        (MINIMAL + "safety: !!python/object/apply:os.system [true]\n", "cannot be read"),
        (MINIMAL + "joints: {thumb: {id: 1}}\n", "joints: unknown key 'thumb'; valid: if_mcp, if_rot"),
        (MINIMAL + "joints: {if_mcp: {id: 1}}\n", "joints: missing if_rot, if_pip"),
        (WIRED.replace("id: 20", "id: 19"), r"id 19 belongs to \['if_mcp', 'if_rot'\]"),
        (WIRED.replace("id: 20", "id: 2.0"), "joints.if_mcp.id must be a whole number from 0 up, got 2.0"),
        (WIRED.replace("id: 20", "id: yes"), "joints.if_mcp.id must be a whole number from 0 up, got True"),
        (WIRED.replace("id: 20, sign: 1", "id: 20, sign: 0"), "joints.if_mcp.sign must be 1 or -1, got 0"),
        (WIRED.replace("zero_offset_rad: 0.0}", "zero_offset_rad: .nan}"), "must be a finite number, got nan"),
        (WIRED.replace("zero_offset_rad: 0.0}", "zero_offset_rad: 1e-3}"), "must be a finite number, got '1e-3'"),
        (WIRED.replace("zero_offset_rad: 0.0}", "zero_offset_rad: 0.0, gear: 2}"), "unknown key 'gear'"),
    ],
)  # fmt: skip
def test_refuses_what_it_does_not_understand(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load_unit(write(tmp_path, text))
    assert "u.yaml" in str(raised.value)


def test_refuses_files_that_are_no_unit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        load_unit(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="at most 100000"):
        load_unit(write(tmp_path, "#" * 100_001))
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"b\.yaml cannot be read"):
        load_unit(tmp_path / "b.yaml")
    deep = write(tmp_path, MINIMAL + "safety: " + "[" * 40_000)
    with pytest.raises(ConfigError, match=r"u\.yaml cannot be read"):
        load_unit(deep)
