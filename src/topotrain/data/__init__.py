"""Files to batches: safe reading, labels, coverage, schema resolution, the packed store."""
