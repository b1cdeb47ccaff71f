"""What is asked of the server: one run, many runs, a model version."""
