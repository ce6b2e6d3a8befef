"""Verbs of the simulation part."""
