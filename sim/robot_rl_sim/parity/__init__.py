"""The simulator's side of parity: its expectation of a flight, and flights of robots with known mistakes."""
