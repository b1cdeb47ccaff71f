"""Labels joined with graphs: coverage, leaks, and a digest of what is learned from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Data

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.split import Split, SplitRules, leaked_targets, read_split, read_splits
from topotrain.errors import DataError


def read(graph_set: Any, labels: str | None = None, **options: Any) -> Split:
    path = graph_set.train_labels
    if labels is not None:
        path = graph_set.root / "own.csv"
        path.write_text(labels)
    progress = options.pop("progress", None)
    directory = GraphDirectory(graph_set.graphs)
    return read_split("train", directory, path, SplitRules(**options), progress=progress)


def test_a_split_keeps_the_order_of_its_labels(graph_set: Any) -> None:
    split = read(graph_set, "MODEL,dockq\nT1/m2,0.25\nT0__m1,0.5\nT1/m0,1\n")
    assert [(s.key, s.dockq, s.target) for s in split.samples] == [
        ("T1/m2", 0.25, "T1"),
        ("T0/m1", 0.5, "T0"),
        ("T1/m0", 1.0, "T1"),
    ]
    assert split.targets == ["T0", "T1"]
    assert split.coverage() == {"total": 3, "usable": 3, "coverage": 1.0, "missing": []}


def test_missing_graphs_fail_unless_allowed(graph_set: Any) -> None:
    labels = "MODEL,dockq\nT0/m0,0.5\n" + "".join(f"gone{i},0.1\n" for i in range(7))
    with pytest.raises(DataError) as caught:
        read(graph_set, labels)
    message = str(caught.value)
    assert "7 of 8 decoys have no graph" in message
    assert "gone0, gone1, gone2, gone3, gone4 and 2 more" in message
    assert f"{graph_set.root / 'own.csv'}" in message
    assert str(graph_set.graphs) in message
    assert "set coverage.fail_on_missing: false" in message
    split = read(graph_set, labels, fail_on_missing=False)
    assert split.coverage() == {
        "total": 8,
        "usable": 1,
        "coverage": 0.125,
        "missing": [f"gone{i}" for i in range(7)],
    }


def test_an_unreadable_graph_counts_as_missing_with_its_reason(graph_set: Any) -> None:
    bad = graph_set.graphs / "T0" / "m0.pt"
    bad.write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable graph") as caught:
        read(graph_set)
    assert str(bad) in str(caught.value)
    split = read(graph_set, fail_on_missing=False)
    assert len(split.samples) == 11
    (reason,) = split.missing
    assert reason.startswith("T0/m0 (")
    assert str(bad) in reason


@pytest.mark.parametrize(("minimum", "passes"), [(0, True), (50, True), (50.1, False), (100, False)])
def test_the_minimum_share_is_held(minimum: float, passes: bool, graph_set: Any) -> None:
    labels = "MODEL,dockq\nT0/m0,0.5\ngone,0.1\n"
    if passes:
        assert len(read(graph_set, labels, fail_on_missing=False, minimum_percent=minimum).samples) == 1
    else:
        with pytest.raises(DataError, match=r"50\.0 % usable.*expected at least .* %"):
            read(graph_set, labels, fail_on_missing=False, minimum_percent=minimum)


@pytest.mark.parametrize("fail_on_missing", [True, False])
def test_nothing_usable_is_always_an_error(fail_on_missing: bool, graph_set: Any) -> None:
    with pytest.raises(DataError, match="2 of 2 decoys have no graph") as caught:
        read(graph_set, "MODEL,dockq\ngone,0.5\nlost,0.1\n", fail_on_missing=fail_on_missing)
    assert "fail_on_missing: false" not in str(caught.value)


def test_one_graph_under_two_names_needs_one_value(graph_set: Any) -> None:
    split = read(graph_set, "MODEL,dockq\nT0/m0,0.5\nT0__m0,0.5\nT0/m0.pt,0.5\n")
    assert split.coverage() == {"total": 1, "usable": 1, "coverage": 1.0, "missing": []}
    with pytest.raises(DataError, match=r"own\.csv: T0/m0 is 0\.5 in line 2 and 0\.6 in line 4"):
        read(graph_set, "MODEL,dockq\nT0/m0,0.5\nT1/m0,0.5\nT0__m0,0.6\n")


def test_one_graph_in_both_files_needs_one_value(graph_set: Any) -> None:
    line = graph_set.train_labels.read_text().splitlines()[1]
    key = line.partition(",")[0]
    paths = {"train": graph_set.train_labels, "val": graph_set.val_labels}
    rest = graph_set.val_labels.read_text()
    graph_set.val_labels.write_text(f"{rest}{line}\n")
    assert len(read_splits(GraphDirectory(graph_set.graphs), paths)) == 2  # a leak, of which another line speaks
    graph_set.val_labels.write_text(f"{rest}{key},0.98765\n")
    with pytest.raises(DataError, match=rf"{key} is .* in line 2 of .*train.csv and 0.98765 in line 10 of .*val.csv"):
        read_splits(GraphDirectory(graph_set.graphs), paths)


def test_an_ambiguous_stem_is_refused_even_where_missing_is_allowed(graph_set: Any) -> None:
    with pytest.raises(DataError, match="fits .*T0/m0.pt and .*T1/m0.pt"):
        read(graph_set, "MODEL,dockq\nm0,0.5\n", fail_on_missing=False)


def test_targets_in_both_splits_are_found(graph_set: Any) -> None:
    train = read(graph_set, "MODEL,dockq,target\nT0/m0,0.5,A\nT1/m0,0.5,B\nT2/m0,0.5,\n")
    val = read(graph_set, "MODEL,dockq,target\nT0/m1,0.5,B\nT2/m2,0.5,\nT1/m1,0.5,C\n")
    assert leaked_targets(train, val) == ["B", "T2"]
    assert leaked_targets(train, read(graph_set, "MODEL,dockq\nV0/m1,0.5\n")) == []


def test_the_digest_knows_neither_order_nor_place(graph_set: Any, tmp_path: Path) -> None:
    lines = graph_set.train_labels.read_text().splitlines()
    first = read(graph_set)
    turned = read(graph_set, "\n".join([lines[0], *reversed(lines[1:])]))
    assert turned.digest == first.digest
    assert [s.key for s in turned.samples] != [s.key for s in first.samples]
    elsewhere = shutil.copytree(graph_set.root, tmp_path / "elsewhere")
    assert read_split("x", GraphDirectory(elsewhere / "graphs"), elsewhere / "train.csv").digest == first.digest


def _edit(name: str) -> Callable[[Data], None]:
    def edit(data: Data) -> None:
        if name == "edge_index":
            data.edge_index = data.edge_index.flip(0)
        else:
            data[name] = data[name].clone()
            data[name][-1, -1] += 1e-3

    return edit


@pytest.mark.parametrize("name", ["x", "edge_index", "edge_attr"])
def test_any_change_of_a_tensor_changes_the_digest(name: str, graph_set: Any) -> None:
    before = read(graph_set).digest
    path = graph_set.graphs / "T2" / "m3.pt"
    data = torch.load(path, weights_only=False)
    _edit(name)(data)
    torch.save(data, path)
    assert read(graph_set).digest != before


def test_any_change_of_a_label_changes_the_digest(graph_set: Any) -> None:
    digests = {
        read(graph_set, f"MODEL,dockq,target\n{row}\n").digest
        for row in ("T0/m0,0.5,", "T0/m0,0.50001,", "T0/m0,0.5,other", "T0/m1,0.5,", "T0/m0,0.5,\nT0/m1,0.5,")
    }
    assert len(digests) == 5


def test_tensors_that_carry_gradients_have_a_digest(graph_set: Any) -> None:
    before = read(graph_set).digest
    path = graph_set.graphs / "T0" / "m0.pt"
    data = torch.load(path, weights_only=False)
    data.x.requires_grad_(True)
    torch.save(data, path)
    assert read(graph_set).digest == before


def test_progress_sees_every_graph(graph_set: Any) -> None:
    seen: list[tuple[int, str]] = []

    def progress(items: Any, total: int, what: str) -> Any:
        seen.append((total, what))
        return items

    assert len(read(graph_set, progress=progress).samples) == 12
    assert seen == [(12, "packing graphs")]
