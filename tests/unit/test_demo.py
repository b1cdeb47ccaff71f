"""The demo data set: what the card says is what is there, the same everywhere, whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from kit.waiting import PATIENCE
from topotrain.config import load_config
from topotrain.data import demo, demo_codec
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import read_graph
from topotrain.data.prepare import prepare_data
from topotrain.data.split import leaked_targets, read_split
from topotrain.data.stored_schema import inspect_directory
from topotrain.errors import DataError
from topotrain.features import build_graphs, label_decoys
from topotrain.metrics.ranking import by_target, spearman

MEGABYTE = 1_000_000
DECOYS = 44


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> demo.DemoPaths:
    """One demo data set for the tests that only read it."""
    return demo.demo_paths(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def structures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("structures") / "out"
    demo.write_demo_structures(out)
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fingerprint(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def labels_of(made: demo.DemoPaths) -> dict[str, Path]:
    return {"train": made.train_labels, "val": made.val_labels, "holdout": made.holdout_labels}


def test_the_files_are_small_and_hold_no_pickle() -> None:
    graphs, structures = (path.stat().st_size for path in (demo.GRAPHS_FILE, demo.STRUCTURES_FILE))
    assert graphs <= 6 * MEGABYTE
    assert graphs + structures <= 10 * MEGABYTE
    names = {path.name for path in demo.DATA_DIR.iterdir() if not path.name.startswith((".", "_"))}
    assert names == {demo.GRAPHS_FILE.name, demo.STRUCTURES_FILE.name, "DATA_CARD.md"}


def test_labels_and_graphs_fit_and_no_target_leaks(made: demo.DemoPaths) -> None:
    directory = GraphDirectory(made.graphs)
    splits = {name: read_split(name, directory, path) for name, path in labels_of(made).items()}
    assert {name: len(split.targets) for name, split in splits.items()} == {"train": 10, "val": 4, "holdout": 4}
    assert sum(len(split.samples) for split in splits.values()) == len(directory.keys) == 18 * DECOYS
    for first, second in (("train", "val"), ("train", "holdout"), ("val", "holdout")):
        assert leaked_targets(splits[first], splits[second]) == []
        entries = [{target[:4] for target in splits[name].targets} for name in (first, second)]
        assert not entries[0] & entries[1], "one PDB entry in two splits"


def test_every_target_spans_the_range_of_quality(made: demo.DemoPaths) -> None:
    rows = [row for path in labels_of(made).values() for row in rows_of(path)]
    assert tuple(rows[0]) == demo.LABEL_COLUMNS
    assert {row["kind"] for row in rows} == {"native-like", "perturbed", "docking"}
    for target, number in Counter(row["target"] for row in rows).items():
        mine = [row for row in rows if row["target"] == target]
        values = [float(row["dockq"]) for row in mine]
        assert number >= 40
        assert min(values) < 0.1
        assert 0.8 < max(values) < 1.0, "the native itself is no decoy"
        assert {row["capri"] for row in mine} == {"0", "1", "2", "3"}, target
        assert sum(row["kind"] == "docking" for row in mine) >= 2
        assert all("gdock==" in row["source"] for row in mine if row["kind"] == "docking")
    assert all(int(row["capri"]) == np.searchsorted([0.23, 0.49, 0.80], float(row["dockq"]), "right") for row in rows)


def test_the_number_of_edges_says_little(made: demo.DemoPaths) -> None:
    """What a network must add to: in the first version of the data, edges alone ranked as well as a network."""
    directory = GraphDirectory(made.graphs)
    found = []
    for name, path in labels_of(made).items():
        split = read_split(name, directory, path)
        true = np.array([sample.dockq for sample in split.samples])
        edges = np.array([float(graph.edge_index.shape[1]) for graph in split.graphs()])
        for rows in by_target([sample.target for sample in split.samples]).values():
            found.append(spearman(edges[rows], true[rows]))
            wrong = edges[rows][true[rows] < 0.23]
            assert wrong.max() > 0.8 * np.median(edges[rows][true[rows] >= 0.8]), "no wrong decoy with many contacts"
    assert np.mean(found) < 0.45


def test_names_tell_nothing_of_quality(made: demo.DemoPaths) -> None:
    rows = [row for path in labels_of(made).values() for row in rows_of(path)]
    numbers = np.array([int(row["MODEL"].rpartition("/d")[2]) for row in rows])
    assert abs(np.corrcoef(numbers, [float(row["dockq"]) for row in rows])[0, 1]) < 0.1


def test_the_card_counts_right(made: demo.DemoPaths) -> None:
    card = demo.CARD_FILE.read_text(encoding="utf-8")
    for name, path in labels_of(made).items():
        for target in {row["target"] for row in rows_of(path)}:
            assert f"| {target} | {name} |" in card
    counts = [len(rows_of(path)) for path in labels_of(made).values()]
    assert f"| decoys | {counts[0]} | {counts[1]} | {counts[2]} |" in card


def test_its_schema_resolves_with_every_name(made: demo.DemoPaths) -> None:
    schema = inspect_directory(made.graphs)
    assert (schema.node_dim, schema.edge_dim) == (172, 11)
    assert (len(schema.node_columns or ()), len(schema.edge_columns or ())) == (172, 11)
    assert schema.edge_module == "edge/legacy_band/v11"
    assert schema.edge_source == str(made.graphs / "graph_metadata.json")
    assert schema.notes == ()


def test_graphs_are_those_the_builder_makes_of_the_structures(
    made: demo.DemoPaths, structures: Path, tmp_path: Path
) -> None:
    keys = ("1BGS_AE/d01", "3MFK_AB/d20", "6ZU5_LE0LEE/d42")
    for key in keys:
        (tmp_path / "in" / key).parent.mkdir(parents=True)
        (tmp_path / "in" / f"{key}.pdb").write_bytes(next(structures.glob(f"*/{key}.pdb")).read_bytes())
    report = build_graphs(tmp_path / "in", tmp_path / "built", strict=True)
    assert report.built == keys
    for key in keys:
        ours, built = (read_graph(folder / f"{key}.pt", key) for folder in (made.graphs, tmp_path / "built"))
        assert torch.equal(ours.edge_index, built.edge_index)
        assert ours.metadata["node_ids"] == built.metadata["node_ids"]
        assert torch.equal(ours.edge_attr[:, 1:], built.edge_attr[:, 1:])
        assert torch.equal(ours.x[:, 3:32], built.x[:, 3:32])
        for mine, other in ((ours.x, built.x), (ours.edge_attr, built.edge_attr)):
            assert bool(((mine - other).abs() <= demo_codec.TOLERANCE * other.abs().clamp(min=1) + 1e-6).all())
    sides = [inspect_directory(folder) for folder in (made.graphs, tmp_path / "built")]
    assert sides[0].digest == sides[1].digest


def test_labels_are_those_of_the_structures(made: demo.DemoPaths, structures: Path, tmp_path: Path) -> None:
    pytest.importorskip("DockQ")
    chosen = {row["MODEL"]: row for row in rows_of(made.holdout_labels) if row["target"] == "1BGS_AE"}
    (tmp_path / "1BGS_AE").mkdir()
    for key in list(chosen)[:3]:
        (tmp_path / f"{key}.pdb").write_bytes((structures / "holdout" / f"{key}.pdb").read_bytes())
    report = label_decoys(tmp_path, structures / "natives" / "1BGS_AE.pdb")
    assert [(row.MODEL, row.dockq, row.capri) for row in report.rows] == [
        (key, float(chosen[key]["dockq"]), int(chosen[key]["capri"])) for key in list(chosen)[:3]
    ]


def test_structures_lie_by_split_and_are_named_as_labels(made: demo.DemoPaths, structures: Path) -> None:
    rows = {name: rows_of(path) for name, path in labels_of(made).items()}
    found = {path.relative_to(structures).with_suffix("").as_posix() for path in structures.rglob("*.pdb")}
    expected = {f"{name}/{row['MODEL']}" for name, split in rows.items() for row in split}
    assert found == expected | {f"natives/{row['target']}" for split in rows.values() for row in split}


def test_made_twice_it_is_the_same_bytes(made: demo.DemoPaths, structures: Path, tmp_path: Path) -> None:
    demo.write_demo(tmp_path / "graphs")
    assert fingerprint(tmp_path / "graphs") == fingerprint(made.graphs.parent)
    target = next(demo_codec.unpack_structures(demo.STRUCTURES_FILE.read_bytes()))
    for model, text in demo_codec.pdb_texts(target):
        name = f"{target.name}/{model}.pdb" if model else f"natives/{target.name}.pdb"
        path = structures / name if not model else next(structures.glob(f"*/{name}"))
        assert path.read_text(encoding="ascii") == text


def test_packing_again_gives_the_same_values() -> None:
    graphs, index = demo_codec.unpack_graphs(demo.GRAPHS_FILE.read_bytes())
    again, kept = demo_codec.unpack_graphs(demo_codec.pack_graphs(graphs[:3], index))
    assert kept == index
    for one, other in zip(graphs, again, strict=False):
        assert (one.key, one.node_ids) == (other.key, other.node_ids)
        for name in ("x", "edge_index", "edge_attr"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_edges_of_another_kind_are_refused() -> None:
    graphs, index = demo_codec.unpack_graphs(demo.GRAPHS_FILE.read_bytes())
    graphs[0].edge_attr[0, 3] += 0.5
    with pytest.raises(DataError, match="edges of another kind"):
        demo_codec.pack_graphs(graphs[:1], index)


def test_two_processes_at_once_make_one_whole_data_set(made: demo.DemoPaths, tmp_path: Path, quick_python: str) -> None:
    code = "import sys, pathlib; from topotrain.data.demo import demo_paths as make\n"
    code += "make(pathlib.Path(sys.argv[1]))"
    processes = [
        subprocess.Popen([quick_python, "-c", code, str(tmp_path)], stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    errors = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert [path.name for path in tmp_path.iterdir()] == [f"demo-{demo.demo_version()}"]
    assert fingerprint(tmp_path / f"demo-{demo.demo_version()}") == fingerprint(made.graphs.parent)


def test_one_that_is_there_is_not_made_again(made: demo.DemoPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "make_demo", lambda root: pytest.fail("made again"))
    assert demo.demo_paths(made.graphs.parent.parent) == made


def test_a_broken_attempt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: Path) -> None:
        (root / "half").touch()
        raise OSError("disk full")

    monkeypatch.setattr(demo, "make_demo", fail)
    with pytest.raises(DataError, match="disk full") as caught:
        demo.demo_paths(tmp_path / "cache")
    assert str(tmp_path / "cache") in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="can't be written") as caught:
        demo.demo_paths(tmp_path / "file")
    assert "set XDG_CACHE_HOME" in str(caught.value)


@pytest.mark.parametrize("write", [demo.write_demo, demo.write_demo_structures])
def test_an_existing_folder_is_left_alone(tmp_path: Path, write) -> None:
    (tmp_path / "kept").touch()
    with pytest.raises(DataError, match="exists"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_the_digests_of_the_data_are_pinned() -> None:
    """As they were before graphs were packed: a run made then goes on with the same data."""
    data = prepare_data(load_config(None, []).config)
    assert data.train.digest == "3786cf1273c2e15c0b7f75d863e4c622cabfeb31ca04494a0ad4354e20e78ff3"
    assert data.val.digest == "477a1aaf3f056fd931d76affa8053cc2bf6bba9e1971418c1c3e35208b2b2540"
    assert data.digest == "34ee6da039ab61e9fd05665c8989f5ffa579abe33440cc92d16a7148847b3212"
    assert data.schema.has_digest("08aae0ea3713176686ba28d81bb275a4775d045f10942c22519ef4a6155d2bda")
    assert data.schema.digest == "74f27a9c979d7de89d7414593db14bae2b7b2ed2351cadc567c1434b44779ad9"
