"""YAML, JSON, CSV and numbers that anybody may have written, read within bounds: one reader of each."""
