"""Running a policy on a robot: control loop, safety filter, modes. Needs numpy and onnxruntime, nothing heavier."""
