"""Off-policy algorithms: one file each, shared leaves, no inheritance between them."""
