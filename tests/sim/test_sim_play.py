"""Playback, controls and keys; what the browser gets; markers where they belong."""

import threading
from contextlib import nullcontext
from itertools import pairwise

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.commands.main import main
from robot_rl.contract import TensorSpec
from robot_rl.env import get_task
from robot_rl.errors import EnvError
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.markers import arrow, command_markers
from robot_rl_sim.play import native
from robot_rl_sim.play.controls import CommandControls
from robot_rl_sim.play.film import frame_stride
from robot_rl_sim.play.playback import Playback


def make(task: str, num_envs: int = 1) -> SimVecEnv:
    env = get_task(task).make_env(num_envs=num_envs, seed=0, num_threads=1)
    assert isinstance(env, SimVecEnv)
    return env


def still(env: SimVecEnv) -> Playback:
    return Playback(env, lambda obs: torch.zeros(env.num_envs, env.action_dim), seed=3)


@pytest.fixture(scope="module")
def reach() -> SimVecEnv:
    return make("leap-reach")


def test_playback_follows_the_environment_through_its_episodes(reach) -> None:
    playback = still(reach)
    assert playback.status() == "episode 1, 0.00 s, return 0.00"
    for _ in range(reach.max_episode_steps - 1):
        playback.step()
        data = playback.data()
        np.testing.assert_array_equal(data.qpos, reach.sim.qpos[0])
    assert playback.status().startswith(f"episode 1, {39 * 0.05:.2f} s, return -")
    playback.step()
    assert playback.status() == "episode 2, 0.00 s, return 0.00, 0 of 1 succeeded, last: failure"
    playback.reset()
    assert playback.status().startswith("episode 2, 0.00 s")


def test_the_state_shown_is_the_one_that_mujoco_computes(reach) -> None:
    playback = still(reach)
    playback.step()
    truth, shown = reach.sim.snapshot(0), playback.data()
    np.testing.assert_allclose(shown.xpos, truth.xpos, atol=1e-12)
    np.testing.assert_allclose(shown.geom_xmat, truth.geom_xmat, atol=1e-12)


def test_a_command_by_hand_reaches_the_policy_until_it_is_given_back(reach) -> None:
    seen = []

    def policy(obs: torch.Tensor) -> torch.Tensor:
        seen.append(reach.policy_inputs()["fingertip_goal"][0].clone())
        return torch.zeros(1, 16)

    playback = Playback(reach, policy, seed=3)
    asked = playback.command()
    playback.take_over()
    playback.step()
    np.testing.assert_allclose(seen[-1], asked, atol=1e-6)  # taking over changes nothing
    playback.controls.set(2, 0.123)
    playback.step()
    assert seen[-1][2] == pytest.approx(0.123)
    playback.controls.set(2, 99.0)
    assert playback.controls.values[2] == pytest.approx(0.3)  # the contract's bound
    playback.by_hand = False
    playback.reset()
    playback.step()
    assert float(seen[-1][2]) != pytest.approx(0.123)


def test_a_commanded_observation_is_what_the_encoder_makes_of_it(reach) -> None:
    reach.reset(seed=1)
    goal = torch.linspace(-0.1, 0.1, 12).unsqueeze(0)
    obs = reach.set_command(goal)
    inputs = {("command" if k == "fingertip_goal" else k): v for k, v in reach.policy_inputs().items()}
    torch.testing.assert_close(inputs["command"], goal)
    torch.testing.assert_close(obs, reach.policy_io.encode(inputs))
    with pytest.raises(EnvError, match="takes no command"):
        make("g1-balance").set_command(goal)


def test_a_clock_that_is_late_is_not_caught_up(reach, monkeypatch) -> None:
    """Ten steps of 50 ms at twice the speed: the third frame takes a second, the others nothing."""
    now, slept = [0.0], []
    monkeypatch.setattr("robot_rl_sim.play.playback.time.monotonic", lambda: now[0])

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("robot_rl_sim.play.playback.time.sleep", sleep)
    playback, shown = still(reach), []
    playback.speed = 2.0

    def show() -> bool:
        shown.append(now[0])
        if len(shown) == 3:
            now[0] += 1.0
        return len(shown) < 10

    playback.run(show)
    np.testing.assert_allclose(slept, [0.025, 0.025, 0.0, *[0.025] * 6], atol=1e-9)


def test_an_orientation_by_hand_is_roll_pitch_and_yaw() -> None:
    controls = CommandControls(TensorSpec("goal_quat_wxyz", (4,), "1", "command", "root body"))
    assert [c.name for c in controls.controls] == ["roll", "pitch", "yaw"]
    rng = np.random.default_rng(0)
    for _ in range(20):
        quat = rng.normal(size=4)
        quat /= np.linalg.norm(quat)
        controls.take(quat)
        assert abs(controls.command() @ quat) == pytest.approx(1.0, abs=1e-9)  # q and -q are one rotation
    controls.values[:] = (0.0, 0.0, np.pi / 2)
    np.testing.assert_allclose(controls.command(), [np.sqrt(0.5), 0, 0, np.sqrt(0.5)], atol=1e-12)


def test_keys(reach) -> None:
    playback = still(reach)
    press = native.key_handler(playback)
    press(32)
    assert playback.paused
    press(32)
    assert not playback.paused
    press(61)
    assert playback.speed == 2.0
    press(45)
    press(45)
    assert playback.speed == 0.5
    before = playback.command()
    press(265)
    assert playback.by_hand
    assert playback.controls.values[0] == pytest.approx(min(before[0] + 0.6 / 40, 0.3))
    assert playback.controls.values[1] == pytest.approx(before[1])
    press(269)
    assert not playback.by_hand
    playback.step()
    press(259)
    assert playback.status().startswith("episode 1, 0.00 s")


class FakeWindow:
    """What native.watch uses of MuJoCo's viewer handle; closed after four frames, a key pressed during the second."""

    def __init__(self, model, data, *, key_callback, **_) -> None:
        self.user_scn = mujoco.MjvScene(model, maxgeom=100)
        self.data, self.press, self.frames, self.texts = data, key_callback, [], []

    def lock(self):
        return nullcontext()

    def set_texts(self, texts) -> None:
        self.texts.append(texts[2])

    def sync(self) -> None:
        self.frames.append((self.data.qpos.copy(), self.user_scn.ngeom))
        if len(self.frames) == 2:
            self.press(32)

    def is_running(self) -> bool:
        return len(self.frames) < 4

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass


def test_the_window_shows_state_goals_and_status_until_it_is_closed(reach, monkeypatch) -> None:
    windows = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(
        native.mujoco.viewer, "launch_passive", lambda *a, **k: windows.append(FakeWindow(*a, **k)) or windows[0]
    )
    native.watch(Playback(reach, lambda obs: torch.ones(1, 16), seed=3))
    poses, markers = zip(*windows[0].frames, strict=True)
    assert markers == (4, 4, 4, 4)
    moved = [not np.array_equal(a, b) for a, b in pairwise(poses)]
    assert moved == [True, True, False]  # paused before the third frame's step
    assert windows[0].texts[-1].endswith("paused")


def test_goals_of_fingertips_are_drawn_where_they_are_in_the_world(reach) -> None:
    playback = still(reach)
    data = playback.data()
    markers = playback.markers(data)
    palm = data.body("palm")
    goals = reach.policy_inputs()["fingertip_goal"][0].double().numpy().reshape(4, 3)
    assert [m.shape for m in markers] == ["sphere"] * 4
    for marker, goal in zip(markers, goals, strict=True):
        np.testing.assert_allclose(palm.xmat.reshape(3, 3).T @ (marker.pos_w - palm.xpos), goal, atol=1e-6)


def test_a_velocity_is_an_arrow_in_the_robots_heading() -> None:
    env = make("g1-velocity")
    data = env.sim.snapshot(0)
    quat = np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])  # turned left by 90 degrees: forward is the world's y
    data.qpos[3:7] = quat
    data.qvel[:6] = (0.0, 2.0, 0.0, 0.0, 0.0, 0.0)
    mujoco.mj_forward(env.sim.model, data)
    asked, actual, turn = command_markers(env.mdp, env.sim.model, data, np.array([1.0, 0.0, -1.0]))
    for marker, direction, length in ((asked, [0, 1, 0], 0.5), (actual, [0, 1, 0], 1.0), (turn, [1, 0, 0], 0.3)):
        np.testing.assert_allclose(marker.mat_w[:, 2], direction, atol=1e-6)
        assert marker.size[2] == pytest.approx(length, abs=1e-6)
    assert command_markers(make("g1-balance").mdp, env.sim.model, data, np.zeros(0)) == []


def test_arrows_turn_properly() -> None:
    rng = np.random.default_rng(0)
    for along in (*rng.normal(size=(10, 3)), np.array([0.0, 0.0, -2.0])):
        mat = arrow(np.zeros(3), along, 0.1, (1, 1, 1, 1)).mat_w
        np.testing.assert_allclose(mat @ mat.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(mat) == pytest.approx(1.0)
        np.testing.assert_allclose(mat[:, 2] * np.linalg.norm(along), along, atol=1e-12)


def test_frames_come_at_most_thirty_times_a_second() -> None:
    assert [frame_stride(p) for p in (0.05, 0.02, 1 / 30, 0.001)] == [1, 2, 1, 34]


def test_without_a_display_it_says_what_to_do_instead(monkeypatch, capsys) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert main(["play", "zero", "--task", "leap-reach"]) == 3
    assert "no display: use --web (a browser), --video FILE" in capsys.readouterr().err
    assert main(["play", "zero", "--task", "leap-reach", "--web", "--video", "x.mp4"]) == 2
    assert main(["play", "zero", "--task", "leap-reach", "--video", "x.mp4", "--seconds", "0"]) == 2
    assert main(["play", "zero", "--task", "point-mass", "--web"]) == 2
    assert "is not simulated here" in capsys.readouterr().err


class TestBrowser:
    """Needs viser."""

    @pytest.fixture(autouse=True)
    def _viser(self):
        pytest.importorskip("viser")

    @pytest.mark.parametrize("robot", ["leap_hand", "unitree_g1"])
    def test_meshes_are_as_large_as_mujocos_geoms(self, robot: str) -> None:
        from robot_rl_sim.models import load_model
        from robot_rl_sim.play.meshes import geom_mesh

        model, volumes = load_model(robot), 0
        for geom in range(model.ngeom):
            mesh = geom_mesh(model, geom)
            if mesh is None:
                continue
            # Half extents of the box around each geom, by MuJoCo.
            np.testing.assert_allclose(np.abs(mesh.bounds).max(0), model.geom_aabb[geom][3:], atol=3e-3)
            volumes += mesh.volume > 0
        assert volumes > 10

    def test_a_height_field_is_as_high_as_the_ground(self) -> None:
        from robot_rl_sim.play.meshes import geom_mesh

        spec = mujoco.MjSpec()
        heights = np.zeros((5, 9))
        heights[1, 6] = 1.0
        spec.add_hfield(name="h", nrow=5, ncol=9, size=[2.0, 1.0, 0.5, 0.1], userdata=heights.ravel())
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_HFIELD, hfieldname="h")
        model = spec.compile()
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        vertices = geom_mesh(model, 0).vertices
        assert len(vertices) == 45
        for x, y, z in vertices[(abs(vertices[:, 0]) < 1.9) & (abs(vertices[:, 1]) < 0.9)]:
            start, hit = np.array([x + 1e-6, y + 1e-6, 3.0]), np.zeros(1, np.int32)
            distance = mujoco.mj_ray(model, data, start, np.array([0.0, 0.0, -1.0]), None, 1, -1, hit, None)
            assert 3.0 - distance == pytest.approx(z, abs=1e-4)

    def test_the_page_holds_the_scene_and_moves_it(self, reach) -> None:
        import viser

        from robot_rl_sim.play.web import Scene, make_panel

        server = viser.ViserServer(host="127.0.0.1", port=8490, verbose=False)
        try:
            playback, pending = still(reach), []
            scene, panel = Scene(server, playback.model), make_panel(server, playback, pending.append)
            assert playback.model.body("palm").id in scene.bodies
            positions = []
            for _ in range(2):
                data = playback.data()
                scene.update(data, playback.markers(data))
                panel.update(playback)
                for body, frame in scene.bodies.items():
                    np.testing.assert_allclose(frame.position, data.xpos[body], atol=1e-6)
                    np.testing.assert_allclose(frame.wxyz, data.xquat[body], atol=1e-6)
                positions.append(np.concatenate([f.position for f in scene.bodies.values()]))
                for _ in range(5):
                    reach.step(torch.ones(1, 16))
            assert np.abs(positions[0] - positions[1]).max() > 1e-3
            np.testing.assert_allclose(
                [s.value for s in panel.sliders], reach.policy_inputs()["fingertip_goal"][0], atol=1e-3
            )
            panel.by_hand.value = True
            panel.pause.value = True
            while pending:
                pending.pop(0)()
            assert playback.by_hand
            assert playback.paused
        finally:
            server.stop()

    def test_a_browser_gets_the_page_and_its_updates(self, reach) -> None:
        import asyncio
        import urllib.request

        import viser
        import websockets

        from robot_rl_sim.play.web import watch

        stop = threading.Event()
        thread = threading.Thread(target=watch, args=(still(reach), "127.0.0.1", 8491, stop))
        thread.start()

        async def receive() -> list[bytes]:
            for attempt in range(100):
                try:
                    protocol = [f"viser-v{viser.__version__}"]
                    client = await websockets.connect("ws://127.0.0.1:8491", max_size=None, subprotocols=protocol)
                    break
                except OSError:
                    if attempt == 99:
                        raise
                    await asyncio.sleep(0.1)
            async with client:
                return [await asyncio.wait_for(client.recv(), 30) for _ in range(5)]

        try:
            messages = asyncio.run(receive())
            assert sum(map(len, messages)) > 10_000
            with urllib.request.urlopen("http://127.0.0.1:8491") as page:
                assert b"<!doctype html>" in page.read(200).lower()
        finally:
            stop.set()
            thread.join(20)
        assert not thread.is_alive()
