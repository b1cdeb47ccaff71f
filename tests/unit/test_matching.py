"""Which graph a label means: names as people write them, and targets that have to fit."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.labels import Label, read_labels
from topotrain.data.matching import LabelMatcher, Matched, match_labels
from topotrain.data.split import target_of
from topotrain.data.targets import TargetRule, Targets
from topotrain.errors import DataError

LAYOUT = ("T0/m0.pt", "T1/m0.pt", "T1/only.pt", "flat.pt", "flat_1.5.pt", "T2/a__b.pt", "T4/pdb/m7.pt")


def make(root: Path, *names: str) -> GraphDirectory:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return GraphDirectory(root)


def targets_of(directory: GraphDirectory, rule: TargetRule | None = None) -> Targets:
    return Targets(directory.root, directory.keys, rule, labelled=True)


def graph_of(directory: GraphDirectory, model: str, target: str = "") -> str | None:
    return LabelMatcher(directory, targets_of(directory)).graph_of(Label(model, 0.5, target, 2))


def match(directory: GraphDirectory, text: str | bytes) -> Matched:
    path = directory.root.parent / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return match_labels(directory, targets_of(directory), read_labels(path), path)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("T0/m0", "T0/m0"),
        ("T0/m0.pt", "T0/m0"),
        (" T0/m0 ", "T0/m0"),
        ("./T0/m0", "T0/m0"),
        ("T0\\m0", "T0/m0"),
        ("T0\\m0.pdb", "T0/m0"),
        ("T0__m0", "T0/m0"),
        ("T0__m0.pt", "T0/m0"),
        ("T0/m0.pdb", "T0/m0"),
        ("T0/m0.PDB.GZ", "T0/m0"),
        ("T0/m0.cif", "T0/m0"),
        ("T0/m0.cif.gz", "T0/m0"),
        ("T0/m0.pdb.pt", "T0/m0"),
        ("C:\\decoys\\T0\\m0.pdb", "T0/m0"),
        ("/data/decoys/T0/m0.pdb", "T0/m0"),
        ("only", "T1/only"),
        ("only.pdb", "T1/only"),
        ("flat", "flat"),
        ("flat_1.5", "flat_1.5"),
        ("a__b", "T2/a__b"),
        ("T2__a__b", "T2/a__b"),
        ("T4/m7", "T4/pdb/m7"),
        ("T4__m7.pdb", "T4/pdb/m7"),
        ("pdb/m7", None),
        ("nothing", None),
        ("T9/m0", None),
        ("T9/only", None),
        ("T9__only", None),
        ("/data/T9/m0.pdb", None),
        ("/data/T9/flat.pdb", None),
        ("../T0/m0", None),
        ("", None),
        ("T0", None),
        ("T0/", None),
        ("m", None),
        (".pt", None),
    ],
)
def test_a_label_means_one_file_or_none(model: str, expected: str | None, tmp_path: Path) -> None:
    assert graph_of(make(tmp_path, *LAYOUT), model) == expected


@pytest.mark.parametrize(
    ("target", "model", "expected"),
    [
        ("T0", "m0", "T0/m0"),
        ("T1", "m0.pdb", "T1/m0"),
        ("T1", "T1/m0", "T1/m0"),
        ("T1", "T1__m0", "T1/m0"),
        ("T0", "only", None),
        ("T9", "only", None),
        ("T9", "m0", None),
        ("T4", "m7", "T4/pdb/m7"),
        ("T4", "pdb/m7", "T4/pdb/m7"),
        ("T0", "C:\\decoys\\T0\\m0.pdb", "T0/m0"),
        ("T9", "C:\\decoys\\T0\\m0.pdb", None),
        ("other word for it", "T0/m0", "T0/m0"),
    ],
)
def test_the_target_column_has_to_fit(target: str, model: str, expected: str | None, tmp_path: Path) -> None:
    assert graph_of(make(tmp_path, *LAYOUT), model, target) == expected


@pytest.mark.parametrize(
    ("target", "model", "expected"),
    [
        ("job_one", "seed-1_sample-0", "job_one/seed-1_sample-0/model"),
        ("", "job_one/seed-1_sample-0", "job_one/seed-1_sample-0/model"),
        ("", "job_two/seed-1_sample-0/model.cif", "job_two/seed-1_sample-0/model"),
        ("job_two", "seed-1_sample-0/model.cif", "job_two/seed-1_sample-0/model"),
        ("job_three", "seed-1_sample-0", None),
        ("job_three", "seed-1_sample-0/model", None),
        ("", "job_three/seed-1_sample-0/model", None),
        ("", "seed-1_sample-0/model", None),
        ("", "seed-1_sample-0", None),
        ("job_one", "seed-9_sample-0", None),
    ],
)
def test_samples_of_alphafold_3(target: str, model: str, expected: str | None, tmp_path: Path) -> None:
    directory = make(tmp_path, *(f"{job}/seed-1_sample-{n}/model.pt" for job in ("job_one", "job_two") for n in "012"))
    assert graph_of(directory, model, target) == expected


def test_samples_of_one_job_are_not_those_of_another(tmp_path: Path) -> None:
    directory = make(tmp_path / "job_one", "seed-1_sample-0/model.pt")
    assert graph_of(directory, "job_one/seed-1_sample-0/model.cif") == "seed-1_sample-0/model"
    assert graph_of(directory, "seed-1_sample-0", "job_one") == "seed-1_sample-0/model"
    for model in ("job_two/seed-1_sample-0/model.cif", "/data/job_two/seed-1_sample-0/model.cif", "job_two__model"):
        assert graph_of(directory, model) is None
    both = match(
        directory, "target,MODEL,dockq\njob_one,seed-1_sample-0/model,0.5\njob_two,seed-1_sample-0/model,0.1\n"
    )
    assert [label.dockq for label in both.found.values()] == [0.5]


def test_a_flat_directory_is_known_by_its_name(tmp_path: Path) -> None:
    directory = make(tmp_path / "1BGS_AE", "ranked_0.pt", "ranked_1.pt")
    assert graph_of(directory, "1BGS_AE/ranked_0.pdb") == "ranked_0"
    assert graph_of(directory, "/data/1BGS_AE/ranked_0.pdb") == "ranked_0"
    assert graph_of(directory, "3HSY_AB/ranked_0.pdb") is None
    both = match(directory, "Target,Model,DockQ\n1BGS_AE,ranked_0,0.5\n3HSY_AB,ranked_0,0.1\n3HSY_AB,ranked_1,0.2\n")
    assert {key: label.dockq for key, label in both.found.items()} == {"ranked_0": 0.5}
    assert both.missing == ("3HSY_AB/ranked_0 (no graph of that target)", "3HSY_AB/ranked_1 (no graph of that target)")


def test_a_flat_directory_is_known_by_the_structures_it_was_built_from(tmp_path: Path) -> None:
    """As ``build-graphs decoys/1BGS_AE --out g`` and ``label decoys/1BGS_AE`` leave them."""
    directory = make(tmp_path / "g", "ranked_0.pt", "ranked_1.pt")
    assert graph_of(directory, "1BGS_AE/ranked_0") is None
    logs = directory.root / "logs" / "build"
    logs.mkdir(parents=True)
    summary = {"dataset_dir": "/data/decoys/1BGS_AE", "edge": {"output_dir": str(directory.root)}}
    (logs / "graph_builder_summary.json").write_text(json.dumps(summary))
    found = match(directory, "MODEL,dockq\n1BGS_AE/ranked_0,0.5\n1BGS_AE/ranked_1,0.4\n3HSY_AB/ranked_0,0.1\n")
    assert {key: label.dockq for key, label in found.found.items()} == {"ranked_0": 0.5, "ranked_1": 0.4}
    assert found.missing == ("3HSY_AB/ranked_0",)
    other = match(directory, "Target,Model,DockQ\n3HSY_AB,ranked_0,0.1\n1BGS_AE,ranked_1,0.2\n")
    assert list(other.found) == ["ranked_1"]


def test_two_targets_for_one_flat_graph_are_refused(tmp_path: Path) -> None:
    directory = make(tmp_path / "g", "ranked_0.pt")
    with pytest.raises(DataError, match="ranked_0 is of target A in line 2 and of B in line 3.*TARGET/MODEL"):
        match(directory, "Target,Model,DockQ\nA,ranked_0,0.5\nB,ranked_0,0.5\n")


def test_a_flat_pool_gets_its_targets_by_the_column(tmp_path: Path) -> None:
    directory = make(tmp_path / "g", "d1.pt", "d2.pt", "d3.pt")
    pool = match(directory, "Target,Model,DockQ\nA,d1,0.5\nA,d2,0.4\nB,d3,0.5\n")
    assert len(pool.found) == 3
    assert pool.warnings == ()
    (warning,) = match(directory, "Target,Model,DockQ\nA,d1,0.5\nA,d2,0.4\n").warnings
    assert "2 labels of target A fit graphs of" in warning
    assert "by name alone" in warning


def test_a_file_about_another_target_fits_nothing(tmp_path: Path) -> None:
    directory = make(tmp_path / "g", "3HSY_AB/ranked_0.pt", "3HSY_AB/ranked_1.pt")
    other = match(directory, "Target,Model,DockQ\n1BGS_AE,ranked_0,0.5\n1BGS_AE,ranked_1,0.4\n")
    assert not other.found
    assert other.missing[0] == "1BGS_AE/ranked_0 (no graph of that target)"


@pytest.mark.parametrize(
    ("model", "target", "names"),
    [
        ("m0", "", ["T0/m0.pt", "T1/m0.pt"]),
        ("m0.pt", "", ["T0/m0.pt", "T1/m0.pt"]),
        ("T3__m9", "", ["T3/m9.pt", "T3__m9.pt"]),
        ("T5/x", "", ["T5/it0/x.pt", "T5/it1/x.pt"]),
        ("x", "T5", ["T5/it0/x.pt", "T5/it1/x.pt"]),
    ],
)
def test_a_name_that_fits_two_files_is_an_error_that_names_both(
    model: str, target: str, names: list[str], tmp_path: Path
) -> None:
    directory = make(tmp_path, "T0/m0.pt", "T1/m0.pt", "T3/m9.pt", "T3__m9.pt", "T5/it0/x.pt", "T5/it1/x.pt")
    with pytest.raises(DataError) as caught:
        graph_of(directory, model, target)
    message = str(caught.value)
    for name in names:
        assert str(tmp_path / name) in message
    assert "expected one file; write its path below the graph directory" in message


def test_a_path_beats_a_stem(tmp_path: Path) -> None:
    directory = make(tmp_path, "m0.pt", "T0/m0.pt")
    assert graph_of(directory, "m0") == "m0"
    assert graph_of(directory, "m0", "T0") == "T0/m0"


ROWS = [("T0", "m0", "0.5"), ("T0", "m1", "0.25"), ("T1", "m0", "0"), ("T1", "m1", "1")]
EXPECTED = {f"{target}/{model}": (float(value), target) for target, model, value in ROWS}


def written(header: str, row: Callable[[str, str, str], str], end: str = "\n") -> str:
    return end.join([header, *(row(*one) for one in ROWS)]) + end


WAYS: dict[str, str | bytes] = {
    "paths": written("MODEL,dockq", lambda t, m, v: f"{t}/{m},{v}"),
    "double underscore": written("MODEL,dockq", lambda t, m, v: f"{t}__{m},{v}"),
    "graph files": written("MODEL,dockq", lambda t, m, v: f"{t}/{m}.pt,{v}"),
    "structure files": written("MODEL,dockq", lambda t, m, v: f"{t}/{m}.pdb,{v}"),
    "compressed": written("MODEL,dockq", lambda t, m, v: f"{t}/{m}.pdb.gz,{v}"),
    "mmCIF": written("model,DockQ", lambda t, m, v: f"{t}/{m}.cif,{v}"),
    "target column": written("Target,Model,DockQ,CAPRI", lambda t, m, v: f"{t},{m},{v},1"),
    "target column last": written("DockQ,MODEL,TARGET", lambda t, m, v: f"{v},{m},{t}"),
    "target column and path": written("MODEL,dockq,target", lambda t, m, v: f"{t}/{m},{v},{t}"),
    "target column and file": written("target,model,dockq", lambda t, m, v: f"{t},{m}.pdb,{v}"),
    "pandas index": written(",Target,Model,DockQ", lambda t, m, v: f"7,{t},{m},{v}"),
    "semicolons": written("Target;Model;DockQ", lambda t, m, v: f"{t};{m};{v}"),
    "Excel": written("sep=;\r\nTarget;Model;DockQ", lambda t, m, v: f"{t};{m};{v}", "\r\n"),
    "tabs": written("target\tmodel\tdockq", lambda t, m, v: f"{t}\t{m}\t{v}"),
    "byte order mark": written("\ufeffMODEL,dockq", lambda t, m, v: f"{t}/{m},{v}").encode(),
    "UTF-16": written("MODEL\tdockq", lambda t, m, v: f"{t}/{m}\t{v}", "\r\n").encode("utf-16"),
    "Windows paths": written("MODEL,dockq", lambda t, m, v: f"D:\\runs\\{t}\\{m}.pdb,{v}"),
    "absolute paths": written("MODEL,dockq", lambda t, m, v: f"/home/someone/decoys/{t}/{m}.pdb,{v}"),
    "quotes and spaces": written('"Target" , "Model" , "DockQ"', lambda t, m, v: f'"{t}" , "{m}" , "{v}"'),
    "comments": written("# by hand\n\nMODEL,dockq", lambda t, m, v: f"{t}/{m},{v}"),
    "rows twice": written("MODEL,dockq", lambda t, m, v: f"{t}/{m},{v}\n{t}__{m},{v}"),
    "PSBench": written("target,model_name,dockq,dockq_wave", lambda t, m, v: f"{t},{m},{v},0.3"),
}


@pytest.mark.parametrize("way", WAYS)
def test_however_labels_are_written_they_mean_the_same(way: str, tmp_path: Path) -> None:
    directory = make(tmp_path / "g", "T0/m0.pt", "T0/m1.pt", "T1/m0.pt", "T1/m1.pt")
    matched = match(directory, WAYS[way])
    targets = targets_of(directory)
    found = {key: (label.dockq, target_of(label, key, targets).name) for key, label in matched.found.items()}
    assert found == EXPECTED
    assert matched.missing == ()


NAMES = ("A", "B", "A_1", "a", "AB", "m0", "ranked_0")


def directory_of(root: Path, keys: Iterable[str]) -> GraphDirectory:
    """A directory whose files need not be there."""
    directory = GraphDirectory(root)
    directory.__dict__["keys"] = sorted(keys)
    return directory


@pytest.mark.parametrize("seed", range(40))
def test_no_label_joins_a_graph_of_another_target(seed: int, tmp_path: Path) -> None:
    """Of a hundred made-up pairs of a directory and a label for each seed."""
    draw = random.Random(seed)
    for _ in range(100):
        keys = {
            f"{draw.choice(NAMES)}/{draw.choice(('', '', 'pdb/', 'seed-1_sample-0/'))}{draw.choice(NAMES)}"
            for _ in range(draw.randint(1, 8))
        }
        directory = directory_of(tmp_path, keys)
        target, model = draw.choice(NAMES), draw.choice(NAMES)
        written = f"{model}{draw.choice(('', '.pt', '.pdb', '.cif.gz'))}"
        label = draw.choice(
            [
                Label(written, 0.5, target, 2),
                Label(f"{target}/{written}", 0.5, "", 2),
                Label(f"{target}__{written}", 0.5, "", 2),
                Label(f"C:\\x\\{target}\\{written}", 0.5, "", 2),
            ]
        )
        try:
            key = LabelMatcher(directory, targets_of(directory)).graph_of(label)
        except DataError as error:
            key = None
            assert sum(one.split("/")[0] == target and one.split("/")[-1] == model for one in keys) > 1, error
        if f"{target}/{model}" in keys and not any(one.startswith(f"{target}/") and one.count("/") > 1 for one in keys):
            assert key == f"{target}/{model}"
        if key is not None:
            assert (key.split("/")[0], key.split("/")[-1]) == (target, model), (keys, label)


def test_many_graphs_of_one_name_are_matched_in_moments(tmp_path: Path) -> None:
    directory = directory_of(tmp_path, (f"job_{n}/seed-1_sample-{m}/model" for n in range(4000) for m in range(5)))
    labels = [Label(f"{key}.cif", 0.5, "", 2) for key in directory.keys]
    matched = match_labels(directory, targets_of(directory), labels, tmp_path)
    assert len(matched.found) == 20_000
