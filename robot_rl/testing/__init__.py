"""Fakes that validate what they are given: for our tests and for users' own."""
