"""The feature schema: resolved from graphs and their metadata files, and the one judge of what fits what."""
