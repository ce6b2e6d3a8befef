"""What a task is to the environment: how an episode starts, and what each step was worth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from robot_rl.contract import EpisodeSpec
from robot_rl.networks.policy_io import PolicyIO
from robot_rl.replay.mirror import Mirror
from robot_rl.robots import RobotSpec
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.disturbances import PushConfig

if TYPE_CHECKING:
    import mujoco


@dataclass(frozen=True, slots=True)
class Start:
    """The first state of k episodes, and what is asked of them."""

    qpos: Tensor
    """(k, nq)."""
    qvel: Tensor
    """(k, nv)."""
    command: Tensor
    """(k, command_dim), in the units of the contract's command."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of all worlds, as it truly was: without sensor noise, in float32."""

    sim: BatchSim
    joint_pos: Tensor
    """(n, n_joints) rad."""
    joint_vel: Tensor
    """(n, n_joints) rad/s."""
    action: Tensor
    """(n, n_joints) in [-1, 1]."""
    last_action: Tensor
    """(n, n_joints), the action before; zero in the first step of an episode."""
    command: Tensor
    """(n, command_dim), as it was when the action was chosen."""
    steps: Tensor
    """(n,) int64, steps made in the episode, this one included."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step was worth."""

    rewards: dict[str, Tensor]
    """Term -> (n,), weighted; their sum is the reward."""
    terminated: Tensor
    """(n,) bool: failed, and no value follows."""
    at_goal: Tensor
    """(n,) bool: this step fulfils what the command asks."""
    command: Tensor | None = None
    """(n, command_dim): what is asked from now on. None: still the same."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Name -> (n,): what else tells how an episode went, as it stands after this step."""


class Mdp(Protocol):
    """A task written on batched tensors: config, start states, rewards, terminations."""

    robot: RobotSpec
    policy_io: PolicyIO
    substeps: int
    max_episode_steps: int
    hold_steps: int
    """An episode succeeds if `at_goal` held in each of its last `hold_steps` steps."""
    pushes: PushConfig | None
    """Pushes that are part of the task, whether or not the dynamics are randomised."""
    mirror: Mirror | None
    """The task seen with left and right exchanged, where that is the same task."""
    privileged_dim: int
    """Width of `privileged`; 0 where a robot measures all that matters."""
    object_body: str | None
    """Body with a free joint whose pose a camera reports as `RobotState.object_pos` and `object_quat_wxyz`."""
    episode: EpisodeSpec | None
    """What a robot must be brought to before a policy of the task may take over. None: to its default pose."""
    state: dict[str, Tensor]
    """What `start` and `outcome` go by besides what is drawn, changed in place; saved and restored with the
    environment. Values kept per world need the number of worlds at construction."""
    start_draws: int
    outcome_draws: int
    """How many numbers `start` and `outcome` are given for each world."""

    def model_spec(self) -> mujoco.MjSpec:
        """The robot with its motors (`robot_rl_sim.models.load_spec`), in the scene of the task."""
        ...

    def start(self, worlds: Tensor, drawn: Tensor) -> Start:
        """The starts of new episodes in `worlds` (k,), by `drawn` (k, start_draws), uniform in [0, 1). Can be compiled,
        as `outcome`."""
        ...

    def outcome(self, t: Transition, drawn: Tensor) -> Outcome:
        """Rewards, terminations and goal test of one step, and what is asked next. All that is left to chance is in
        `drawn` (n, outcome_draws), uniform in [0, 1). What depends on values in tensors is chosen by torch.where and
        not by Python, so that a step can be compiled."""
        ...

    def privileged(self, sim: BatchSim) -> Tensor:
        """(n, privileged_dim) of order one: what critics may know of the present states and no robot measures."""
        ...
