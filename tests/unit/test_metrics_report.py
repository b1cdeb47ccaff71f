"""Reports over targets: numbers by hand, ties and undefined values, intervals, and the published numbers."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from topotrain.errors import DataError
from topotrain.evaluation.predictions_file import ranking_reports, read_predictions
from topotrain.evaluation.table import render
from topotrain.metrics.baselines import constant_baseline, feature_baseline
from topotrain.metrics.calibration import calibration_bins
from topotrain.metrics.ranking import chance_of_hit, enrichment, hits_in_top, kendall, roc_auc
from topotrain.metrics.report import PER_TARGET, interval, ranking_report, slashed


def values(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=np.float64)


def flags(text: str) -> np.ndarray:
    return np.array([letter == "+" for letter in text])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("decimals", [12, 1])
def test_auc_and_kendall_are_those_of_the_libraries(seed, decimals):
    rng = np.random.default_rng(seed)
    predicted, true = np.round(rng.random(50), decimals), np.round(rng.random(50), decimals)
    good = true >= 0.23
    assert roc_auc(predicted, good) == pytest.approx(roc_auc_score(good, predicted), abs=1e-12)
    assert kendall(predicted, true) == pytest.approx(stats.kendalltau(predicted, true).statistic, abs=1e-12)


@pytest.mark.filterwarnings("error")
def test_auc_of_ties_and_of_one_decoy_of_a_kind():
    """Against counting pairs; scipy's p-value of such samples is undefined and must not be heard."""
    rng = np.random.default_rng(5)
    for size in (2, 3, 8, 40):
        predicted = np.round(rng.random(size), 1)
        for num_good in {1, size // 2, size - 1}:
            good = np.arange(size) < num_good
            pairs = [(a > b) + (a == b) / 2 for a in predicted[good] for b in predicted[~good]]
            assert roc_auc(predicted, good) == pytest.approx(np.mean(pairs), abs=1e-12)
            assert roc_auc(np.full(size, 0.5), good) == 0.5


def test_hits_by_hand():
    predicted, good = values(0.9, 0.8, 0.7, 0.6, 0.5), flags("-+-++")
    assert [chance_of_hit(predicted, good, size) for size in (1, 2, 5, 10)] == [0.0, 1.0, 1.0, 1.0]
    assert [hits_in_top(predicted, good, size) for size in (1, 2, 4, 5, 10)] == [0.0, 1.0, 2.0, 3.0, 3.0]
    assert chance_of_hit(predicted, flags("-----"), 10) == 0.0


def test_a_tie_over_the_edge_counts_as_picking_at_random():
    """Held against every way of breaking the tie."""
    predicted, good = values(0.9, 0.5, 0.5, 0.5, 0.5, 0.1), flags("--++-+")
    for size in range(1, 7):
        picks = list(itertools.combinations(range(1, 5), min(size - 1, 4)))
        tops = [{0, *pick, *([5] if size == 6 else [])} for pick in picks]
        counts = [sum(bool(good[row]) for row in top) for top in tops]
        assert hits_in_top(predicted, good, size) == pytest.approx(np.mean(counts))
        assert chance_of_hit(predicted, good, size) == pytest.approx(np.mean([count > 0 for count in counts]))


def test_enrichment_by_hand():
    predicted = np.arange(30, 0, -1.0)
    good = flags("++-" + "-" * 24 + "+++")
    assert enrichment(predicted, good) == pytest.approx((2 / 3) / (5 / 30))  # the top tenth of 30 is 3
    assert enrichment(predicted, flags("-" * 30)) is None
    assert enrichment(np.full(30, 0.5), good) == pytest.approx(1.0)
    assert enrichment(values(2, 1), flags("+-")) == pytest.approx(2.0)  # at least one decoy


@pytest.mark.filterwarnings("error")
def test_auc_is_undefined_without_both_kinds():
    assert roc_auc(values(1, 2), flags("++")) is None
    assert roc_auc(values(1, 2), flags("--")) is None
    assert roc_auc(values(1, 1, 1), flags("+--")) == 0.5


@pytest.mark.parametrize(
    ("numbers", "text"),
    [((34.0, 25.0, 4.0), "34/25/4"), ((0.5, 2.0, 0.0), "0.5/2/0"), ((1 / 3, 10.0, 0.0), "0.3/10/0")],
)
def test_the_form_with_slashes(numbers, text):
    assert slashed(numbers) == text


def test_calibration_by_hand():
    """A prediction of 1 belongs to the last range; an empty range is left out; one decoy has no error."""
    low, high = calibration_bins(values(0.11, 0.19, 1.0), values(0.2, 0.4, 0.9))
    assert (low.low, low.count, low.predicted, low.true) == (0.1, 2, pytest.approx(0.15), pytest.approx(0.3))
    assert low.error == pytest.approx(0.1)
    assert (high.low, high.count, high.predicted, high.true, high.error) == (0.9, 1, 1.0, 0.9, 0.0)


def test_the_best_raw_feature_is_chosen_by_rank_and_its_errors_are_a_line_s():
    true, targets = values(0.1, 0.2, 0.3, 0.9), ["A", "A", "B", "B"]
    features = {"wrong": values(2, 1, 4, 3), "right": values(10, 20, 30, 90), "constant": values(1, 1, 1, 1)}
    name, report = feature_baseline(features, true, targets)
    assert name == "right"
    assert report.predicted.tolist() == [10, 20, 30, 90]
    assert report.overall["mse"] == pytest.approx(0.0, abs=1e-12)
    _, flat = feature_baseline({"constant": features["constant"]}, true, targets)
    assert flat.overall["mse"] == pytest.approx(true.var()) == constant_baseline(true, targets).overall["mse"]


def three_targets():
    """A: ranked right; B: one decoy; C: a constant prediction."""
    targets = ["A"] * 3 + ["B"] + ["C"] * 2
    return values(0.9, 0.5, 0.1, 0.7, 0.4, 0.4), values(0.85, 0.3, 0.1, 0.6, 0.5, 0.1), targets


def test_undefined_is_null_and_how_many_counted_is_said():
    document = ranking_report(*three_targets()).to_dict()
    assert document["num_targets"] == 3
    assert document["num_single_model_targets"] == 1
    assert document["mean_spearman"] == pytest.approx(1.0)  # of A alone
    assert document["num_defined"]["mean_spearman"] == 1
    assert document["intervals"]["mean_spearman"] is None  # one target has no spread
    assert document["targets"]["B"]["spearman"] is None
    assert document["targets"]["C"]["kendall"] is None
    assert document["targets"]["C"]["roc_auc"] == 0.5
    assert document["num_defined"]["mean_ranking_loss"] == 3
    assert document["mean_ranking_loss"] == pytest.approx((0 + 0 + 0.2) / 3)
    assert document["targets"]["C"]["top1_dockq"] == pytest.approx(0.3)
    assert document["hits_top1"] == "2.5/2.5/1"
    assert document["hits_top5"] == "3/3/1"
    assert document["hit_rate_top1_acceptable"] == pytest.approx(2.5 / 3)
    assert "NaN" not in json.dumps(document)


def test_everything_undefined():
    report = ranking_report(values(0.5, 0.5), values(0.1, 0.1), ["A", "A"])
    document = report.to_dict()
    for name in ("mean_spearman", "mean_pearson", "mean_kendall", "mean_roc_auc", "mean_enrichment", "pearson"):
        assert document[name] is None
        assert name not in report.metrics()
    assert document["mean_ranking_loss"] == 0.0
    table = render({"all": document}, "table", "dataset", per_target=True)
    assert table.count("undefined") == 7
    rows = [line.split(",") for line in render({"all": document}, "csv", "dataset", per_target=False).splitlines()]
    assert len(rows[0]) == len(rows[1])
    assert rows[1][rows[0].index("mean_spearman")] == ""
    assert rows[1][rows[0].index("mean_spearman_num_defined")] == "0"


def test_the_order_of_rows_does_not_matter():
    rng = np.random.default_rng(3)
    predicted, true = np.round(rng.random(60), 1), rng.random(60)
    targets = [f"T{number % 7}" for number in range(60)]
    once = ranking_report(predicted, true, targets).to_dict()
    order = rng.permutation(60)
    again = ranking_report(predicted[order], true[order], [targets[row] for row in order]).to_dict()
    assert again["intervals"].keys() == once["intervals"].keys()
    for name, between in once["intervals"].items():
        assert again["intervals"][name] == pytest.approx(between, abs=1e-12)
    for name in (*(f"mean_{metric}" for metric in PER_TARGET), "mse", "mae", "pearson", "spearman"):
        assert again[name] == pytest.approx(once[name], abs=1e-12)
    assert again["hits_top5"] == once["hits_top5"]


def test_errors_are_those_of_the_scaled_predictions():
    predicted, true = values(100, 200, 300), values(0.1, 0.3, 0.2)
    report = ranking_report(predicted, true, ["A"] * 3, scaled=values(0.1, 0.2, 0.3))
    assert report.overall["mse"] == pytest.approx(0.02 / 3)
    assert report.overall["mae"] == pytest.approx(0.2 / 3)
    assert report.overall["spearman"] == pytest.approx(0.5)


def test_intervals_are_seeded_and_cover():
    sample = np.random.default_rng(0).normal(0.1, 0.05, 40)
    low, high = interval(sample)
    assert [low, high] == interval(sample)
    expected = 1.96 * sample.std() / math.sqrt(len(sample))  # what resampling tends to
    assert (high - low) / 2 == pytest.approx(expected, rel=0.05)
    assert low < sample.mean() < high
    assert interval(values(0.3)) is None
    assert interval(values(0.3, 0.3)) == [0.3, 0.3]


def test_the_published_numbers(shared_data):
    """To four decimals, as published; hits and intervals are pinned."""
    judged = ranking_reports(read_predictions(shared_data / "published_predictions.csv"))
    documents = {name: report.to_dict() for name, report in judged.items()}
    numbers = {name: (one["num_targets"], round(one["mean_ranking_loss"], 4)) for name, one in documents.items()}
    assert numbers == {"ABAG-AF3": (35, 0.0977), "BM55-AF2": (15, 0.0694), "HAF2": (13, 0.1195)}
    assert [one["num_models"] for one in documents.values()] == [875, 449, 1370]
    assert [one["hits_top10"] for one in documents.values()] == ["34/29/10", "13/10/3", "10/9/4"]
    assert [one["hits_top1"] for one in documents.values()] == ["34/25/4", "12/10/1", "10/9/4"]
    assert documents["HAF2"]["intervals"]["mean_ranking_loss"] == pytest.approx([0.0399, 0.2177], abs=1e-3)


def test_the_dataset_is_called_all_without_that_column(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("Target,MODEL,pred_dockq,true_dockq,capri\nA,m1,0.5,0.4,1\nA,m2,-3,0.1,0\nA,m2,-3,0.1,0\n")
    (report,) = (judged := ranking_reports(read_predictions(path))).values()
    assert list(judged) == ["all"]
    assert report.to_dict()["num_models"] == 2  # the same row twice counts once


def test_what_predict_writes_can_be_read(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("MODEL,TARGET,PRED_DOCKQ,DockQ\na/m1,a,0.5,0.4\na/m2,a,0.1,0.2\n")
    assert [(row.target, row.predicted, row.true) for row in read_predictions(path).rows] == [
        ("a", 0.5, 0.4),
        ("a", 0.1, 0.2),
    ]


def test_rows_of_predict_without_a_label_are_passed_over(tmp_path, caplog):
    path = tmp_path / "p.csv"
    path.write_text("MODEL,TARGET,PRED_DOCKQ,RANK,DockQ\nA/a,A,0.5,1,0.4\nA/b,A,0.4,2,\n")
    (one,) = read_predictions(path).rows
    assert (one.model, one.true) == ("A/a", 0.4)
    assert "1 rows without DockQ" in caplog.text
    path.write_text("MODEL,TARGET,PRED_DOCKQ,RANK,DockQ\nA/b,A,0.4,1,\n")
    with pytest.raises(DataError, match="no row has a DockQ"):
        read_predictions(path)


def test_predictions_of_another_quality_are_read_by_its_name(tmp_path):
    """By no thresholds: those are of DockQ alone."""
    path = tmp_path / "p.csv"
    rows = "a/m1;a;0.5;0.4;x\na/m2;a;0.1;0.2;x\na/m3;a;0.2;;x\n"
    path.write_text("MODEL;TARGET;PRED_LDDT;lddt;note\n" + rows)
    read = read_predictions(path)
    assert (read.quality, len(read.rows)) == ("lddt", 2)
    document = ranking_reports(read)["all"].to_dict()
    assert document["quality"] == "lddt"
    figures = {"ranking_loss": 0, "spearman": 1, "pearson": 1, "kendall": 1}
    assert document["targets"]["a"] == pytest.approx({"num_models": 2, "best_lddt": 0.4, "top1_lddt": 0.4, **figures})
    assert not [name for name in json.loads(json.dumps(document)) if "hit" in name or "roc" in name or "enrich" in name]
    table = render({"all": document}, "table", "dataset", per_target=True)
    assert "ranking loss (lddt), mean" in table
    for word in ("DockQ", "0.23", "hits", "ROC", "enrichment", "Hits"):
        assert word not in table
    assert "roc" not in render({"all": document}, "csv", "dataset", per_target=False)
    path.write_text("MODEL,TARGET,PRED_LDDT,PRED_TM,lddt\na/m1,a,0.5,0.4,0.3\n")
    with pytest.raises(DataError, match="no column pred_dockq"):
        read_predictions(path)


HEADER = "target,model,pred_dockq,true_dockq\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        (HEADER, ["no rows"]),
        ("model,pred_dockq,true_dockq\nm,0,0\n", ["no column target", "model, pred_dockq"]),
        ("target,model,pred_dockq\nA,m,0\n", ["no column true_dockq"]),
        (HEADER + "A,m,0.1,0.2\nA,n,high,0.2\n", ["line 3", "'high'", "a number"]),
        (HEADER + "A,m,nan,0.2\n", ["line 2", "pred_dockq"]),
        (HEADER + "A,m,0.1,\n", ["line 2", "true_dockq", "''"]),
        (HEADER + "\nA,m,0.1,1.2\n", ["line 3", "'1.2'", "[0, 1]"]),
        (HEADER + "A,m,0.1\n", ["line 2 has 3 cells"]),
        (HEADER + ",m,0.1,0.2\n", ["line 2", "target is empty"]),
        (HEADER + "A,m,0.1,0.2\nB,m,0.1,0.2\nA,m,0.3,0.2\n", ["line 2", "line 4", "m of A"]),
    ],
)
def test_a_bad_file_is_one_line_with_the_place(tmp_path, text, words):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_predictions(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_predictions(tmp_path / "absent.csv")
