"""The version of the program, read by whatever records it."""

__version__ = "0.1.0"
