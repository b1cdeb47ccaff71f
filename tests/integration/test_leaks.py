"""A run says which of its validation targets share a protein with the training targets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kit.commands import exit_status
from topotrain.data.demo import demo_structures
from topotrain.features import build_graphs
from topotrain.features.sequences import longest, read_sequences, write_sequences
from topotrain.features.similarity import find_links

TARGETS = ("1BD2_AB", "1AK4_AB", "3KPR_AD")  # the first and the last share a protein


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaks")
    for name in TARGETS:
        decoys = sorted((demo_structures() / name).iterdir())[:2]
        (folder / "decoys" / name).mkdir(parents=True)
        for decoy in decoys:
            shutil.copy(decoy, folder / "decoys" / name)
    build_graphs(folder / "decoys", folder / "graphs")
    return folder / "graphs"


def write_labels(path: Path, graphs: Path, *targets: str) -> str:
    rows = [
        f"{name}/{graph.stem},0.{number}" for name in targets for number, graph in enumerate((graphs / name).iterdir())
    ]
    path.write_text("MODEL,dockq\n" + "\n".join(rows) + "\n")
    return str(path)


def run(graphs: Path, folder: Path, train: tuple[str, ...], val: tuple[str, ...]) -> int:
    labels = [write_labels(folder / f"{side}.csv", graphs, *names) for side, names in (("train", train), ("val", val))]
    paths = zip(("graph", "train_labels", "val_labels"), (graphs, *labels), strict=True)
    given = [word for name, path in paths for word in ("--override", f"paths.{name}={path}")]
    return exit_status("run", "--fast-dev-run", *given)


@pytest.mark.usefixtures("store_uri")
def test_a_shared_protein_is_said(graphs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # computed, and remembered
        assert run(graphs, tmp_path, TARGETS[:2], TARGETS[2:]) == 0
        said = capsys.readouterr().err
        assert (
            "1 of 1 validation targets share a protein with training (a leak, from 40% identity on): 3KPR_AD " in said
        )
        assert "3KPR_AD (1BD2_AB, 83%); topotrain split" in said
    assert run(graphs, tmp_path, TARGETS[:1], TARGETS[1:2]) == 0
    assert "share a protein" not in capsys.readouterr().err


@pytest.mark.usefixtures("store_uri")
def test_what_is_not_known_is_said(graphs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "graphs"
    shutil.copytree(graphs, copy)
    path = copy / "chain_sequences.json"
    content = json.loads(path.read_text())
    content["graphs"] = {key: chains for key, chains in content["graphs"].items() if not key.startswith("1AK4_AB")}
    path.write_text(json.dumps(content))
    assert run(copy, tmp_path, TARGETS[:1], TARGETS[1:2]) == 0
    assert "sequences of 1 targets are not in chain_sequences.json, such as 1AK4_AB" in capsys.readouterr().err
    path.write_text('{"sequences": [], "graphs": {"1BD2_AB/x": {"A": 7}}}')
    assert run(copy, tmp_path, TARGETS[:1], TARGETS[1:2]) == 2
    assert "chain_sequences.json: malformed" in capsys.readouterr().err
    path.unlink()
    assert run(copy, tmp_path, TARGETS[:2], TARGETS[2:]) == 0
    assert "protein" not in capsys.readouterr().err


def test_sequences_of_graphs_that_are_kept_stay_and_others_go(graphs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "graphs"
    shutil.copytree(graphs, copy)
    before = read_sequences(copy)
    assert len(before) == 6
    assert {name for chains in before.values() for name in chains} <= {"A", "B", "D"}
    report = build_graphs(graphs.parent / "decoys", copy)
    assert len(report.kept) == 6
    assert read_sequences(copy) == before
    write_sequences(copy, {"new": {"Z": "ACD"}}, ["new", *list(before)[:2]])
    assert read_sequences(copy) == {"new": {"Z": "ACD"}, **{key: before[key] for key in list(before)[:2]}}


def test_only_pairs_across_are_compared(graphs: Path) -> None:
    chains: dict[str, set[str]] = {}
    for key, found in read_sequences(graphs).items():
        chains.setdefault(key.split("/")[0], set()).update(found.values())
    sides = {name: longest(found) for name, found in chains.items()}
    across = find_links(sides, apart=["3KPR_AD"])
    assert [(link.first, link.second) for link in across] == [("1BD2_AB", "3KPR_AD")]
    assert find_links(sides) == across
    assert find_links(sides, apart=["1AK4_AB"]) == []
