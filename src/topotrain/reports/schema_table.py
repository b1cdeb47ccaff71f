"""A feature schema as text for people."""

from __future__ import annotations

import json
from collections.abc import Iterator

from topotrain.schema.feature_schema import FeatureSchema

COLUMNS_A_LINE = 8


def schema_lines(schema: FeatureSchema) -> list[str]:
    """The schema, one property a line, then the columns by number."""
    rows = [
        ("digest", schema.digest),
        ("edge columns", str(schema.edge_dim)),
        ("edge module", schema.edge_module or "unknown"),
        ("edge variant", schema.edge_variant or "unknown"),
        ("edge alias", schema.edge_alias or "none"),
        ("edge parameters", "unknown" if schema.edge_params is None else json.dumps(schema.edge_params)),
        ("node columns", str(schema.node_dim)),
        *_other_modules(schema),
        ("source", schema.edge_source),
        ("summary", schema.summary_path or "none found"),
    ]
    lines = [f"{name:<17} {value}" for name, value in rows]
    lines += [f"{'note':<17} {note}" for note in schema.notes]
    for kind, columns in (("edge", schema.edge_columns), ("node", schema.node_columns)):
        if columns is not None:
            lines.append(f"{kind} columns by number:")
            for start in range(0, len(columns), COLUMNS_A_LINE):
                lines.append(f"  {start:>5}  " + " ".join(columns[start : start + COLUMNS_A_LINE]))
    return lines


def _other_modules(schema: FeatureSchema) -> Iterator[tuple[str, str]]:
    for kind in ("node", "topology", "interface"):
        module = schema.feature_modules.get(kind, {"id": "unknown", "params": None})
        yield f"{kind} module", module["id"]
        if module["params"] is not None:
            yield "  parameters", json.dumps(module["params"])
