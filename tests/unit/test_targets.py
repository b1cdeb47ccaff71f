"""Which target a decoy belongs to, by layouts as prediction and docking programs leave them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from topotrain.data.targets import (
    COLUMN,
    Target,
    TargetRule,
    Targets,
    target_line,
    target_warnings,
)
from topotrain.errors import DataError, UserInputError

ROOT = Path("/somewhere/around")

# Name of the layout, key below the root, target.
LAYOUTS = [
    ("by target", "1AY7/decoy_1", "1AY7"),
    ("flat", "decoy_1", "around"),
    ("flat, names with underscores", "1BGS_AE_ranked_0", "around"),
    ("AlphaFold 3", "job_one/seed-1_sample-0/model", "job_one"),
    ("AlphaFold 3, long names", "job_one/seed-12_sample-4/job_one_seed-12_sample-4_model", "job_one"),
    ("AlphaFold 3, its top model", "job_one/job_one_model", "job_one"),
    ("AlphaFold 3, one job", "seed-1_sample-0/model", "around"),
    ("AlphaFold server, by job", "fold_x/fold_x_model_0", "fold_x"),
    ("AlphaFold server, flat", "fold_x_y_model_0", "x_y"),
    ("AlphaFold 2", "1BGS_AE/ranked_0", "1BGS_AE"),
    ("AlphaFold 2, flat", "ranked_0", "around"),
    ("ColabFold, by job", "jobs_1/X_unrelaxed_rank_001_alphafold2_multimer_v3_model_1_seed_000", "jobs_1"),
    ("ColabFold, flat", "1BGS_AE_unrelaxed_rank_001_alphafold2_multimer_v3_model_1_seed_000", "1BGS_AE"),
    ("ColabFold, relaxed", "X_relaxed_rank_002_alphafold2_multimer_v3_model_3_seed_000", "X"),
    ("HADDOCK 3", "run-1AY7/4_emref/emref_1", "run-1AY7"),
    ("HADDOCK 3, clusters", "run-1AY7/06_seletopclusts/cluster_1_model_1", "run-1AY7"),
    ("HADDOCK 3, one run", "4_emref/emref_1", "around"),
    ("HADDOCK 2", "run-1AY7/structures/it1/water/complex_1w", "run-1AY7"),
    ("HADDOCK 2, one run", "structures/it1/complex_1", "around"),
    ("ClusPro", "cluspro.1234/model.000.01", "cluspro.1234"),
    ("HAF2 and BM55-AF2", "1AY7/pdb/M_1", "1AY7"),
    ("HAF2 and BM55-AF2, decoys folder", "1AY7/decoy/M_1", "1AY7"),
    ("PSBench", "H1106/H1106TS004_1", "H1106"),
    ("PSBench, whole", "Predicted_Models/H1106/H1106TS004_1", "H1106"),
    ("the demo structures", "holdout/1BGS_AE/1BGS_AE_1", "1BGS_AE"),
    ("one folder called as collections are", "models/m_1", "models"),
    ("deeper than known", "set/T1/m_1", "set"),
]


@pytest.mark.parametrize(("key", "expected"), [row[1:] for row in LAYOUTS], ids=[row[0] for row in LAYOUTS])
def test_a_target_is_read_off_the_layout(key: str, expected: str) -> None:
    assert Targets(ROOT, [key]).by_key[key].name == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("T1/m_1", "T1"),
        ("T1_m_1", "T1"),
        ("m1", "m1"),
        ("_m1", ""),
        ("1BGS_AE_unrelaxed_rank_001_x", "1BGS"),
        ("job/seed-1_sample-0/model", "job"),
    ],
)
def test_with_labels_flat_names_are_cut_as_they_always_were(key: str, expected: str) -> None:
    assert Targets(ROOT, [key], labelled=True).by_key[key].name == expected


@pytest.mark.parametrize(
    ("rule", "key", "expected"),
    [
        (TargetRule(level=1), "a/b/m", "a"),
        (TargetRule(level=2), "a/b/m", "b"),
        (TargetRule(level=1), "seed-1_sample-0/m", "seed-1_sample-0"),
        (TargetRule(pattern="^([^_]+)_"), "1BGS_AE_m", "1BGS"),
        (TargetRule(pattern="(?:x|y)/(.+?)_m"), "a/y/1BGS_AE_m1", "1BGS_AE"),
    ],
)
@pytest.mark.parametrize("labelled", [True, False])
def test_what_is_said_wins(rule: TargetRule, key: str, expected: str, labelled: bool) -> None:
    assert Targets(ROOT, [key], rule, labelled=labelled).by_key[key].name == expected


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (TargetRule(level=2), "1 folders below the root; expected at least 2"),
        (TargetRule(pattern="(zzz)"), "'\\(zzz\\)' finds no target in it"),
        (TargetRule(pattern="x?()"), "finds no target in it"),
    ],
)
def test_a_path_that_a_rule_does_not_fit_is_named(rule: TargetRule, words: str) -> None:
    with pytest.raises(DataError, match=f"a/m: .*{words}"):
        _ = Targets(ROOT, ["a/m"], rule).by_key


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"level": 1, "pattern": "(a)"}, "both given"),
        ({"level": 0}, "--target-level is 0"),
        ({"pattern": "(a"}, "no regular expression"),
        ({"pattern": "a"}, "has 0 groups; expected one"),
        ({"pattern": "(a)(b)"}, "has 2 groups; expected one"),
    ],
)
def test_a_rule_that_is_none(given: dict[str, object], words: str) -> None:
    with pytest.raises(UserInputError, match=words):
        TargetRule(**given)  # type: ignore[arg-type]


def test_the_line_counts_decoys() -> None:
    assert target_line(["b", "a", "a"]) == "2 targets: a (2 decoys), b (1 decoy)"
    assert target_line(["a"]) == "1 target: a (1 decoy)"
    assert target_line(f"t{n}" for n in range(9)).endswith("t5 (1 decoy) and 3 more")


@pytest.mark.parametrize(
    ("keys", "labelled", "words"),
    [
        (["T0/a", "T0/b", "T1/a"], True, []),
        (["a", "b"], False, []),
        (["T0/a", "T1/a"], False, ["each of the 2 targets has one decoy"]),
        (["1BGS_AE_a", "1BGS_AE_b"], True, ["targets of 2 decoys in no folder are their names before the first"]),
        (["a", "b"], True, ["each of the 2 targets has one decoy"]),
        (["r/X_relaxed_rank_1_y", "r/Z_relaxed_rank_1_y"], False, ["target r holds decoys of 2 jobs \\(X, Z\\)"]),
        (["s/T0/a", "s/T0/b", "s/T1/a", "s/T1/b"], False, ["target s has 2 folders of decoys \\(T0, T1\\)"]),
        (["j/seed-1_sample-0/model", "j/seed-1_sample-1/model"], False, []),
        (["r/4_emref/a", "r/4_emref/b", "r/1_rigidbody/a", "r/1_rigidbody/b"], False, []),
    ],
)
def test_what_looks_wrong_is_said(keys: list[str], labelled: bool, words: list[str]) -> None:
    warnings = target_warnings(Targets(ROOT, keys, labelled=labelled).by_key)
    assert len(warnings) == len(words)
    for warning, word in zip(warnings, words, strict=True):
        assert re.search(word, warning)


def test_labels_that_name_targets_are_not_warned_of() -> None:
    assert target_warnings({"1BGS_AE_a": Target("1BGS_AE", COLUMN), "1BGS_AE_b": Target("1BGS_AE", COLUMN)}) == []
