"""The sim-to-sim gate: does an exported policy depend on how it happened to be simulated?"""
