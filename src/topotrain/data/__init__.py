"""Files to batches: safe reading, labels, splits with their coverage, packed graphs; the demo data set."""
