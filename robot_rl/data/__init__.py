"""Offline data: our transition files and robot logs, Minari and LeRobotDataset, and a report of what is in them.

Readers return a `Dataset` and writers take one; `robot_rl.data.formats` chooses between them.
"""

from robot_rl.data.dataset import ActionRange, Dataset
from robot_rl.data.formats import read_dataset, write_dataset

__all__ = ["ActionRange", "Dataset", "read_dataset", "write_dataset"]
