"""Graphs and their metadata files to one schema, or one line that says where they disagree."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from topotrain.data.stored_schema import inspect_directory
from topotrain.errors import DataError, SchemaError, TopotrainError
from topotrain.schema.feature_schema import FeatureSchema, GraphFacts
from topotrain.schema.resolve import resolve_schema

KEYS = [f"T{i}/m" for i in range(8)]


def facts(edge_dim: int | None = 3, node_dim: int = 2, keys: Sequence[str] = KEYS, **other: Any) -> list[GraphFacts]:
    return [GraphFacts(key, node_dim, edge_dim, 4, 0 if edge_dim is None else 6, **other) for key in keys]


def entry(**other: Any) -> dict[str, Any]:
    info = {"edge_count": 6, "feature_dim": 3, "edge_feature_variant": "v3", "bands": ["near", "far"]}
    return {
        "edge_module": "edge/a/v1",
        "edge_params": {"cutoff": 10.0, "jobs": 4},
        "edge_metadata": {**info, **other.pop("info", {})},
        "node_feature_columns": ["n0", "n1"],
        "edge_feature_columns": ["e0", "e1", "e2"],
        **other,
    }


def sidecar(graph_dir: Path, content: Any = None, name: str = "graph_metadata.json") -> Path:
    graph_dir.mkdir(parents=True, exist_ok=True)
    content = {key: entry() for key in KEYS} if content is None else content
    path = graph_dir / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def summary(folder: Path, output: Any, name: str = "graph_builder_summary.json", **edge: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    module = {"id": "edge/a/v1", "alias": folder.as_posix(), "jobs": 2, "summary": "s", "defaults": {"d": 1}, **edge}
    (folder / name).write_text(json.dumps({"modules": {"edge": module}, "edge": {"output_dir": str(output)}}))
    return folder / name


def refused(graph_dir: Path, given: Sequence[GraphFacts] | None = None, **options: Any) -> str:
    with pytest.raises(TopotrainError) as caught:
        resolve_schema(facts() if given is None else given, graph_dir, **options)
    message = str(caught.value)
    assert isinstance(caught.value, SchemaError | DataError)
    assert caught.value.exit_code == 2
    assert str(graph_dir.parent) in message
    assert "expected" in message
    assert "\n" not in message
    assert len(message) < 3000
    return message


# Where facts come from


def test_the_sidecar_names_everything(tmp_path: Path) -> None:
    path = sidecar(tmp_path)
    schema = resolve_schema(facts(), tmp_path, use_layer_norm=False)
    assert schema == FeatureSchema(
        node_dim=2,
        edge_dim=3,
        node_columns=("n0", "n1"),
        edge_columns=("e0", "e1", "e2"),
        edge_module="edge/a/v1",
        edge_variant="v3",
        edge_params={"cutoff": 10.0, "jobs": 4},
        edge_bands=("near", "far"),
        edge_source=str(path),
        node_source=str(path),
        use_layer_norm=False,
        metadata_path=str(path),
        sample_graph="T0/m",
        sample_edge_count=6,
        sample_node_count=4,
    )


def test_without_metadata_the_tensors_decide_and_the_schema_says_so(tmp_path: Path) -> None:
    schema = resolve_schema(facts(), tmp_path)
    assert (schema.node_dim, schema.edge_dim, schema.edge_source, schema.node_source) == (2, 3, "tensors", "tensors")
    assert (schema.edge_module, schema.edge_columns, schema.metadata_path) == (None, None, None)
    assert schema.notes == (
        f"graph_metadata.json not found at {tmp_path}/graph_metadata.json",
        "widths come from the tensors alone: no metadata names the columns",
    )


def test_graphs_absent_from_the_sidecar_are_counted(tmp_path: Path) -> None:
    sidecar(tmp_path, {KEYS[0]: entry()})
    schema = resolve_schema(facts(), tmp_path)
    (note,) = schema.notes
    assert note.startswith("7 of 8 graphs are not in graph_metadata.json")
    assert note.endswith("T1/m, T2/m, T3/m, T4/m, T5/m and 2 more")
    assert schema.edge_module == "edge/a/v1"


def test_a_graphs_own_metadata_speaks_where_there_is_no_sidecar(tmp_path: Path) -> None:
    own = {"edge_module": "edge/own", "edge_params": {"a": 1}, "edge_info": {"feature_dim": 3, "bands": ["x"]}}
    schema = resolve_schema(facts(metadata=own), tmp_path)
    assert (schema.edge_module, schema.edge_params, schema.edge_bands) == ("edge/own", {"a": 1}, ("x",))
    assert schema.edge_source == "graph files"
    assert len(schema.notes) == 1


def test_a_graph_absent_from_the_sidecar_is_held_to_its_own_metadata(tmp_path: Path) -> None:
    sidecar(tmp_path, {KEYS[0]: entry()})
    given = [*facts(keys=KEYS[:1]), *facts(keys=["Z/z"], metadata={"edge_module": "edge/other"})]
    message = refused(tmp_path, given)
    for word in ("different edge module", "edge/a/v1", "T0/m", "edge/other", "Z/z"):
        assert word in message


@pytest.mark.parametrize(("node", "edge"), [(1, 1), (55, 24), (172, 11), (1252, 2081)])
def test_any_width_works(node: int, edge: int, tmp_path: Path) -> None:
    columns = {
        "node_feature_columns": [f"n{i}" for i in range(node)],
        "edge_feature_columns": [f"e{i}" for i in range(edge)],
    }
    sidecar(tmp_path, {key: entry(**columns, info={"feature_dim": edge}) for key in KEYS})
    schema = resolve_schema(facts(edge, node), tmp_path)
    assert (schema.node_dim, schema.edge_dim, len(schema.edge_columns or ())) == (node, edge, edge)


def test_top_level_keys_that_are_no_graph_are_metadata(tmp_path: Path) -> None:
    content: dict[str, Any] = {f"{KEYS[0]}.pt": entry()}
    content |= {"_builder": {"edge_module": "no"}, "_topology_schema": {"vector_dim": 140}, "edge_feature_dim": 3}
    content |= {"_module_registry": {"edge": {"id": "edge/a/v1", "alias": "A", "jobs": 3}}, "T9/odd": None, "x": 5}
    sidecar(tmp_path, content)
    schema = resolve_schema(facts(keys=KEYS[:1]), tmp_path)
    assert schema.notes == ()
    assert (schema.edge_alias, schema.edge_jobs, schema.module_registry["edge"]["alias"]) == ("A", 3, "A")


def test_a_sidecar_may_describe_all_graphs_at_once(tmp_path: Path) -> None:
    shared = {
        "module": "edge/s",
        "variant": "v",
        "module_params": {"a": 1},
        "bands": ["b"],
        "columns": list("abc"),
        "dim": 3,
    }
    path = sidecar(tmp_path, {"_edge_schema": shared, "_node_schema": {"columns": ["p", "q"]}})
    schema = resolve_schema(facts(), tmp_path)
    assert (schema.edge_module, schema.edge_variant, schema.edge_params) == ("edge/s", "v", {"a": 1})
    assert (schema.edge_columns, schema.node_columns, schema.edge_bands) == (("a", "b", "c"), ("p", "q"), ("b",))
    assert (schema.edge_source, schema.notes) == (str(path), ())
    sidecar(tmp_path, {"edge_module": "edge/t", "edge_feature_variant": "w", "edge_params": {"b": 2}})
    schema = resolve_schema(facts(), tmp_path)
    assert (schema.edge_module, schema.edge_variant, schema.edge_params) == ("edge/t", "w", {"b": 2})


def test_graphs_without_edges_leave_the_width_to_the_others(tmp_path: Path) -> None:
    assert resolve_schema([*facts(None, keys=["A/a"]), *facts()], tmp_path).edge_dim == 3
    assert "no graph has an edge" in refused(tmp_path, facts(None))
    assert "no graphs" in refused(tmp_path, [])


def test_execution_settings_do_not_divide_graphs(tmp_path: Path) -> None:
    content = {key: entry(edge_params={"cutoff": [10, 10.0][i % 2], "jobs": i}) for i, key in enumerate(KEYS)}
    sidecar(tmp_path, content)
    first = resolve_schema(facts(), tmp_path)
    sidecar(tmp_path)
    assert resolve_schema(facts(), tmp_path).digest == first.digest


def test_a_sidecar_that_counts_other_edges_is_of_another_build(tmp_path: Path) -> None:
    sidecar(tmp_path, {key: entry(info={"edge_count": 6 if key == KEYS[0] else 99}) for key in KEYS})
    message = refused(tmp_path)
    assert "edge_count in the metadata differs from the tensors in 7 graphs: T1/m 99 against 6, T2/m" in message
    assert message.endswith(
        "and 2 more; expected metadata that agree with the tensors; rebuild the graphs, or remove the stale metadata"
    )


@pytest.mark.parametrize("count", ["6", -1, 6.0, True, [6]])
def test_an_edge_count_that_is_no_count(tmp_path: Path, count: Any) -> None:
    sidecar(tmp_path, {key: entry(info={"edge_count": count}) for key in KEYS})
    assert "edge_count is" in refused(tmp_path)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (["e0", "e1", "e0"], 'columns 0 and 2 are both called "e0"'),
        (["e0", "", "e2"], "column 1 has no name"),
        (["e0", "e1", " "], "column 2 has no name"),
        (["e0", 1, "e2"], "column 1 is a int"),
        (["e0", None, "e2"], "column 1 is a NoneType"),
        ([["e0"], "e1", "e2"], "column 0 is a list"),
    ],
)
def test_names_of_columns_that_are_none(tmp_path: Path, columns: list[Any], words: str) -> None:
    words = words.replace('"', "'")
    sidecar(tmp_path, {key: entry(edge_feature_columns=columns) for key in KEYS})
    assert words in refused(tmp_path).replace('"', "'")
    sidecar(tmp_path, {"_edge_schema": {"columns": columns}})
    assert words in refused(tmp_path).replace('"', "'")
    (tmp_path / "graph_metadata.json").unlink()
    given = facts(metadata={"edge_feature_columns": columns})
    assert words in refused(tmp_path, given).replace('"', "'")


# Disagreements


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"edge_module": "edge/b"}, ["edge module", "edge/a/v1", "edge/b"]),
        ({"edge_params": {"cutoff": 9}}, ["edge module parameters", '"cutoff":9', '"cutoff":10']),
        ({"info": {"edge_feature_variant": "w"}}, ["edge variant", "v3", "w"]),
        ({"info": {"bands": ["far", "near"]}}, ["edge bands", '["far","near"]', '["near","far"]']),
        ({"edge_feature_columns": ["e1", "e0", "e2"]}, ["edge columns", '["e1","e0","e2"]', '["e0","e1","e2"]']),
        ({"node_feature_columns": ["n0", "zz"]}, ["node columns", '["n0","zz"]', '["n0","n1"]']),
        ({"info": {"feature_dim": 4}}, ["edge feature_dim in the metadata is 4", "the tensors have 3"]),
        ({"edge_feature_columns": ["e0"]}, ["number of edge_feature_columns in the metadata is 1", "have 3"]),
        ({"node_feature_columns": ["n0"]}, ["number of node_feature_columns in the metadata is 1", "have 2"]),
    ],
)
def test_a_graph_that_disagrees_is_named_with_both_values(
    odd: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    sidecar(tmp_path, {key: entry(**json.loads(json.dumps(odd if key == "T7/m" else {}))) for key in KEYS})
    message = refused(tmp_path)
    for word in [*words, "T7/m"]:
        assert word in message
    assert "T6/m" not in message  # five graphs of a kind are named, not all


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (facts(4, keys=["Z/z"]), "edge width: 4 in Z/z; 3 in T0/m"),
        (facts(3, 9, ["Z/z"]), "node width: 9 in Z/z; 2 in T0/m"),
    ],
)
def test_mixed_widths_are_refused(odd: list[GraphFacts], words: str, tmp_path: Path) -> None:
    assert f"{words}, T1/m, T2/m, T3/m, T4/m and 3 more" in refused(tmp_path, [*facts(), *odd])


def test_long_lists_of_columns_show_where_they_part(tmp_path: Path) -> None:
    columns = [f"column_{i}" for i in range(2081)]
    turned = [*columns[:-2], columns[-1], columns[-2]]
    other = [*columns[:-1], "other"]
    for odd, word in (
        (turned, "another order, from column 2079"),
        (other, 'missing ["other"], unexpected ["column_2080"]'),
    ):
        sidecar(
            tmp_path,
            {k: entry(edge_feature_columns=odd if k == "T3/m" else columns, info={"feature_dim": 2081}) for k in KEYS},
        )
        message = refused(tmp_path, facts(2081))
        assert "T3/m against T0/m" in message
        assert word in message


def test_many_kinds_of_graphs_do_not_make_a_long_line(tmp_path: Path) -> None:
    keys = [f"T/{i:03}" for i in range(300)]
    sidecar(tmp_path, {key: entry(edge_params={"number": i}) for i, key in enumerate(keys)})
    assert "and 295 more kinds" in refused(tmp_path, facts(keys=keys))


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"edge_module": "edge/b"}, ["edge_module", "'edge/b' against 'edge/a/v1'"]),
        ({"edge_params": {"cutoff": 9}}, ["edge_params", '{"cutoff": 9} against {"cutoff": 10.0}']),
        ({"edge_info": {"feature_dim": 4}}, ["feature_dim", "4 against 3"]),
        ({"edge_info": {"edge_feature_variant": "w"}}, ["edge_feature_variant", "'w' against 'v3'"]),
        ({"edge_feature_columns": ["e0", "e2", "e1"]}, ["edge_feature_columns", "another order, from column 1"]),
        ({"node_feature_columns": ["n1", "n2"]}, ["node_feature_columns", 'missing ["n2"], unexpected ["n0"]']),
    ],
)
def test_a_file_that_contradicts_the_sidecar_is_refused(own: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    sidecar(tmp_path)
    message = refused(tmp_path, facts(metadata=own))
    for word in ["graph T0/m: the file and the sidecar disagree", *words]:
        assert word in message


def test_a_width_given_once_for_all_must_fit(tmp_path: Path) -> None:
    sidecar(tmp_path, {"edge_feature_dim": 4})
    message = refused(tmp_path)
    assert f"{tmp_path}/graph_metadata.json says edge_feature_dim 4, but the tensors of T0/m" in message
    sidecar(tmp_path, {"_edge_schema": {"dim": 4}})
    assert "edge feature_dim in the metadata is 4" in refused(tmp_path)


# Malformed files


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"3", b'"text"', b"\xff\xfe\x00", b"\0" * 50, b"[" * 100_000, b"{'a': 1}"),
        b'{"a":' * 600 + b"1" + b"}" * 600,
        b'{"a": ' + b"9" * 5000 + b"}",
        *(
            {KEYS[0]: entry(**{key: 5})}
            for key in ("edge_module", "edge_params", "edge_metadata", "edge_feature_columns")
        ),
        *({KEYS[0]: entry(info={"feature_dim": value})} for value in ("3", 3.5, True, [3])),
        *({KEYS[0]: entry(info={key: 5})} for key in ("bands", "edge_feature_variant")),
        {KEYS[0]: entry(node_feature_columns="n0n1")},
        *({"_edge_schema": {key: 5}} for key in ("module", "variant", "module_params", "bands", "columns")),
        *({"_edge_schema": {"dim": value}} for value in ("3", True)),
        {"_edge_schema": {"columns": "abc"}},
        {"_node_schema": {"columns": 5}},
        {"_module_registry": {"edge": {"defaults": 5}}},
        {"_module_registry": {"edge": {"alias": 5}}},
        {"edge_feature_dim": "3"},
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_malformed_sidecar_is_refused_by_name(content: Any, tmp_path: Path) -> None:
    path = sidecar(tmp_path, content)
    assert str(path) in refused(tmp_path)


@pytest.mark.parametrize(
    "own",
    [
        *(
            {key: 5}
            for key in ("edge_module", "edge_params", "edge_info", "edge_feature_columns", "node_feature_columns")
        ),
        *({"edge_info": {key: 5}} for key in ("bands", "edge_feature_variant")),
        {"edge_info": {"feature_dim": "3"}},
    ],
    ids=str,
)
def test_malformed_metadata_in_a_graph_names_the_graph_file(own: dict[str, Any], tmp_path: Path) -> None:
    assert f"{tmp_path}/T0/m.pt: metadata" in refused(tmp_path, facts(metadata=own))


def test_explicit_paths_must_be_there(tmp_path: Path) -> None:
    for option in ("metadata_path", "summary_path"):
        assert f"{tmp_path}/no.json: no such file" in refused(tmp_path, **{option: tmp_path / "no.json"})
        assert f"{tmp_path}: not readable" in refused(tmp_path, **{option: tmp_path})
        bad = sidecar(tmp_path, b"{", "bad.json")
        assert str(bad) in refused(tmp_path, **{option: bad})


def test_an_explicit_sidecar_beats_the_one_beside_the_graphs(tmp_path: Path) -> None:
    sidecar(tmp_path)
    other = sidecar(tmp_path / "x", {key: entry(edge_module="edge/x") for key in KEYS})
    schema = resolve_schema(facts(), tmp_path, metadata_path=other)
    assert (schema.edge_module, schema.metadata_path) == ("edge/x", str(other))


# The builder's summary


@pytest.mark.parametrize("logs", ["logs", "logs_x", "logs/graph_builder.2025-01-01_00-00-00", "logs_2/run"])
@pytest.mark.parametrize("up", [0, 1, 2, 3, 4])
def test_a_summary_is_found_here_and_up_to_three_parents(logs: str, up: int, tmp_path: Path) -> None:
    graphs = tmp_path / "a" / "b" / "c" / "d" / "graphs"
    graphs.mkdir(parents=True)
    base = [graphs, *graphs.parents][up]
    path = summary(base / logs, graphs)
    schema = resolve_schema(facts(), graphs)
    if up == 4:
        assert schema.summary_path is None
    else:
        assert schema.summary_path == str(path)
        assert (schema.edge_module, schema.edge_jobs, schema.edge_summary) == ("edge/a/v1", 2, "s")
        assert schema.module_registry["edge"]["id"] == "edge/a/v1"


@pytest.mark.parametrize("output", ["../../graphs", "../../x/../graphs", "link", "absolute"])
def test_output_dir_is_absolute_or_relative_to_the_summary(output: str, tmp_path: Path) -> None:
    graphs = tmp_path / "graphs"
    graphs.mkdir()
    (tmp_path / "link").symlink_to(graphs)
    given = {"absolute": str(graphs), "link": str(tmp_path / "link")}.get(output, output)
    path = summary(tmp_path / "logs" / "run", given)
    assert resolve_schema(facts(), graphs).summary_path == str(path)


def test_a_summary_of_other_graphs_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "graphs").mkdir()
    summary(tmp_path / "logs" / "a", tmp_path / "other")
    summary(tmp_path / "logs" / "b", tmp_path)
    summary(tmp_path / "log" / "c", tmp_path / "graphs")
    schema = resolve_schema(facts(), tmp_path / "graphs")
    assert schema.summary_path is None
    assert not any("skipped" in note for note in schema.notes)


@pytest.mark.parametrize("newest", ["logs/b.2025-06-02_00-00-00", "logs_z/a.2025-06-02_00-00-00"])
def test_the_newest_summary_wins(newest: str, tmp_path: Path) -> None:
    expected = summary(tmp_path / newest, tmp_path)
    for name in ("logs/z.2025-06-01_23-59-59", "logs/a.2024-12-31_00-00-00"):
        summary(tmp_path / name, tmp_path)
    assert resolve_schema(facts(), tmp_path).summary_path == str(expected)
    untimed = summary(tmp_path / "logs" / "by_file_time", tmp_path)
    os.utime(untimed, (4e9, 4e9))
    assert resolve_schema(facts(), tmp_path).summary_path == str(untimed)


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{", '{"modules": 5}', '{"edge": []}', '{"edge": {"edge_feature_dim": "3"}}'),
        *(
            '{"edge": {"output_dir": "a\\u0000b"}}',
            '{"modules": {"edge": {"defaults": 5}}}',
            '{"modules": {"edge": {"id": 5}}}',
        ),
    ],
)
def test_a_malformed_summary_found_is_passed_over_but_one_given_is_an_error(content: str, tmp_path: Path) -> None:
    good = summary(tmp_path / "logs" / "good", tmp_path)
    bad = tmp_path / "logs" / "bad" / good.name
    bad.parent.mkdir()
    bad.write_text(content)
    schema = resolve_schema(facts(), tmp_path)
    assert schema.summary_path == str(good)
    assert [note for note in schema.notes if note.startswith(f"summary skipped: {bad}")]
    assert str(bad) in refused(tmp_path, summary_path=bad)


def test_a_summary_that_contradicts_the_graphs_is_refused(tmp_path: Path) -> None:
    sidecar(tmp_path)
    path = summary(tmp_path / "logs", tmp_path, id="edge/z")
    message = refused(tmp_path)
    for word in (str(path), "'edge/z'", "'edge/a/v1'"):
        assert word in message
    path.write_text(json.dumps({"edge": {"output_dir": "..", "edge_feature_dim": 24}}))
    assert f"{path} says edge_feature_dim 24, but the tensors of T0/m" in refused(tmp_path)


# Whole directories


def test_a_directory_is_inspected_whole(make_graph_set: Callable[..., Any]) -> None:
    made = make_graph_set("good", node_dim=7, edge_dim=1)
    schema = inspect_directory(made.graphs)
    assert (schema.node_dim, schema.edge_dim, schema.notes) == (7, 1, ())
    shutil.copyfile(make_graph_set("other", node_dim=8).graphs / "T0" / "m0.pt", made.graphs / "T2" / "odd.pt")
    with pytest.raises(SchemaError, match="node width: 8 in T2/odd; 7 in T0/m0") as caught:
        inspect_directory(made.graphs)
    assert str(made.graphs) in str(caught.value)


def test_real_docking_graphs(shared_data: Path) -> None:
    graphs = shared_data / "real_docking" / "graphs"
    schema = inspect_directory(graphs)
    assert (schema.node_dim, schema.edge_dim) == (172, 11)
    assert (schema.edge_module, schema.edge_alias) == ("edge/legacy_band/v11", "11D legacy")
    assert (schema.edge_variant, schema.edge_jobs, schema.notes) == ("legacy_band_v11", 2, ())
    assert len(schema.node_columns or ()) == 172
    assert schema.metadata_path == str(graphs / "graph_metadata.json")
    assert Path(schema.summary_path or "").is_file()
