"""Folders as prediction programs leave them, from structures to ranks."""

from __future__ import annotations

import csv
import io
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import topotrain
from kit.recorded import mlflow_client
from topotrain.cli import main
from topotrain.data.demo import demo_paths, write_demo_structures

JOBS, SAMPLES = 3, 3


@pytest.fixture(scope="module")
def decoys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Path, float]]]:
    """Structures and DockQ of a few decoys of three complexes."""
    root = tmp_path_factory.mktemp("demo") / "structures"
    write_demo_structures(root)
    labels = {row["MODEL"]: float(row["dockq"]) for row in csv.DictReader(demo_paths().train_labels.open())}
    found: dict[str, list[tuple[Path, float]]] = {}
    for path in sorted((root / "train").rglob("*.pdb"), key=lambda path: (path.stat().st_size, path)):
        key = f"{path.parent.name}/{path.stem}"
        if key in labels:
            found.setdefault(path.parent.name, []).append((path, labels[key]))
    return {target: rows[:SAMPLES] for target, rows in list(found.items())[:JOBS]}


def laid_out(decoys: dict[str, list[tuple[Path, float]]], root: Path, place: Callable[[str, int], str]) -> Path:
    for target, rows in decoys.items():
        for number, (path, _) in enumerate(rows):
            copy = root / place(target, number)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return root


@pytest.fixture(scope="module")
def alphafold(decoys, tmp_path_factory) -> Path:
    """AlphaFold 3's layout with labels as a spreadsheet has them, the graphs, and a store with a model of them."""
    root = tmp_path_factory.mktemp("alphafold")
    laid_out(decoys, root / "af3", lambda target, number: f"{target}/seed-1_sample-{number}/model.pdb")
    *train, val = decoys
    for name, targets in (("train", train), ("val", [val])):
        rows = [
            f"{target};seed-1_sample-{number}/model.pdb;{dockq}"
            for target in targets
            for number, (_, dockq) in enumerate(decoys[target])
        ]
        (root / f"{name}.csv").write_text("\n".join(["Target;Model;DockQ", *rows]) + "\n")
    main(["build-graphs", str(root / "af3"), "--out", str(root / "graphs")])
    topotrain.fit(
        None,
        overrides=[
            f"paths.graph={root / 'graphs'}",
            f"paths.train_labels={root / 'train.csv'}",
            f"paths.val_labels={root / 'val.csv'}",
            "trainer.num_epochs=1",
            "mlflow.register=best",
        ],
        tracking_uri=f"sqlite:///{root / 'mlflow.db'}",
    )
    return root


def model(alphafold: Path) -> list[str]:
    return ["--model", "models:/topoqa@candidate", "--tracking-uri", f"sqlite:///{alphafold / 'mlflow.db'}"]


def ranks(text: str) -> dict[str, list[int]]:
    """Ranks of each target's decoys."""
    found: dict[str, list[int]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        found.setdefault(row["TARGET"], []).append(int(row["RANK"]))
    return found


def test_from_structures_to_ranks(alphafold, decoys, tmp_path, capsys):
    expected = {target: [1, 2, 3] for target in decoys}
    main(["score", str(alphafold / "af3"), *model(alphafold)])
    scored = capsys.readouterr()
    assert ranks(scored.out) == expected
    assert f"{JOBS} targets: " in scored.err
    out = tmp_path / "p.csv"
    graphs = ["--graphs", str(alphafold / "graphs"), "--labels", str(alphafold / "val.csv")]
    main(["predict", *graphs, "--out", str(out), "--rank", *model(alphafold)])
    assert ranks(out.read_text()) == expected
    both = [
        {row["MODEL"]: row["PRED_DOCKQ"] for row in csv.DictReader(io.StringIO(t))}
        for t in (scored.out, out.read_text())
    ]
    assert both[0] == both[1]
    main(["evaluate", *graphs, *model(alphafold)])
    assert "targets by label column; label DockQ" in capsys.readouterr().out
    run = mlflow_client(f"sqlite:///{alphafold / 'mlflow.db'}")
    assert (
        run.get_model_version_by_alias("topoqa", "candidate").tags["topotrain.eval_targets"].startswith("label column")
    )


@pytest.mark.parametrize(
    ("place", "options", "expected"),
    [
        (lambda target, number: f"{target}_ranked_{number}.pdb", [], {"around": 9}),
        (lambda target, number: f"{target}_unrelaxed_rank_00{number}_x_seed_000.pdb", [], "targets"),
        (lambda target, number: f"{target}/pdb/M_{number}.pdb", [], "targets"),
        (lambda target, number: f"set/{target}/M_{number}.pdb", [], {"set": 9}),
        (lambda target, number: f"set/{target}/M_{number}.pdb", ["--target-level", "2"], "targets"),
        (lambda target, number: f"{target}_ranked_{number}.pdb", ["--target-pattern", "^(.+)_ranked"], "targets"),
    ],
    ids=["flat", "ColabFold", "pdb below", "deeper", "level", "pattern"],
)
def test_score_reads_targets_off_the_layout(alphafold, decoys, tmp_path, capsys, place, options, expected):
    root = laid_out(decoys, tmp_path / "around", place)
    main(["score", str(root), *options, *model(alphafold)])
    shown = capsys.readouterr()
    counts = Counter({target: len(numbers) for target, numbers in ranks(shown.out).items()})
    assert counts == (dict.fromkeys(decoys, SAMPLES) if expected == "targets" else expected)
    assert f"{len(counts)} target" in shown.err
    assert ("has 3 folders of decoys" in shown.err) == (options == [] and "set" in counts)


def test_a_level_that_is_not_there_is_one_line(alphafold, decoys, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["score", str(alphafold / "af3"), "--target-level", "3", *model(alphafold)])
    assert stop.value.code == 2
    assert "2 folders below the root; expected at least 3" in capsys.readouterr().err
