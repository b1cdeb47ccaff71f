"""Training runs: fit, what happens at the end of an epoch, selection, signals."""
