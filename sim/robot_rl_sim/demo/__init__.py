"""The demonstration: the whole path from training to a robot over ROS 2, and its report."""
