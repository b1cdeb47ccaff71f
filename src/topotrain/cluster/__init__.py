"""More than one machine: a cluster of nodes, asked through one file that knows the engine."""
