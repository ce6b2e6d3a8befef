"""Robots from files that this project has never seen: MJCF or URDF to a RobotSpec and a scene."""
