"""Tensor modules shared by training and export: what is computed here is what runs on the robot."""
