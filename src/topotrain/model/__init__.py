"""The network that scores interface graphs, and its Lightning module."""
