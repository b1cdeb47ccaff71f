"""A run's description on its page: the user's own words, then a summary."""

from __future__ import annotations

SUMMARY = "[//]: # (summary by topotrain)\n\n"  # no page shows it


def note_of(notes: str, summary: str) -> str:
    """Both together, Markdown."""
    return f"{notes}\n\n{SUMMARY}{summary}" if notes else f"{SUMMARY}{summary}"


def notes_in(note: str) -> str:
    """The user's words."""
    return note.partition(SUMMARY)[0].rstrip()
