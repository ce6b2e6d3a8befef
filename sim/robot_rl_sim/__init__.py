"""Simulation: backends, tasks and a simulated robot."""
