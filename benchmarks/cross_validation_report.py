"""What cross-validation found: a table for each kind of decoy, and pictures."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cross_validation_data import Decoys
from scipy import stats

from topotrain.data.split import Sample
from topotrain.evaluation.figures import FigureData, calibration
from topotrain.figures.chart import PALETTE, Axis, Chart, Panel, Series
from topotrain.figures.png import write_png
from topotrain.metrics.paired import METRIC_WORDS, MSE, paired
from topotrain.metrics.ranking import Values
from topotrain.metrics.report import RankingReport, interval, ranking_report
from topotrain.text import markdown_table

BEST, LAST = "best", "last"
LARGER_TREES = "larger trees"
ALL = "all"
RESAMPLES = 999  # of the decoys of each target
FEWEST = 4  # decoys of a target: fewer have hardly an order
METRICS = ("spearman", "ranking_loss", MSE)
CHARTED = METRICS[:2]
Scores = Mapping[str, float]


@dataclass(frozen=True)
class Judged:
    """What one run, or one baseline, says of one fold's complexes.

    Attributes:
        by: name of the arm or the baseline.
        repetition: of the folds.
        fold: its number.
        size: how many complexes were learned from; ``None`` for all.
        seed: of the run; ``None`` of a baseline.
        scores: of each decoy by its key.
        seconds: of processor time that training took; ``None`` of a baseline.
        epochs: trained.
    """

    by: str
    repetition: int
    fold: int
    size: int | None
    seed: int | None
    scores: Scores
    seconds: float | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Group:
    """Decoys that figures are given of.

    Attributes:
        data: name of the data set, or ``all``.
        kind: of decoy, or ``all``.
        samples: theirs; of targets with enough of them.
    """

    data: str
    kind: str
    samples: Sequence[Sample]

    @property
    def num_targets(self) -> int:
        return len({sample.target for sample in self.samples})

    def report(self, scores: Scores) -> RankingReport:
        predicted, true = (
            np.array(values) for values in ([scores[x.key] for x in self.samples], [x.dockq for x in self.samples])
        )
        return ranking_report(predicted, true, [x.target for x in self.samples])


def groups_of(decoys: Decoys) -> list[Group]:
    """Each data set as a whole, then each of its kinds; before them all data sets together."""
    sets: dict[str, dict[str, list[Sample]]] = {}
    for sample in decoys.samples:
        of_kinds = sets.setdefault(decoys.sets[sample.key], {})
        of_kinds.setdefault(decoys.kinds[sample.key], []).append(sample)
    whole = [(name, ALL, [x for part in of_kinds.values() for x in part]) for name, of_kinds in sets.items()]
    kinds = [
        (name, kind, part) for name, of_kinds in sets.items() if len(of_kinds) > 1 for kind, part in of_kinds.items()
    ]
    both = [(ALL, ALL, list(decoys.samples))] if len(sets) > 1 else []
    ordered = sorted([*whole, *kinds], key=lambda one: list(sets).index(one[0]))
    return [Group(data, kind, _enough(samples)) for data, kind, samples in [*both, *ordered]]


def _enough(samples: Sequence[Sample]) -> list[Sample]:
    counts = Counter(sample.target for sample in samples)
    return [sample for sample in samples if counts[sample.target] >= FEWEST]


@dataclass(frozen=True)
class Row:
    """An arm or a baseline, with the scores that each of its runs gives every decoy; no run ever saw its complex.

    Attributes:
        by: name of the arm or the baseline.
        seeds: how many; 0 of a baseline.
        runs: scores by key, of each repetition and seed; of an ensemble, of each repetition.
        together: whether the scores are means over seeds.
    """

    by: str
    seeds: int
    runs: Sequence[Scores]
    together: bool = False

    @property
    def name(self) -> str:
        if self.seeds < 2:
            return self.by
        return f"{self.by}, {self.seeds} seeds' {'scores averaged' if self.together else 'mean'}"

    def reports(self, group: Group) -> list[RankingReport]:
        return [group.report(scores) for scores in self.runs]

    def averaged(self) -> Scores:
        return {key: float(np.mean([scores[key] for scores in self.runs])) for key in self.runs[0]}

    def ensemble(self, repetitions: Sequence[int]) -> Row:
        """Of its seeds, within each repetition."""
        of_each: dict[int, list[Scores]] = defaultdict(list)
        for repetition, scores in zip(repetitions, self.runs, strict=True):
            of_each[repetition].append(scores)
        means = [Row(self.by, self.seeds, runs).averaged() for runs in of_each.values()]
        return Row(self.by, self.seeds, means, together=True)


def rows_of(results: Sequence[Judged], size: int | None, num_decoys: int) -> list[Row]:
    """Baselines, the larger trees first, then arms; a run of which a fold is missing is left out, and said to be."""
    found: dict[str, dict[tuple[int, int | None], dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for one in results:
        if one.size == size:
            found[one.by][one.repetition, one.seed].update(one.scores)
    baselines, arms = list[Row](), list[Row]()
    for by, runs in found.items():
        whole = {key: scores for key, scores in runs.items() if len(scores) == num_decoys}
        if len(whole) < len(runs):
            print(f"{by}: {len(runs) - len(whole)} of {len(runs)} seeds have folds missing", file=sys.stderr)
        seeds = {seed for _, seed in whole} - {None}
        row = Row(by, len(seeds), list(whole.values()))
        if whole and not seeds:
            baselines.insert(0 if by == LARGER_TREES else len(baselines), row)
        elif whole:
            arms.append(row)
            if len(seeds) > 1:
                arms.append(row.ensemble([repetition for repetition, _ in whole]))
    return [*baselines, *arms]


def cells_of(row: Row, base: Row, group: Group, clusters: Mapping[str, str]) -> list[str]:
    """For each metric its mean, and what it differs by from that of another row."""
    found = {one.metric: one for one in paired(row.reports(group), base.reports(group), clusters)}
    cells = []
    for metric in METRICS:
        if metric not in found:
            cells += ["", ""]
            continue
        one, digits = found[metric], 4 if metric == MSE else 3
        between = f" ({' to '.join(f'{end:+.{digits}f}' for end in one.interval)})" if one.interval else ""
        cells += [f"{one.first.mean:.{digits}f}", "" if row is base else f"{one.mean:+.{digits}f}{between}"]
    return cells


def heads(base: str) -> list[str]:
    """Of the cells."""
    return [head for metric in METRICS for head in (METRIC_WORDS[metric], f"difference to {base}")]


def ranking_table(rows: Sequence[Row], groups: Sequence[Group], clusters: Mapping[str, str], against: str) -> str:
    """A row for each group and each that scored it."""
    base = next((row for row in rows if row.by == against), rows[0])
    table = [["data", "kind", "targets", "scored by", *heads(base.by)]]
    for group in groups:
        where = [group.data, group.kind, str(group.num_targets)]
        table += [[*where, row.name, *cells_of(row, base, group, clusters)] for row in rows]
    return markdown_table(table)


def time_table(results: Sequence[Judged]) -> str:
    """What a run of each arm takes."""
    runs: dict[str, list[Judged]] = defaultdict(list)
    for one in results:
        if one.seed is not None and one.size is None:
            runs[one.by].append(one)
    table = [["arm", "runs", "processor seconds a run", "epochs"]]
    for by, each in runs.items():
        seconds, epochs = (np.array([getattr(one, name) for one in each]) for name in ("seconds", "epochs"))
        table.append([by, str(len(each)), f"{seconds.mean():.1f}", f"{epochs.mean():.1f}"])
    return markdown_table(table)


def curve_table(by_size: Mapping[int, Sequence[Row]], group: Group, clusters: Mapping[str, str]) -> str:
    """A row for each number of complexes and each that learned from them."""
    table = [["complexes", "data", "kind", "scored by", *heads(LARGER_TREES)]]
    for size, rows in by_size.items():
        trees = rows[0]
        table += [
            [str(size), group.data, group.kind, row.name, *cells_of(row, trees, group, clusters)]
            for row in rows
            if row.seeds or row is trees
        ]
    return markdown_table(table)


def of_targets(row: Row, group: Group, metric: str) -> dict[str, float]:
    """A metric of each target for which it is defined, its mean over the runs."""
    found: dict[str, list[float]] = defaultdict(list)
    for report in row.reports(group):
        for one in report.targets:
            value = one.metrics[metric]
            if value is not None:
                found[one.target].append(value)
    return {target: float(np.mean(values)) for target, values in found.items()}


def one_complex(rows: Sequence[Row], group: Group) -> str:
    """What the means over complexes do not say: how far one may be from them; what runs say of a decoy is averaged."""
    table = [
        ["scored by", "Spearman: 10 %, 25, 50, 75, 90 % of the complexes are below", "first choice costs under 0.1"]
    ]
    for row in rows:
        if row.seeds and row.together != (row.seeds > 1):
            continue
        report = group.report(row.averaged())
        ranks, losses = (
            np.array([one.metrics[name] for one in report.targets if one.metrics[name] is not None], dtype=float)
            for name in CHARTED
        )
        if len(ranks):
            parts = ", ".join(f"{value:.2f}" for value in np.percentile(ranks, [10, 25, 50, 75, 90]))
            table.append([row.name, parts, f"{100 * np.mean(losses < 0.1):.0f} %"])
    return markdown_table(table)


def learning_curve(by_size: Mapping[int, Sequence[Row]], group: Group, clusters: Mapping[str, str]) -> Chart:
    """Ranking against the number of complexes that were learned from."""
    at_most = next(reversed(by_size.values()))
    shown = [at_most[0].by, *(row.by for row in at_most if row.seeds and not row.together)]
    shown = [
        by for by in shown if sum(row.by == by and not row.together for rows in by_size.values() for row in rows) > 1
    ]
    panels = []
    for metric in CHARTED:
        lines = []
        for by, colour in zip(shown, PALETTE, strict=False):
            found = {
                size: of_targets(row, group, metric)
                for size, rows in by_size.items()
                for row in rows
                if row.by == by and not row.together
            }
            known = {size: one for size, one in found.items() if one}
            means = [float(np.mean(list(one.values()))) for one in known.values()]
            ends = [interval(np.array(list(one.values())), [clusters[x] for x in one]) for one in known.values()]
            errors = [(pair[1] - pair[0]) / 2 if pair else 0.0 for pair in ends]
            lines.append(Series("line", list(known), means, colour, label=by, errors=errors))
        panels.append(Panel(Axis("complexes to learn from", whole=True), Axis(METRIC_WORDS[metric]), lines))
    return Chart(
        "learning_curve",
        "Learning curve",
        f"Means over {group.num_targets} complexes of clusters that were held out, against the number of complexes to "
        "learn from. Bars are as long as the 95 % interval (bootstrap over clusters).",
        panels,
        inches=(9.0, 4.2),
    )


def calibration_of(row: Row, group: Group) -> Chart:
    """Mean truth against mean prediction; what runs say of a decoy is averaged."""
    samples, scores = group.samples, row.averaged()
    shown = FigureData(
        title=row.name,
        decoys=[sample.key for sample in samples],
        targets=[sample.target for sample in samples],
        predicted=[scores[sample.key] for sample in samples],
        true=[sample.dockq for sample in samples],
        ranking_loss={},
    )
    return calibration(shown)


def spread_over_decoys(predicted: Values, true: Values) -> float:
    """Half the length of the 95 % interval of Spearman's correlation: bootstrap over decoys."""
    drawn = np.random.default_rng(0).integers(0, len(true), (RESAMPLES, len(true)))
    ranks = [stats.rankdata(values[drawn], axis=1) for values in (predicted, true)]
    one, other = (each - each.mean(axis=1, keepdims=True) for each in ranks)
    sizes = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    found = (one * other).sum(axis=1)[sizes > 0] / sizes[sizes > 0]
    low, high = np.percentile(found, [2.5, 97.5]) if len(found) else (0.0, 0.0)
    return float(high - low) / 2


def each_target(row: Row, trees: Row, group: Group) -> Chart:
    """Spearman of each complex, the best first; what runs say of a decoy is averaged."""
    report = group.report(row.averaged())
    values = {one.target: one for one in report.targets if one.metrics["spearman"] is not None}
    names = sorted(values, key=lambda name: values[name].metrics["spearman"] or 0.0, reverse=True)
    by_trees = of_targets(trees, group, "spearman")
    places, known = list(range(1, len(names) + 1)), [name for name in names if name in by_trees]
    own = Series(
        *("line", places, [values[name].metrics["spearman"] or 0.0 for name in names], PALETTE[0]),
        label=row.name,
        errors=[spread_over_decoys(values[name].predicted, values[name].true) for name in names],
    )
    other = Series(
        *("points", [names.index(name) + 1 for name in known], [by_trees[name] for name in known], PALETTE[1]),
        label=trees.by,
        marker="diamond",
    )
    return Chart(
        f"targets_{row.by}",
        "Each complex",
        f"Spearman's correlation of each of {len(names)} complexes that were held out, the best first. Bars are as "
        "long as the 95 % interval (bootstrap over its decoys). A complex of one's own may lie anywhere among these.",
        [Panel(Axis("complex", whole=True), Axis("Spearman", (-1.05, 1.05)), [other, own])],
        inches=(10.0, 4.8),
    )


def write_report(decoys: Decoys, results: Sequence[Judged], most: int, out: Path, against: str = LARGER_TREES) -> str:
    """Draw pictures into a folder.

    Args:
        decoys: all of them.
        results: what is known.
        most: complexes that are learned from where all are.
        out: the folder.
        against: whom the first table's differences are to.

    Returns:
        The tables, in Markdown.
    """
    groups, clusters, number = groups_of(decoys), decoys.clusters, len(decoys.samples)
    rows = rows_of(results, None, number)
    trees = rows[0]
    parts = [ranking_table(rows, groups, clusters, against), one_complex(rows, groups[0]), time_table(results)]
    for row in rows:
        if row.seeds and row.together == (row.seeds > 1):
            write_png(calibration_of(row, groups[0]), out / f"calibration_{row.by}.png", row.name)
            write_png(each_target(row, trees, groups[0]), out / f"targets_{row.by}.png", row.name)
    sizes = sorted({one.size for one in results if one.size is not None})
    if sizes:
        by_size = {size: rows_of(results, size, number) for size in sizes}
        by_size = {size: each for size, each in {**by_size, most: rows}.items() if each}
        parts.append("\n\n".join(curve_table(by_size, group, clusters) for group in groups))
        write_png(learning_curve(by_size, groups[0], clusters), out / "learning_curve.png", "Learning curve")
    return "\n\n".join(parts)
