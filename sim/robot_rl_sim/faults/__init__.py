"""Faults put into a robot, its sensors, its links, its clock and its policy, and what the runtime makes of them."""
