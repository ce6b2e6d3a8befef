"""Checks of an installation, a machine and a robot; each finding says how to mend what is wrong."""
