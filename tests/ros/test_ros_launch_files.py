"""Launch files without launch: a launch description recorder runs them and tells which processes they would start.

The launch packages are not on PyPI. Where a ROS distribution provides them, the last test uses the real ones.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy")

import robot_rl
from robot_rl.robots import ROBOTS
from robot_rl_bridge import emulator_node, goal_node, policy_node, teleop_node, watchdog_node

pytestmark = pytest.mark.ros

WORKSPACE = Path(__file__).resolve().parents[2] / "ros_ws" / "src"
BRINGUP = WORKSPACE / "robot_rl_bringup"
ARGUMENTS = {
    "sim.launch.py": {"robot", "bundle", "params", "log"},
    "real.launch.py": {"robot", "bundle", "params", "unit", "log", "output", "gains", "goals"},
    "teleop.launch.py": {"params", "joy"},
}
MODULES = {
    "policy_node": policy_node,
    "watchdog_node": watchdog_node,
    "emulator_node": emulator_node,
    "goal_node": goal_node,
    "teleop_node": teleop_node,
}
PARAMETERS = {name: {p.name for p in module.PARAMETERS} for name, module in MODULES.items()}


class Recorded:
    """Stands for any class of launch or launch_ros: remembers how it was made."""

    def __init__(self, kind: str, arguments: tuple, keywords: dict) -> None:
        self.kind, self.arguments, self.keywords = kind, arguments, keywords

    def find(self, kind: str) -> list[Recorded]:
        """All of a kind in here, in order."""
        return [r for r in _walk(self) if r.kind == kind]


def _walk(value: Any):
    if isinstance(value, Recorded):
        yield value
        yield from _walk(list(value.arguments) + list(value.keywords.values()))
    elif isinstance(value, dict):
        yield from _walk(list(value.keys()) + list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _walk(item)


class RecordingModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments, **keywords: Recorded(name, arguments, keywords)


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch):
    """Function (launch file name) -> Recorded LaunchDescription."""
    packages = ("launch", "launch_ros")
    modules = ("", ".actions", ".conditions", ".substitutions", ".parameter_descriptions")
    names = [f"{p}{module}" for p in packages for module in modules]
    for name in names:
        monkeypatch.setitem(sys.modules, name, RecordingModule(name))

    def run(file: str) -> Recorded:
        module = _load(file)
        return module.generate_launch_description()

    return run


def _load(file: str) -> Any:
    spec = importlib.util.spec_from_file_location(file.split(".")[0], BRINGUP / "launch" / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def resolve(value: Any, arguments: dict[str, Any]) -> str:
    """The text that a substitution yields."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(resolve(v, arguments) for v in value)
    if value.kind == "LaunchConfiguration":
        return resolve(arguments[value.arguments[0]], arguments)
    assert value.kind == "FindPackageShare"
    return str(WORKSPACE / value.arguments[0])


def console_scripts() -> set[str]:
    """What setup.py installs."""
    source = (WORKSPACE / "robot_rl_bridge" / "setup.py").read_text()
    return {line.split("=")[0].strip(' "') for line in source.splitlines() if ":console" in line}


def flatten(parameters: dict, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in parameters.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize(
    ("file", "nodes"),
    [
        ("sim.launch.py", {n: f"{n}_node" for n in ("emulator", "goal", "watchdog", "policy")}),
        ("real.launch.py", {n: f"{n}_node" for n in ("goal", "watchdog", "policy")}),
    ],
)
def test_a_launch_file_starts_what_exists_with_parameters_that_exist(
    record, file: str, nodes: dict, robot: str
) -> None:
    description = record(file)
    declared = {a.arguments[0]: a.keywords for a in description.find("DeclareLaunchArgument")}
    assert set(declared) == ARGUMENTS[file]
    assert all(keywords["description"] for keywords in declared.values())
    assert "default_value" not in declared["bundle"]
    arguments = {name: keywords.get("default_value", "/bundle.zip") for name, keywords in declared.items()}
    arguments["robot"] = robot
    actions = description.find("Node") + description.find("LifecycleNode")
    assert {a.keywords["name"]: a.keywords["executable"] for a in actions} == nodes
    for action in actions:
        name, executable = action.keywords["name"], action.keywords["executable"]
        assert action.keywords["package"] == "robot_rl_bridge"
        assert executable in console_scripts()
        file_parameter, overrides = action.keywords["parameters"]
        path = Path(resolve(file_parameter, arguments))
        assert path.is_file()
        sections = yaml.safe_load(path.read_text())
        # What a robot is, a bundle says to the goal node.
        given = {} if name == "goal" else flatten(sections[name]["ros__parameters"])
        assert set(given) | set(overrides) <= PARAMETERS[executable]
        assert name == "goal" or resolve(overrides["robot"], arguments) == given["robot"] == robot
    lifecycle = description.find("LifecycleNode")
    assert [a.keywords["name"] for a in lifecycle] == ["policy"]


def test_the_teleop_launch_file_starts_what_exists(record) -> None:
    description = record("teleop.launch.py")
    declared = {a.arguments[0]: a.keywords for a in description.find("DeclareLaunchArgument")}
    assert set(declared) == ARGUMENTS["teleop.launch.py"]
    joy, teleop = description.find("Node")
    assert (joy.keywords["package"], joy.keywords["executable"]) == ("joy", "joy_node")
    assert joy.keywords["condition"].kind == "IfCondition"
    assert teleop.keywords["executable"] in console_scripts()
    arguments = {name: keywords["default_value"] for name, keywords in declared.items()}
    path = Path(resolve(teleop.keywords["parameters"][0], arguments))
    assert path == BRINGUP / "config" / "teleop.yaml"


@pytest.mark.parametrize("path", sorted((BRINGUP / "config").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_parameter_file_holds_valid_values_for_known_nodes(path: Path) -> None:
    sections = yaml.safe_load(path.read_text())
    assert set(sections) == ({"teleop"} if path.stem == "teleop" else {"policy", "watchdog", "emulator"})
    for node, section in sections.items():
        specs = {p.name: p for p in MODULES[f"{node}_node"].PARAMETERS}
        for name, value in flatten(section["ros__parameters"]).items():
            spec = specs[name]
            # rclpy takes no int for a double.
            assert type(value) is type(spec.default), f"{name}: {value!r}"
            if isinstance(value, list):
                assert {type(v) for v in value} == {type(v) for v in spec.default}, f"{name}: {value!r}"
            assert not spec.choices or value in spec.choices
            if spec.low is not None and spec.high is not None:
                assert spec.low <= value <= spec.high
    if path.stem != "teleop":
        # The watchdog counts the policy node's ticks.
        rates = {sections[n]["ros__parameters"]["loop_rate_hz"] for n in ("policy", "watchdog")}
        assert len(rates) == 1


def test_there_is_a_parameter_file_for_each_robot() -> None:
    assert {p.stem for p in (BRINGUP / "config").glob("*.yaml")} == {*ROBOTS, "teleop"}


def test_the_packages_have_one_version() -> None:
    project = robot_rl.__version__
    for package in ("robot_rl_bridge", "robot_rl_bringup"):
        assert f"<version>{project}</version>" in (WORKSPACE / package / "package.xml").read_text()
        assert f'version="{project}"' in (WORKSPACE / package / "setup.py").read_text()
        assert (WORKSPACE / package / "resource" / package).exists()


def test_the_launch_files_under_the_real_launch() -> None:
    pytest.importorskip("launch_ros")
    from launch.actions import DeclareLaunchArgument

    for file, arguments in ARGUMENTS.items():
        entities = _load(file).generate_launch_description().entities
        assert {e.name for e in entities if isinstance(e, DeclareLaunchArgument)} == arguments
