"""Figures: described once, drawn as PNG files and as one interactive page."""
