"""docs/feature_modules.md names every shipped module and column, in order."""

from __future__ import annotations

import re
from pathlib import Path

from topotrain.features import list_modules

DOCUMENT = Path(__file__).parents[2] / "docs" / "feature_modules.md"


def test_every_module_and_column_is_documented_in_order() -> None:
    text = DOCUMENT.read_text()
    sections = {part.partition("`")[0]: part for part in text.split("\n### `")[1:]}
    for item in (item for item in list_modules() if item.package == "topotrain"):
        section = sections[item.id]
        named = re.findall(r"^\| [0-9-]+ \| (.*?) \|", section, flags=re.MULTILINE)
        columns = [column for cell in named for column in re.findall(r"`(\w+)`", cell)]
        if item.id == "edge/plus_topo_min/v1":
            parts = ("min_", "max_", "absdiff_", *item.columns[-3:])
            assert all(f"`{part}`" in section for part in parts)
            continue
        if item.id == "node/plddt/v1":
            assert tuple(columns) == item.columns[32:34]
            continue
        own = item.columns[:32] if item.kind == "node" else item.columns
        assert tuple(columns) == own, item.id
