"""Credentials never leave the program: they are masked in whatever is shown or recorded."""

from __future__ import annotations

import re


def mask_credentials(text: str) -> str:
    """Hide ``user:password@`` (or a token before the ``@``) in every URI of a text."""
    return re.sub(r"(\w://)[^/\s'\"]+@", r"\1***@", text)
