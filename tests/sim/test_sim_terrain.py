"""The height field: its formulas, MuJoCo's own view of it, and places to stand."""

import math

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.robots import UNITREE_G1
from robot_rl_sim.models import default_qpos, load_model, load_spec
from robot_rl_sim.tasks.assemble import make_sim
from robot_rl_sim.tasks.g1_velocity.feet import round_soles
from robot_rl_sim.tasks.g1_velocity.mdp import G1Velocity, G1VelocityConfig
from robot_rl_sim.terrain import KINDS, Terrain, TerrainConfig

KIND = {kind: index for index, kind in enumerate(KINDS)}


@pytest.fixture(scope="module")
def terrain() -> Terrain:
    return Terrain(TerrainConfig(levels=3, spots=8))


@pytest.fixture(scope="module")
def world(terrain: Terrain) -> tuple[mujoco.MjModel, mujoco.MjData]:
    spec = load_spec("unitree_g1")
    terrain.add_to(spec)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def at(terrain: Terrain, kind: str, level: int, x: float, y: float) -> float:
    """Height at x, y (m) from the middle of a patch."""
    center = torch.tensor(terrain.center(KIND[kind], level))
    return float(terrain.height(center + torch.tensor([x, y])))


def test_heights_are_where_mujocos_rays_end(terrain: Terrain, world: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    """At random points of the whole field, whose cells are crossed by both triangles."""
    model, data = world
    half = np.array([0.5 * 6.0 * len(KINDS) + 1, 0.5 * 6.0 * 3 + 1])
    points = np.random.default_rng(0).uniform(-half, half, (800, 2))
    ground_only = np.array([1, 0, 0, 0, 0, 0], dtype=np.uint8)
    geom, down = np.zeros(1, dtype=np.int32), np.array([0.0, 0.0, -1.0])
    ends = [
        5.0 - mujoco.mj_ray(model, data, np.array([*point, 5.0]), down, ground_only, 1, -1, geom, None)
        for point in points
    ]
    heights = terrain.height(torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(heights, ends, atol=1e-6)
    assert np.ptp(heights) > 0.5


def test_a_slope_by_its_formula(terrain: Terrain) -> None:
    """From 0.7 m inside the rim, 0.3 per metre at the highest level, up to a platform 0.8 m around the middle."""
    assert at(terrain, "slope", 2, 2.4, 0.0) == 0.0
    assert at(terrain, "slope", 2, 1.3, -0.5) == pytest.approx(0.3 * 1.0, abs=1e-6)
    assert at(terrain, "slope", 2, 0.2, -1.3) == pytest.approx(0.3 * 1.0, abs=1e-6)
    assert at(terrain, "slope", 2, 0.3, 0.7) == pytest.approx(0.3 * 1.5, abs=1e-6)
    assert at(terrain, "slope", 0, 0.0, 0.0) == pytest.approx(0.05 * 1.5, abs=1e-6)


def test_stairs_by_their_formula(terrain: Terrain) -> None:
    """Five risers of 0.14 m, 0.3 m apart, with level treads between."""
    treads = [at(terrain, "stairs", 2, x, 0.0) for x in (2.5, 2.2, 2.1, 1.9, 1.6, 1.3, 1.0, 0.0)]
    np.testing.assert_allclose(treads, 0.14 * np.array([0, 1, 1, 2, 3, 4, 5, 5]), atol=1e-6)


def test_waves_by_their_formula(terrain: Terrain) -> None:
    for x, y in ((0.75, 0.75), (1.5, -1.5), (-2.05, 0.4)):
        expected = 0.2 * (math.sin(math.pi * x / 3) * math.sin(math.pi * y / 3)) ** 2
        assert at(terrain, "waves", 2, x, y) == pytest.approx(expected, abs=1e-3)  # chords of 5 cm


def test_blocks_and_obstacles_are_as_high_as_they_say(terrain: Terrain) -> None:
    reach = torch.linspace(-2.25, 2.25, 91)
    grid = torch.cartesian_prod(reach, reach)
    for kind, highest in (("blocks", 0.1), ("obstacles", 0.15)):
        heights = terrain.height(torch.tensor(terrain.center(KIND[kind], 2)) + grid)
        assert heights.min() >= 0
        assert 0.8 * highest < heights.max() <= highest + 1e-6
    levels = set(heights[(heights * 1e4).round() == heights * 1e4].tolist())
    assert 0.0 in levels  # obstacles stand apart


def test_patches_meet_on_the_level(terrain: Terrain) -> None:
    along = torch.linspace(-18.9, 18.9, 500)
    for y in (-9.0, -3.0, 3.0, 9.0):
        assert terrain.height(torch.stack((along, torch.full_like(along, y)), -1)).abs().max() < 1e-9
    beyond = torch.tensor([[50.0, 0.0], [0.0, -50.0]])
    assert terrain.height(beyond).tolist() == [0.0, 0.0]


def test_spots_are_level_and_lie_in_their_patch(terrain: Terrain) -> None:
    """Where kinds have level places, feet within 0.3 m stand on the spot's own height; nowhere higher."""
    offsets = torch.cartesian_prod(torch.linspace(-0.3, 0.3, 13), torch.linspace(-0.3, 0.3, 13))
    for kind, k in KIND.items():
        for level in range(3):
            spots = terrain.spots[k, level]
            off = (spots[:, :2] - torch.tensor(terrain.center(k, level))).abs()
            assert off.max() <= 3.0
            around = terrain.height(spots[:, None, :2] + offsets)
            torch.testing.assert_close(around.amax(-1), spots[:, 2], rtol=0, atol=1e-5)
            if kind in ("flat", "slope", "stairs", "obstacles"):
                assert (around.amax(-1) - around.amin(-1)).max() < 1e-5
    tops = terrain.spots[KIND["stairs"], :, :, 2]
    assert (tops > 0.05).any()  # some start on the platform and walk down ...
    assert (tops == 0).any()  # ... and some on the rim


def test_the_seed_decides() -> None:
    small = TerrainConfig(kinds=("blocks",), levels=2)
    assert torch.equal(Terrain(small).heights, Terrain(small).heights)
    other = Terrain(TerrainConfig(kinds=("blocks",), levels=2, seed=1))
    assert not torch.equal(Terrain(small).heights, other.heights)


def test_a_ball_comes_to_rest_on_the_field(terrain: Terrain) -> None:
    """MuJoCo collides with the same surface: on the third tread of the stairs, a ball of 5 cm lies at its height."""
    spec = mujoco.MjSpec.from_string(
        '<mujoco><worldbody><geom name="floor" type="plane" size="0 0 1"/><body name="ball"><freejoint/>'
        '<geom type="sphere" size="0.05" mass="0.1"/></body></worldbody></mujoco>'
    )
    terrain.add_to(spec)
    model = spec.compile()
    data = mujoco.MjData(model)
    x, y = terrain.center(KIND["stairs"], 2)
    data.qpos[:3] = x + 1.55, y, 0.8
    for _ in range(500):
        mujoco.mj_step(model, data)
    assert data.qpos[2] == pytest.approx(3 * 0.14 + 0.05, abs=2e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ("flat", "lava")}, r"\['lava'\]; valid: flat, slope, stairs"),
        ({"kinds": ()}, "valid: flat"),
        ({"levels": 0}, "at least 1, got 0"),
        ({"patch_m": 2.0}, "patches of more than 3 m, got 0.05 and 2.0"),
        ({"cell_m": 0.5}, "at most 0.2 m"),
    ],
)
def test_impossible_terrain_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TerrainConfig(**settings)  # type: ignore[arg-type]


def landing(radius_m: float) -> tuple[float, float]:
    """A robot dropped on the level patch at 0.6 m/s, 0.3 s: the flattest contact normal's vertical part, and the height
    of the lowest point of its soles before."""
    spec = load_spec("unitree_g1")
    round_soles(spec, radius_m)
    terrain = Terrain(TerrainConfig(kinds=("flat",), levels=1))
    terrain.add_to(spec)
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qpos[:] = default_qpos(load_model("unitree_g1"), UNITREE_G1)
    data.ctrl[:], data.qvel[:2] = data.qpos[7:], (0.5, 0.3)
    data.qpos[2] += 0.01
    mujoco.mj_forward(model, data)
    feet = [g for g in range(model.ngeom) if "_foot_" in model.geom(g).name]
    assert len(feet) == 8
    bottom = min(data.geom_xpos[g][2] - model.geom_size[g][0] for g in feet)
    steepest = 1.0
    for _ in range(60):
        mujoco.mj_step(model, data)
        steepest = min([steepest, *(contact.frame[2] for contact in data.contact)])
    return steepest, bottom


def test_rounder_soles_do_not_trip_over_the_cells_of_level_ground() -> None:
    small, large = landing(0.005), landing(0.02)
    assert small[1] == pytest.approx(0.01, abs=1e-6)
    assert large[1] == pytest.approx(0.01, abs=1e-6)
    assert large[0] > 0.7
    assert small[0] < 0.5


@pytest.mark.slow
@pytest.mark.timeout(900)  # kernels are compiled the first time
def test_both_backends_walk_on_the_same_field() -> None:
    """From when robots have landed on stairs and waves, MuJoCo and MuJoCo Warp on its CPU device move them alike, and
    they feel the ground with the same feet. In single precision an edge between triangles counts or not: ankles show
    it."""
    pytest.importorskip("mujoco_warp")
    config = G1VelocityConfig(terrain=TerrainConfig(kinds=("stairs", "waves"), levels=2, spots=4))
    mdp = G1Velocity(4, config)
    start = mdp.start(torch.arange(4), torch.rand(4, mdp.start_draws, generator=torch.Generator().manual_seed(0)))
    model = mdp.model_spec().compile()
    sims = [make_sim(model, UNITREE_G1, 4, 4, "cpu", 1, backend) for backend in ("mujoco", "warp")]
    target = mdp.policy_io.default_pos.expand(4, 29)
    one, two = sims
    one.set_state(torch.arange(4), start.qpos, torch.zeros(4, 35))
    for _ in range(6):
        one.step(target)
    two.set_state(torch.arange(4), one.qpos.clone(), one.qvel.clone())
    one.set_state(torch.arange(4), one.qpos.clone(), one.qvel.clone())
    for _ in range(3):
        one.step(target)
        two.step(target)
    torch.testing.assert_close(one.qpos[:, :7].double(), two.qpos[:, :7].double(), rtol=0, atol=1e-3)
    torch.testing.assert_close(one.joint_pos.double(), two.joint_pos.double(), rtol=0, atol=0.02)
    for side in ("left", "right"):
        ours, theirs = (sim.sensor(f"{side}_sole_contact") > 0 for sim in sims)
        assert torch.equal(ours, theirs)
        assert ours.any()
    assert start.qpos[:, 2].max() > 0.78  # some stand higher than on the level
