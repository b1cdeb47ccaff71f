"""Judging model versions: evaluate, gate, promote, and how a verdict is shown."""
