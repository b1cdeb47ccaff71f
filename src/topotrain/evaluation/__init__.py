"""Evaluating model versions and promoting them; ranking reports as tables and figures."""
