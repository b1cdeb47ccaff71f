"""Folds of a label file: cut between targets, never between the decoys of one."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.graphs import GraphSet
from topotrain.config import TrainConfig, load_config
from topotrain.data.demo import demo_paths
from topotrain.data.folds import deal_targets, make_folds
from topotrain.errors import DataError


def recipe(graph_set: GraphSet, *more: str) -> TrainConfig:
    return load_config(None, [*graph_set.overrides, *more]).config


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@given(st.dictionaries(st.text("ABC", min_size=1, max_size=4), st.integers(1, 90), min_size=2), st.integers(2, 6))
def test_every_target_is_in_one_fold_and_folds_are_of_one_size(decoys: dict[str, int], num_folds: int) -> None:
    num_folds = min(num_folds, len(decoys))
    dealt = deal_targets(decoys, num_folds)
    assert sorted(name for fold in dealt for name in fold) == sorted(decoys)
    assert all(dealt)
    sizes = [sum(decoys[name] for name in fold) for fold in dealt]
    assert max(sizes) - min(sizes) <= max(decoys.values()), "no more apart than the largest target"
    assert dealt == deal_targets(dict(reversed(decoys.items())), num_folds)


def test_the_rows_of_a_fold_are_those_of_the_file(make_graph_set: Any, tmp_path: Path) -> None:
    graph_set = make_graph_set(train_targets=5)
    lines = graph_set.train_labels.read_text().splitlines()
    text = "\n".join(["MODEL;dockq;remark", *(line.replace(",", ";") + ";a, b" for line in lines[1:])])
    graph_set.train_labels.write_text(text + "\n")
    folds = make_folds(recipe(graph_set), 3, tmp_path / "cache")
    assert [fold.targets for fold in folds] == [("T0", "T3"), ("T1", "T4"), ("T2",)]
    whole = sorted(line.split(",")[0] for line in lines[1:])
    seen: list[str] = []
    for fold in folds:
        train, val = rows(fold.train_labels), rows(fold.val_labels)
        assert sorted(row["MODEL"] for row in (*train, *val)) == whole
        assert {row["MODEL"].split("/")[0] for row in val} == set(fold.targets)
        assert not {row["MODEL"].split("/")[0] for row in train} & set(fold.targets)
        assert train[0]["remark"] == "a, b"
        seen += [row["MODEL"] for row in val]
    assert sorted(seen) == whole, "every decoy is validated on once"
    again = make_folds(recipe(graph_set), 3, tmp_path / "cache")
    assert again == folds
    assert make_folds(recipe(graph_set), 3, tmp_path / "other")[0].val_labels.read_bytes() == (
        folds[0].val_labels.read_bytes()
    ), "the same on every machine"


def test_a_column_says_the_target(graph_set: GraphSet, tmp_path: Path) -> None:
    """One that says otherwise than the folders do: two folders of one target stay together."""
    lines = graph_set.train_labels.read_text().splitlines()
    same = [f"{line},{'P' if line.startswith('T0') else 'Q'}" for line in lines[1:] if not line.startswith("T2")]
    graph_set.train_labels.write_text("\n".join(["MODEL,dockq,Target", *same]) + "\n")
    folds = make_folds(recipe(graph_set), 2, tmp_path / "cache")
    assert [fold.targets for fold in folds] == [("P",), ("Q",)]
    assert {row["Target"] for row in rows(folds[0].train_labels)} == {"Q"}


def test_too_few_targets(graph_set: GraphSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 targets \(T0, T1, T2\) can't make 4 folds; .*; take fewer --folds"):
        make_folds(recipe(graph_set), 4, tmp_path)


def test_a_label_without_a_graph(graph_set: GraphSet, tmp_path: Path) -> None:
    (graph_set.graphs / "T0" / "m0.pt").unlink()
    with pytest.raises(DataError, match=r"1 of 12 decoys have no graph below .*T0/m0"):
        make_folds(recipe(graph_set), 2, tmp_path)
    folds = make_folds(recipe(graph_set, "coverage.fail_on_missing=false"), 2, tmp_path)
    assert sum(len(rows(fold.val_labels)) for fold in folds) == 11


def test_the_demo_data(tmp_path: Path) -> None:
    folds = make_folds(TrainConfig(), 5, tmp_path)
    targets = [name for fold in folds for name in fold.targets]
    known = {row["target"] for row in rows(demo_paths().train_labels)}
    assert sorted(targets) == sorted(known)
    assert max(len(rows(fold.val_labels)) for fold in folds) < 2 * min(len(rows(fold.val_labels)) for fold in folds)
