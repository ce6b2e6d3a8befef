"""A double of NVIDIA's `isaacgym` (Preview 4): the part of its API that robot_rl_sim uses, checked call by call.

It refuses what the library's documentation forbids, and moves the bodies with MuJoCo, from the asset files and the
properties that it was given.
"""

import sys

# The library does the same; a test process has torch for other reasons.
if "torch" in sys.modules and "pytest" not in sys.modules:
    raise ImportError("PyTorch was imported before isaacgym modules.  Please import torch after isaacgym modules.")
