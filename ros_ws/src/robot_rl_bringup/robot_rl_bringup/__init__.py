"""Launch files and parameters; no code."""
