"""robot-rl: train off-policy policies in simulation, prove them, run them on real robots."""

__version__ = "0.1.0"
