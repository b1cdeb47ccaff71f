"""The list of kept checkpoints that is recorded beside them."""

from __future__ import annotations

import json
from pathlib import Path

from topotrain.fields import KEPT_INDEX
from topotrain.training.selection import Selection


def write_kept_index(selection: Selection, folder: Path) -> Path:
    """Write which checkpoints are kept, best first, as recorded beside them."""
    index = folder / KEPT_INDEX
    rows = [
        {"rank": rank, "epoch": kept.epoch, "file": kept.file_name, **kept.figures}
        for rank, kept in enumerate(selection.kept, start=1)
    ]
    index.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return index
