"""Bundles: the file that carries a policy, its contract and the proof that it computes what was trained."""
