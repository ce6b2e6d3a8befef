"""What runs on a robot must run where nothing heavy is installed."""

import json
import pkgutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import robot_rl.runtime
from robot_rl.robots import LEAP_HAND
from robot_rl.testing.bundles import TinyPolicy

HEAVY = (
    "torch",
    "mujoco",
    "rclpy",
    "onnx",
    "onnxscript",
    "gymnasium",
    "stable_baselines3",
    "safetensors",
    "matplotlib",
)
RUNTIME = [f"robot_rl.runtime.{m.name}" for m in pkgutil.iter_modules(robot_rl.runtime.__path__)]
ON_A_ROBOT = [
    *RUNTIME,
    "robot_rl.bundle.load",
    "robot_rl.bundle.verify",
    "robot_rl.bundle.write",
    "robot_rl.contract",
    "robot_rl.robots",
    "robot_rl.commands.main",
    "robot_rl.commands.verify",
    "robot_rl.commands.deploy",
    "robot_rl.commands.doctor",
    "robot_rl.commands.wiggle",
    "robot_rl_hardware.mock",
    "robot_rl_hardware.leap_hand",
    "robot_rl_hardware.dynamixel_emulator",
]

BLOCK = textwrap.dedent(f"""
    import sys

    class Block:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {HEAVY!r}:
                raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)
            return None

    sys.meta_path.insert(0, Block())
""")


def run_blocked(program: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", BLOCK + textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_block_blocks() -> None:
    result = subprocess.run([sys.executable, "-c", BLOCK + "import torch"], capture_output=True, text=True, check=False)
    assert "blocked" in result.stderr


@pytest.mark.parametrize("module", ["robot_rl.networks.policy_io", "robot_rl.bundle.export"])
def test_training_modules_are_really_out_of_reach(module: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", f"{BLOCK}import {module}"], capture_output=True, text=True, check=False
    )
    assert "blocked" in result.stderr


def test_every_module_a_robot_needs_imports_without_heavy_packages() -> None:
    program = """
        import importlib, json
        for name in json.loads(sys.argv[1]):
            importlib.import_module(name)
        heavy = set(json.loads(sys.argv[2]))
        print(json.dumps(sorted(heavy & {name.split(".")[0] for name in sys.modules})))
    """
    assert json.loads(run_blocked(program, json.dumps(ON_A_ROBOT), json.dumps(HEAVY))) == []


def test_the_drivers_sdk_is_needed_by_its_driver_alone() -> None:
    unit = Path(__file__).parents[2] / "hardware" / "units" / "leap-example.yaml"
    program = BLOCK.replace("if name", "if name.startswith(('dynamixel', 'serial')) or name", 1) + textwrap.dedent("""
        from robot_rl.commands.main import main
        print(main(["wiggle", "--robot", "leap_hand", "--joints", "if_mcp"]))
        print(main(["wiggle", "--unit", sys.argv[1], "--yes"]))
    """)
    result = subprocess.run([sys.executable, "-c", program, str(unit)], capture_output=True, text=True, check=False)
    assert result.stdout.splitlines()[-1] == "3", result.stderr
    assert "\n0\n" in result.stdout
    assert "pip install 'robot-rl[leap]'" in result.stderr


def test_a_policy_is_verified_and_run_without_heavy_packages(tmp_path: Path) -> None:
    path = TinyPolicy(LEAP_HAND).write(tmp_path / "bundle")
    program = """
        from robot_rl.commands.main import main
        from robot_rl.commands.deploy import DeployArgs, run
        assert main(["verify", sys.argv[1]]) == 0
        result = run(DeployArgs(sys.argv[1], auto_run=True, duration=3.2))
        print(result.ok, result.reason)
    """
    assert run_blocked(program, str(path)).splitlines()[-1].startswith("True")
