"""Physics backends behind one interface, BatchSim."""
