"""Machines made of files: what the doctor reads is written here, and what it says is compared with what was written."""

import ctypes
import importlib.metadata
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from robot_rl.doctor import machine, robot, ros
from robot_rl.doctor.finding import Finding

LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max locked memory         {memlock}            {memlock}            bytes     
Max realtime priority     {rtprio}                   {rtprio}                   
"""  # noqa: W291


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    for finding in findings:
        assert finding.found
        assert bool(finding.fix) == (finding.status != "ok"), finding
    return {finding.name: finding for finding in findings}


@pytest.mark.parametrize(
    ("rtprio", "memlock", "cap", "raises", "locks"),
    [
        ("80", "unlimited", "0000000000000000", "ok", "ok"),
        ("0", "8388608", "0000000000000000", "warn", "warn"),
        # CAP_SYS_NICE is bit 23, CAP_IPC_LOCK bit 14.
        ("0", "8388608", "0000000000800000", "ok", "warn"),
        ("0", "8388608", "0000000000004000", "warn", "ok"),
        ("1", "536870912", "0000000000000000", "ok", "ok"),
    ],
)
def test_real_time_permissions(tmp_path: Path, rtprio: str, memlock: str, cap: str, raises: str, locks: str) -> None:
    files = {
        "proc/self/limits": LIMITS.format(rtprio=rtprio, memlock=memlock),
        "proc/self/status": f"Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t{cap}\n",
    }
    found = by_name(machine.check_real_time(tree(tmp_path, files)))
    assert (found["real-time"].status, found["locked memory"].status) == (raises, locks)
    assert "ordinary kernel" in found["real-time"].found
    if raises == "warn":
        assert "rtprio 80" in found["real-time"].fix


def test_real_time_kernel_and_budget(tmp_path: Path) -> None:
    files = {
        "proc/self/limits": LIMITS.format(rtprio="80", memlock="unlimited"),
        "sys/kernel/realtime": "1\n",
        "proc/sys/kernel/sched_rt_runtime_us": "0\n",
    }
    found = by_name(machine.check_real_time(tree(tmp_path, files)))
    assert "PREEMPT_RT" in found["real-time"].found
    assert "sched_rt_runtime_us" in found["real-time budget"].fix


def test_a_system_without_proc_has_no_real_time(tmp_path: Path) -> None:
    assert by_name(machine.check_real_time(tmp_path))["real-time"].status == "warn"


def test_whether_cores_may_be_kept_awake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_name(machine.check_sleep(tmp_path))["cpu sleep"].status == "ok"
    root = tree(tmp_path, {"dev/cpu_dma_latency": ""})
    assert "realtime_priority" in by_name(machine.check_sleep(root))["cpu sleep"].found
    # Who runs the tests as root may write everything.
    monkeypatch.setattr(os, "access", lambda path, mode: (Path(path), mode) != (root / "dev/cpu_dma_latency", os.W_OK))
    found = by_name(machine.check_sleep(root))["cpu sleep"]
    assert found.status == "warn"
    assert 'KERNEL=="cpu_dma_latency"' in found.fix


@pytest.mark.parametrize(
    ("governors", "status", "words"),
    [
        ((), "ok", "does not change"),
        (("performance", "performance"), "ok", "performance on 2 cores"),
        (("performance", "powersave"), "warn", "performance, powersave"),
        (("schedutil",), "warn", "schedutil"),
    ],
)
def test_governor_of_every_core(tmp_path: Path, governors: tuple[str, ...], status: str, words: str) -> None:
    folder = "sys/devices/system/cpu"
    files = {f"{folder}/cpu{i}/cpufreq/scaling_governor": f"{name}\n" for i, name in enumerate(governors)}
    found = by_name(machine.check_cpu(tree(tmp_path, {**files, f"{folder}/cpufreq/x": ""})))["cpu governor"]
    assert found.status == status
    assert words in found.found


@pytest.mark.parametrize(
    ("source", "status"), [("tsc", "ok"), ("arch_sys_counter", "ok"), ("hpet", "warn"), ("acpi_pm", "warn")]
)
def test_clock_source(tmp_path: Path, source: str, status: str) -> None:
    folder = "sys/devices/system/clocksource/clocksource0"
    files = {f"{folder}/current_clocksource": f"{source}\n", f"{folder}/available_clocksource": "tsc hpet acpi_pm\n"}
    assert by_name(machine.check_clock(tree(tmp_path, files)))["clock source"].status == status


class _Adjtimex:
    """A kernel whose answer to adjtimex is laid out by the C compiler's rules, here written out as a structure."""

    class Timex(ctypes.Structure):
        _fields_ = [
            ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
            ("esterror", ctypes.c_long), ("status", ctypes.c_int),
        ]  # fmt: skip

    def __init__(self, state: int, status: int) -> None:
        self.state, self.status = state, status

    def __call__(self, buffer) -> int:
        timex = self.Timex.from_buffer(buffer)
        assert timex.modes == 0, "the doctor must not set a clock"
        timex.status, timex.esterror, timex.offset = self.status, -1, -1
        return self.state


@pytest.mark.parametrize(
    ("state", "status", "synchronised"),
    # TIME_OK 0, TIME_ERROR 5; STA_PLL 1, STA_UNSYNC 0x40; -1: refused.
    [(0, 0x1, True), (0, 0x2001, True), (5, 0x40, False), (0, 0x41, False), (5, 0x0, False), (-1, 0, None)],
)
def test_whether_anybody_sets_the_wall_clock(
    monkeypatch: pytest.MonkeyPatch, state: int, status: int, synchronised: bool | None
) -> None:
    library = SimpleNamespace(adjtimex=_Adjtimex(state, status))
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)
    assert machine.clock_is_synchronised() is synchronised


def test_slow_and_closed_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = by_name(machine.check_disk(tmp_path))
    assert found["disk speed"].status == "ok"
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(machine, "write_speed_mb_s", lambda folder: 2.0)
    assert "2.0 MB/s" in by_name(machine.check_disk(tmp_path))["disk speed"].found

    def refuse(folder: Path) -> float:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(machine, "write_speed_mb_s", refuse)
    assert "Read-only" in by_name(machine.check_disk(tmp_path))["disk speed"].found


@pytest.mark.parametrize(("torch", "status"), [("2.13.0+cpu", "warn"), ("2.13.0", "ok"), ("2.13.0+cu128", "ok")])
def test_a_gpu_that_torch_does_not_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: str, status: str
) -> None:
    monkeypatch.setattr(machine, "version_of", lambda name: torch)
    monkeypatch.setattr(machine, "installed", lambda name: True)
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54\nGCC version: 12\n"
    found = by_name(machine.check_gpu(tree(tmp_path, {"proc/driver/nvidia/version": text})))["gpu"]
    assert found.status == status
    assert "550.54" in found.found
    assert machine.check_gpu(tmp_path / "none")[0].status == "ok"


def test_graphics_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: f"lib{name}.so.1")
    tree(tmp_path, {"dev/dri/renderD128": "", "dev/dri/card0": ""})
    assert "renderD128" in by_name(machine.check_rendering(tmp_path))["rendering"].found
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "render,video" in by_name(machine.check_rendering(tmp_path))["rendering"].fix
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    assert "libegl1" in by_name(machine.check_rendering(tmp_path))["rendering"].fix


# ROS 2.

WHEELS = "/venv/lib/python3.11/site-packages/rclpy/__init__.py"
DISTRIBUTION = "/opt/ros/jazzy/lib/python3.12/dist-packages/rclpy/__init__.py"


def check_ros(monkeypatch: pytest.MonkeyPatch, origin: str | None, env: dict[str, str]) -> dict[str, Finding]:
    monkeypatch.setattr(ros, "_origin", lambda: None if origin is None else Path(origin))
    names = ["ros-rmw", "ros-rmw-fastrtps-cpp", "ros-rmw-fastrtps-shared-cpp", "numpy"]
    wheels = [SimpleNamespace(metadata={"Name": name}) for name in names]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: wheels)
    return by_name(ros.check_ros(env))


@pytest.mark.parametrize(
    ("origin", "env", "status", "words"),
    [
        (None, {}, "warn", "not installed"),
        (None, {"ROS_DISTRO": "jazzy"}, "warn", "does not see its rclpy"),
        (WHEELS, {}, "ok", "wheels"),
        (WHEELS, {"ROS_DISTRO": "jazzy"}, "warn", "sourced as well"),
        (DISTRIBUTION, {"ROS_DISTRO": "jazzy"}, "ok", "distribution jazzy"),
        (DISTRIBUTION, {"ROS_DISTRO": "foxy"}, "warn", "foxy"),
    ],
)
def test_where_ros_comes_from(monkeypatch, origin: str | None, env: dict[str, str], status: str, words: str) -> None:
    found = check_ros(monkeypatch, origin, env)["ros"]
    assert found.status == status
    assert words in found.found


def test_a_middleware_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert check_ros(monkeypatch, WHEELS, {"RMW_IMPLEMENTATION": "rmw_fastrtps_cpp"})["ros middleware"].status == "ok"
    found = check_ros(monkeypatch, WHEELS, {"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"})["ros middleware"]
    assert found.status == "warn"
    assert "rmw_fastrtps_cpp" in found.fix
    index = "share/ament_index/resource_index/rmw_typesupport"
    tree(tmp_path, {f"{index}/rmw_zenoh_cpp": "", f"{index}/rmw_cyclonedds_cpp": ""})
    env = {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": f"/nowhere:{tmp_path}"}
    for name, status in (("rmw_zenoh_cpp", "ok"), ("rmw_fastrtps_cpp", "warn")):
        found = check_ros(monkeypatch, DISTRIBUTION, {**env, "RMW_IMPLEMENTATION": name})["ros middleware"]
        assert found.status == status


@pytest.mark.parametrize(
    ("env", "status"),
    [
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, "ok"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF", "ROS_STATIC_PEERS": "10.0.0.2"}, "ok"),
        ({}, "warn"),
        ({"ROS_LOCALHOST_ONLY": "1"}, "warn"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, "warn"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "localhost"}, "warn"),
    ],
)
def test_how_far_discovery_reaches(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], status: str) -> None:
    assert check_ros(monkeypatch, WHEELS, env)["ros discovery"].status == status


@pytest.mark.parametrize(("domain", "status"), [("", "ok"), ("0", "ok"), ("101", "ok"), ("102", "warn"), ("a", "warn")])
def test_domains_whose_ports_are_free(monkeypatch: pytest.MonkeyPatch, domain: str, status: str) -> None:
    assert check_ros(monkeypatch, WHEELS, {"ROS_DOMAIN_ID": domain})["ros domain"].status == status


# Ports.


def test_a_port_that_is_there_ours_and_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not exist" in by_name(robot.check_port("/dev/ttyUSB0", tmp_path))["port"].found
    timer = "sys/bus/usb-serial/devices/ttyUSB0/latency_timer"
    tree(tmp_path, {"dev/ttyUSB0": "", timer: "16\n"})
    found = by_name(robot.check_port("/dev/ttyUSB0", tmp_path))["port"]
    assert found.status == "warn"
    assert f"echo 1 > /{timer}" in found.fix
    tree(tmp_path, {timer: "1\n"})
    assert by_name(robot.check_port("/dev/ttyUSB0", tmp_path))["port"].status == "ok"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "dialout" in by_name(robot.check_port("/dev/ttyUSB0", tmp_path))["port"].fix


def test_message_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ros, "installed", lambda name: name not in ("trajectory_msgs", "lifecycle_msgs", "ros2cli"))
    found = check_ros(monkeypatch, WHEELS, {})["ros messages"]
    assert found.status == "warn"
    assert found.found == "missing: lifecycle_msgs, trajectory_msgs"
    monkeypatch.setattr(ros, "installed", lambda name: name != "ros2cli")
    found = check_ros(monkeypatch, WHEELS, {})["ros messages"]
    assert (found.status, found.found) == ("ok", "all 8; without ros2cli: start the nodes by their names")
