"""Seeing a policy at work: native and web viewer, video files, contact sheets."""
