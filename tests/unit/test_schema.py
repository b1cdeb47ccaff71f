"""The feature schema: laws of its digest, JSON there and back, and differences in words."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from topotrain.errors import SchemaError
from topotrain.schema.check import check_same_schema, differences, expect
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.schema.values import canonical, decisive, name_graphs

BASE = FeatureSchema(
    node_dim=2,
    edge_dim=3,
    node_columns=("a", "b"),
    edge_columns=("c", "d", "e"),
    edge_module="edge/test/v1",
    edge_variant="test_3",
    edge_params={"cutoff": 10.0, "bands": [{"low": 0, "jobs": 2}], "scale": True, "jobs": 4},
    edge_bands=("short", "long"),
)
PINNED = "eff8508e1149123920c5c81c7970bc5fd318028228b07e8bbf173e53285e8c32"
PINNED_WIDTHS_ONLY = "8ca7b90b3f284302e31f4b10aa6cc3c39f63d73533d9930448b1243d1ac7691b"


def test_the_digest_is_the_same_number_everywhere() -> None:
    assert BASE.digest == PINNED
    assert FeatureSchema(node_dim=172, edge_dim=11).digest == PINNED_WIDTHS_ONLY


@pytest.mark.parametrize(
    "change",
    [
        {"edge_params": {"jobs": 99, "scale": True, "bands": [{"low": 0.0}], "cutoff": 10}},
        {"edge_params": {**dict(BASE.edge_params or {}), "output_dir": "/x", "verbose": True, "log_dir": "y"}},
        {"edge_jobs": 16},
        {"edge_alias": "other"},
        {"edge_summary": "words"},
        {"edge_source": "/elsewhere/graph_metadata.json", "node_source": "/elsewhere"},
        {"metadata_path": "/m.json", "summary_path": "/s.json"},
        {"notes": ("n",), "sample_graph": "T/m", "sample_edge_count": 3, "sample_node_count": 4},
        {"module_registry": {"edge": {"id": "z"}}},
        {"edge_columns": ["c", "d", "e"]},
    ],
)
def test_what_does_not_decide_compatibility_leaves_the_digest(change: dict[str, Any]) -> None:
    other = replace(BASE, **change)
    assert other.digest == BASE.digest
    assert differences(BASE, other) == []


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"node_dim": 5}, "node dim: 2 against 5"),
        ({"edge_dim": 4}, "edge dim: 3 against 4"),
        ({"node_columns": ("a", "z")}, 'node columns: missing ["b"], unexpected ["z"]'),
        ({"node_columns": ("b", "a")}, "node columns: the same names in another order, from column 0 on"),
        ({"edge_columns": ("c", "e", "d")}, "edge columns: the same names in another order, from column 1 on"),
        ({"edge_columns": ("c", "d", "e", "e")}, "edge columns: the same names in another order, from column 3 on"),
        ({"edge_module": "edge/test/v2"}, "edge module: 'edge/test/v1' against 'edge/test/v2'"),
        ({"edge_variant": "v"}, "edge variant: 'test_3' against 'v'"),
        ({"edge_bands": ("long", "short")}, 'edge bands: ["short", "long"] against ["long", "short"]'),
        ({"edge_bands": ({"low": 1},)}, 'edge bands: ["short", "long"] against [{"low": 1}]'),
        ({"edge_params": {**dict(BASE.edge_params or {}), "cutoff": 10.5}}, '"cutoff": 10.5'),
        ({"edge_params": {**dict(BASE.edge_params or {}), "scale": 1}}, '"scale": 1'),
        ({"edge_params": {**dict(BASE.edge_params or {}), "bands": []}}, '"bands": []'),
        ({"edge_params": {}}, "against {}"),
    ],
)
def test_what_decides_compatibility_changes_the_digest_and_is_shown(change: dict[str, Any], shown: str) -> None:
    other = replace(BASE, **change)
    assert other.digest != BASE.digest
    (line,) = differences(BASE, other)
    assert shown in line
    assert "\n" not in line


def test_what_one_side_does_not_know_is_no_difference() -> None:
    widths = FeatureSchema(node_dim=2, edge_dim=3)
    assert differences(BASE, widths) == differences(widths, BASE) == []
    assert widths.digest != BASE.digest


def test_many_columns_do_not_make_a_long_line() -> None:
    many = replace(BASE, node_dim=2081, node_columns=tuple(f"column_{i}" for i in range(2081)))
    assert all(len(line) < 1200 for line in differences(BASE, many))


@pytest.mark.parametrize("schema", [BASE, FeatureSchema(node_dim=1, edge_dim=1), replace(BASE, use_layer_norm=False)])
def test_json_there_and_back(schema: FeatureSchema) -> None:
    again = FeatureSchema.from_dict(json.loads(schema.to_json()))
    assert again == schema
    assert again.digest == schema.digest == schema.to_dict()["digest"]


def test_json_has_the_documented_keys() -> None:
    content = BASE.to_dict()
    assert list(content) == [
        *("edge_schema", "node_schema", "module_registry", "metadata_path", "summary_path", "notes"),
        *("sample_graph", "sample_edge_count", "sample_node_count", "digest"),
    ]
    assert set(content["edge_schema"]) == {
        *("dim", "columns", "module", "variant", "module_params", "bands", "source", "alias", "jobs", "summary"),
        "use_layer_norm",
    }
    assert set(content["node_schema"]) == {"columns", "dim", "source"}


def test_a_file_name_that_is_not_utf8_can_be_written_down() -> None:
    assert json.loads(replace(BASE, sample_graph="T/\udcff").to_json().encode())["sample_graph"] == "T/\udcff"


def test_the_older_stacks_files_load(shared_data: Any) -> None:
    found = {
        path.stem.removeprefix("feature_metadata_"): FeatureSchema.from_dict(json.loads(path.read_text()))
        for path in (shared_data / "samples").glob("feature_metadata_*.json")
    }
    assert {name: (schema.node_dim, schema.edge_dim) for name, schema in found.items()} == {
        "11d": (172, 11),
        "24d": (172, 24),
        "24d_fallback": (172, 24),
    }
    assert found["11d"].edge_module == "edge/legacy_band/v11"
    assert found["11d"].edge_alias == "TopoQA default 10A cutoff"
    assert len(found["11d"].node_columns or ()) == 172
    assert len(found["24d"].edge_bands or ()) == 3
    assert found["24d_fallback"].edge_source == "tensors"
    assert differences(found["24d"], found["24d_fallback"]) == []
    assert differences(found["11d"], found["24d"])[0] == "edge dim: 11 against 24"
    for schema in found.values():
        assert FeatureSchema.from_dict(json.loads(schema.to_json())).digest == schema.digest


GOOD: dict[str, Any] = {"edge_schema": {"dim": 3}, "node_schema": {"dim": 2}}


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        None,
        "text",
        {"edge_schema": {"dim": 3}},
        {"edge_schema": [], "node_schema": {"dim": 2}},
        {"edge_schema": "x", "node_schema": {"dim": 2}},
        *({**GOOD, "edge_schema": {"dim": dim}} for dim in (None, 0, -1, True, 2.5, "3", float("inf"), [3])),
        *({**GOOD, "edge_schema": {"dim": 3, "columns": value}} for value in (5, "abc", {"a": 1})),
        *({**GOOD, "edge_schema": {"dim": 3, "bands": value}} for value in (5, "abc")),
        *({**GOOD, "edge_schema": {"dim": 3, "module_params": value}} for value in (5, "abc", [1])),
        *({**GOOD, "edge_schema": {"dim": 3, key: 5}} for key in ("module", "variant", "alias", "source")),
        {**GOOD, "node_schema": {"dim": 2, "columns": 3}},
        {**GOOD, "module_registry": [1]},
        {**GOOD, "notes": 5},
    ],
)
def test_malformed_feature_metadata_is_refused_in_one_line(content: Any) -> None:
    with pytest.raises(SchemaError, match="feature metadata is malformed") as caught:
        FeatureSchema.from_dict(content)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


NODE = {"id": "node/a/v1", "params": {"window": 3, "jobs": 4}}
ALL_MODULES = {"interface": {"id": "interface/a/v1", "params": {"cutoff": 10.0}}, "node": NODE}


def test_all_modules_decide() -> None:
    schema = replace(BASE, modules=ALL_MODULES)
    assert schema.digest != BASE.digest == schema.digest_without_modules
    assert schema.has_digest(BASE.digest), "of a version made before"
    assert schema.has_digest(schema.digest)
    assert not BASE.has_digest(schema.digest)
    assert FeatureSchema.from_dict(json.loads(schema.to_json())) == schema
    same = replace(BASE, modules={**ALL_MODULES, "node": {"id": "node/a/v1", "params": {"jobs": 1, "window": 3.0}}})
    assert same.digest == schema.digest
    for other in ({"id": "node/a/v2", "params": NODE["params"]}, {"id": "node/a/v1", "params": {"window": 4}}):
        changed = replace(BASE, modules={**ALL_MODULES, "node": other})
        assert changed.digest != schema.digest
        (line,) = differences(schema, changed)
        assert line.startswith("node module: ")
    parameters = schema.parameters()
    assert parameters["schema.interface.module"] == "interface/a/v1"
    assert (parameters["schema.node.params"], parameters["schema.topology.module"]) == ('{"window":3}', "unknown")


def test_a_model_made_before_still_fits_its_own_graphs() -> None:
    """Its document has no ``modules``; its builder's record may name them, with or without parameters."""
    graphs = replace(BASE, modules=ALL_MODULES)
    records: list[dict[str, Any]] = [{}, ALL_MODULES, {"node": {"id": "node/a/v1", "defaults": {"window": 9}}}]
    for registry in records:
        before = replace(BASE, module_registry=registry)
        assert "modules" not in before.to_dict()
        check_same_schema(before, graphs, "a directory", of="model", beside="graphs", wanted="the same")
        check_same_schema(graphs, before, "a directory", of="model", beside="graphs", wanted="the same")
    other = replace(BASE, module_registry={"node": {"id": "node/b/v1"}})
    assert differences(other, graphs) == ['node module: {"id": "node/b/v1"} against {"id": "node/a/v1"}']


def test_parameters_are_texts_under_the_documented_names() -> None:
    assert BASE.parameters() == {
        "schema.interface.module": "unknown",
        "schema.topology.module": "unknown",
        "schema.node.module": "unknown",
        "schema.edge.module": "edge/test/v1",
        "schema.edge.params": '{"bands":[{"low":0}],"cutoff":10,"scale":true}',
        "schema.edge.dim": "3",
        "schema.edge.alias": "none",
        "schema.edge.variant": "test_3",
        "schema.node.dim": "2",
        "schema.digest": BASE.digest,
        "schema.source": "tensors",
    }


@pytest.mark.parametrize(
    "expectations",
    [
        {},
        {"dim": 3},
        {"module": "edge/test/v1", "variant": "test_3", "columns": ("c", "d", "e"), "bands": ("short", "long")},
        {"module_params": {"cutoff": 10, "bands": [{"low": 0}], "scale": True}},
    ],
)
def test_what_the_graphs_confirm_is_accepted(expectations: dict[str, Any]) -> None:
    expect(BASE, expectations)


@pytest.mark.parametrize(
    ("expectations", "shown"),
    [
        ({"dim": 24}, "edge_schema.dim is 24 in the configuration and 3 in the graphs"),
        ({"module": "edge/other"}, "edge_schema.module is 'edge/other' in the configuration and 'edge/test/v1'"),
        ({"columns": ("c", "e", "d")}, 'edge_schema.columns is ["c", "e", "d"]'),
        ({"module_params": {"cutoff": 9}}, 'edge_schema.module_params is {"cutoff": 9}'),
        ({"bands": ("short",)}, 'edge_schema.bands is ["short"]'),
        ({"module_params": {"made": __import__("datetime").date(2020, 1, 1)}}, "2020-01-01"),
    ],
)
def test_a_contradiction_is_an_error_that_shows_both(expectations: dict[str, Any], shown: str) -> None:
    with pytest.raises(SchemaError) as caught:
        expect(BASE, expectations)
    assert shown in str(caught.value)
    assert "remove edge_schema." in str(caught.value)


def test_canonical_text() -> None:
    assert canonical({"b": 10.0, "a": (1, 2.5)}) == canonical({"a": [1.0, 2.5], "b": 10}) == '{"a":[1,2.5],"b":10}'
    assert canonical(True) != canonical(1)
    assert canonical("1") != canonical(1)
    assert decisive({"a": [{"jobs": 1, "b": 2}], "threads": 3}) == {"a": [{"b": 2}]}


def test_up_to_five_graphs_are_named() -> None:
    assert name_graphs(["b", "a"]) == "a, b"
    assert name_graphs(f"g{i}" for i in range(7)) == "g0, g1, g2, g3, g4 and 2 more"
