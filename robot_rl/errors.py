"""Errors that a user can act on: each message names the bad value and the valid ones."""


class RobotRLError(Exception):
    """Base of every error that the command line prints as one line instead of a traceback."""


class ContractError(RobotRLError):
    """A contract, or something that claims to match one, is malformed or does not match."""


class BundleError(RobotRLError):
    """A bundle cannot be read, is incomplete, was altered, or fails its golden rows."""


class ConfigError(RobotRLError):
    """A configuration value is outside what the code accepts."""


class LogError(RobotRLError):
    """A log of a run is none, is damaged, or does not hold what is asked of it."""


class EnvError(RobotRLError):
    """An environment produced something that must not be learned from, such as NaN."""


class CheckpointError(RobotRLError):
    """A checkpoint cannot be written or read."""


class MissingDependencyError(RobotRLError):
    """An optional part is not installed; the message says which extra brings it."""


class TrainingError(RobotRLError):
    """Learning went wrong in a way that more steps do not mend, such as a loss that is not finite."""
