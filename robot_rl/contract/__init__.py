"""The contract between training and robot, and the values that it describes. Imports nothing heavier than numpy."""

from robot_rl.contract.episode import EpisodeSpec, ObjectStart, TurnGoals
from robot_rl.contract.spec import (
    SCHEMA_VERSION,
    ActionSpec,
    Contract,
    JointSpec,
    TensorSpec,
)
from robot_rl.contract.state import (
    OBJECT_FIELDS,
    STATE_FIELDS,
    Command,
    JointCommand,
    NumpyState,
    RobotState,
    damping_command,
)

__all__ = [
    "OBJECT_FIELDS",
    "SCHEMA_VERSION",
    "STATE_FIELDS",
    "ActionSpec",
    "Command",
    "Contract",
    "EpisodeSpec",
    "JointCommand",
    "JointSpec",
    "NumpyState",
    "ObjectStart",
    "RobotState",
    "TensorSpec",
    "TurnGoals",
    "damping_command",
]
