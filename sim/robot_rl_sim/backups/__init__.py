"""How often each backup saves the robot, from states in which policies fail: `robot-rl backup-report`."""
