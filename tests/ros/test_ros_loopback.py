"""What the nodes send stays on this host: seen from inside a network of their own that has a way out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

pytestmark = pytest.mark.ros

OUTSIDE = "robot_rl_out"
"""The way out: one end of a cable, whose other end counts what leaves."""

# Runs in a network namespace of its own. Prints how many packets left by the cable. /sys shows another namespace's
# interfaces, so the count is asked from the kernel by `ip`.
SCRIPT = f"""
set -eu
sent() {{ ip -s -j link show dev {OUTSIDE} | {sys.executable} -Sc '
import json, sys
print(json.load(sys.stdin)[0]["stats64"]["tx"]["packets"])'; }}
# What the kernel itself sends to announce an interface is not of interest.
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
ip link set lo up
ip link add {OUTSIDE} type veth peer name robot_rl_far
ip addr add 10.213.7.1/24 dev {OUTSIDE}
ip link set {OUTSIDE} up multicast on
ip link set robot_rl_far up
ip route add default via 10.213.7.2
sleep 0.5
before=$(sent)
"$@"
echo "sent $(($(sent) - before))"
"""

# A node of ours as a process, and another that hears it.
TALK = """
import subprocess, sys, time
import robot_rl_bridge
from rclpy.node import Node
from robot_rl_bridge import ros_compat
from std_msgs.msg import Bool
with ros_compat.ros_context([]) as executor:
    node = Node("ear", enable_rosout=False)
    executor.add_node(node)
    heard = []
    node.create_subscription(Bool, "watchdog/passing", heard.append, ros_compat.COMMAND_QOS)
    child = subprocess.Popen([sys.executable, "-m", "robot_rl_bridge.watchdog_node"])
    ros_compat.spin_while(executor, lambda: len(heard) < 5, 20.0)
    ros_compat.spin_until(executor, time.monotonic() + 1.0)
    child.terminate()
    print("heard", len(heard) >= 5, child.wait(20.0))
"""


def _talk(tmp_path: Path, discovery_range: str | None) -> str:
    """Output of the script, in a network namespace, with `discovery_range`; None: not set by anybody."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare and ip")
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode != 0:
        pytest.skip("network namespaces are not permitted here")
    program = tmp_path / "talk.py"
    program.write_text(textwrap.dedent(TALK))
    command = ["unshare", "-n", "sh", "-c", SCRIPT, "sh", sys.executable, str(program)]
    environment = {**os.environ, "ROS_DOMAIN_ID": "7"}
    del environment["ROS_AUTOMATIC_DISCOVERY_RANGE"]
    if discovery_range is not None:
        environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = discovery_range
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=90)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("discovery_range", [pytest.param("LOCALHOST", marks=pytest.mark.slow), None])
def test_nothing_leaves_the_host(tmp_path: Path, discovery_range: str | None) -> None:
    output = _talk(tmp_path, discovery_range)
    assert "heard True 0" in output
    assert "sent 0" in output


def test_the_measurement_would_see_what_leaves(tmp_path: Path) -> None:
    """The same with discovery on the whole network: otherwise the test above would show nothing."""
    output = _talk(tmp_path, "SUBNET")
    assert "heard True 0" in output
    assert int(output.split("sent ")[1]) > 0


def test_every_ros_test_runs_confined() -> None:
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
