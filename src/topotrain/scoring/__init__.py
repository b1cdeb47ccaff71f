"""Judging and using models: ranking metrics, scoring, the served model."""
