"""Writing a text file so that a kill leaves the old one or the new one."""

from __future__ import annotations

import os
from pathlib import Path

from topotrain.errors import DataError


def write_text(text: str, out: Path) -> None:
    """Write a file, whole or not at all.

    Raises:
        DataError: the file can't be written.
    """
    aside = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, out)
    except OSError as error:
        raise DataError(f"{out}: can't be written ({error.strerror})", "a file that can be written") from None
