"""What a person should know before believing a ranking: three plain sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from topotrain.data.column_ranges import Beyond
from topotrain.fields import DEMO, DOCKQ_COLUMN, TREES, VAL_LOSS, quality_name
from topotrain.metrics.ranking import ACCEPTABLE
from topotrain.scoring.recipe import recorded
from topotrain.scoring.score_table import Scored
from topotrain.text import least_to_most

APART = 2.0  # standard deviations of a difference between two scores: 19 of 20 such differences are no accident
FEW = 5  # structures of a complex; of fewer nothing is said of how they vary
VARY = 0.05  # on the scale of DockQ; the middle nine tenths of a complex's scores
FAR = 3.0  # standard deviations of a column beyond all that the model learned from
SHOWN = 3
IN_WORDS = {
    "training mean": "a guess",
    "number of edges": "the number of contacts alone",
    TREES: "boosted trees that are trained in a second",
}


@dataclass(frozen=True)
class Trust:
    """What is known of a model and of what it scored.

    Attributes:
        name: of the model.
        recipe: of its version; empty where it has none.
        rows: of the table, by target and rank.
        quality: the column of what was predicted.
        beyond: {MODEL: columns in which it lies beyond what the model learned from, the furthest first}.
        num_networks: that gave the scores.
    """

    name: str
    recipe: Mapping[str, Any]
    rows: Sequence[Scored]
    quality: str = DOCKQ_COLUMN
    beyond: Mapping[str, Sequence[Beyond]] = field(default_factory=dict)
    num_networks: int = 1

    @property
    def sentences(self) -> tuple[str, ...]:
        """Which model it was, how far its scores tell structures apart, and a warning where there is cause for one."""
        warnings = [*self._collapsed(), *self._outside(), *self._no_better()]
        beware = [f"Beware: {'; '.join(warnings)}."] if warnings else []
        return (f"{_capital(self._model())}.", f"{self._told_apart()}.", *beware)

    @property
    def error(self) -> float | None:
        """How far a score was off, one standard deviation, on complexes that the model had not learned from.

        What all structures of a complex share is not counted, where the version says so much. Of an ensemble of folds
        it is the error of its single networks.
        """
        within = recorded(self._tried, "within_target_error")
        loss = recorded(self._tried, "metrics", VAL_LOSS)
        known = within if _is_number(within) else math.sqrt(loss) if _is_number(loss) and loss >= 0 else None
        return float(known) if known is not None else None

    @property
    def tied(self) -> dict[str, tuple[int, int]]:
        """{target: how many of its structures, from the first on, can't be told apart; and how many it has}."""
        found = {}
        for target, rows in self._by_target().items():
            first = rows[0]
            near = (first.pred_dockq - row.pred_dockq < APART * self._deviation(first, row) for row in rows[1:])
            number = 1 + next((place for place, one in enumerate(near) if not one), len(rows) - 1)
            found[target] = (number, len(rows))
        return found

    def _deviation(self, one: Scored, other: Scored) -> float:
        """Of the difference between two scores."""
        if one.spread is not None and other.spread is not None and not self._by_networks_alone:
            return self._factor * math.hypot(one.spread, other.spread)
        return math.hypot(self.error or 0.0, self.error or 0.0)

    @property
    def _tried(self) -> Any:
        """How it did on complexes that it had not learned from; of an ensemble of folds, each of its networks alone."""
        folds = self._recorded("out_of_fold")
        judged = _is_number(self._recorded("spread", "error_ratio"))
        return folds if isinstance(folds, Mapping) and not judged else self.recipe

    @property
    def _by_networks_alone(self) -> bool:
        """Whether the error that tells scores apart is that of single networks of an ensemble."""
        return self._tried is not self.recipe and self.error is not None

    @property
    def _factor(self) -> float:
        """By how much an ensemble's spread was smaller than its errors within a complex, where the version says so."""
        ratio, loss, error = self._recorded("spread", "error_ratio"), self._recorded("metrics", VAL_LOSS), self.error
        if not _is_number(ratio) or not _is_number(loss) or loss <= 0 or error is None:
            return 1.0
        return max(1.0, float(ratio * error / math.sqrt(loss)))

    def _by_target(self) -> dict[str, list[Scored]]:
        scored = (row for row in self.rows if not row.error)
        return {target: list(rows) for target, rows in groupby(scored, key=lambda row: row.target)}

    def _recorded(self, *path: str) -> Any:
        return recorded(self.recipe, *path)

    def _learned(self) -> str:
        graphs, targets = self._recorded("data", "train", "num_graphs"), self._recorded("data", "train", "targets")
        demo = " of the demo data set" if self._recorded("config", "paths", "graph") == DEMO else ""
        if isinstance(graphs, int) and isinstance(targets, list):
            return f"{self.name} learned from {_counted(graphs, 'structure')} of {_complexes(len(targets))}{demo}"
        members = self._recorded("members")
        known = members if isinstance(members, list) else []
        each = [
            one["train_graphs"] for one in known if isinstance(one, Mapping) and _is_number(one.get("train_graphs"))
        ]
        if each and len(each) == len(known):
            number, targets = least_to_most(each), self._recorded("data", "train_targets")
            together = f": of {_complexes(len(targets))}{demo} together" if isinstance(targets, list) else ""
            learned = f"learned from {number} structures each, not all the same{together}"
            return f"{self.name} is {len(each)} networks, which {learned}"
        return f"what {self.name} learned from is not recorded"

    def _model(self) -> str:
        learned = self._learned()
        choice = recorded(self._tried, "first_choice")
        if not isinstance(choice, Mapping):
            missing = "how often its first choice is acceptable on complexes it has not seen is not recorded"
            return f"{learned}; {missing}: topotrain evaluate measures it"
        if not choice.get("targets"):
            return f"{learned}; no other complex that it was tried on had an acceptable structure"
        least = f"{quality_name(self.quality)} of at least {ACCEPTABLE}"
        if self._tried is not self.recipe:
            return (
                f"{learned}; each of its {self.num_networks} networks was tried on complexes that it had not learned "
                f"from: of {choice['targets']} with an acceptable structure ({least}), it put one first for "
                f"{choice.get('acceptable')}"
            )
        return (
            f"{learned}; of {_complexes(choice['targets'])} that it had not learned from and that had an acceptable "
            f"structure ({least}), it put one first for {choice.get('acceptable')}"
        )

    def _told_apart(self) -> str:
        tied = {target: pair for target, pair in self.tied.items() if pair[1] > 1}
        alone, error = self._by_networks_alone, self.error or 0.0
        ensemble = any(row.spread is not None for row in self.rows) and not alone
        were = f"{f'its {self.num_networks} networks, each alone,' if alone else 'scores'} were off by {error:.2f}"
        seen = f"complexes that {'they' if alone else 'it'} had not learned from"
        if self.error is None and not ensemble:
            return "How far its scores are off is not recorded: topotrain evaluate measures it"
        if ensemble:
            why = f"its {self.num_networks} networks disagree by more than these scores differ"
            if self._factor > 1:
                why = (
                    f"on complexes that they had not learned from, its {self.num_networks} networks were off by "
                    f"{self._factor:.1f} times what they disagree by, which is more than these scores differ"
                )
        else:
            why = f"on {seen}, {were}, so that differences under {APART * math.hypot(error, error):.2f} may be chance"
        if not tied:
            return f"One structure alone can't be ranked{'' if ensemble else f'; {were} on {seen}'}"
        if len(tied) == 1:
            number, total = next(iter(tied.values()))
            return f"The first of {total} stands apart" if number == 1 else f"{_group(number, total)}: {why}"
        apart = [target for target, (number, _) in tied.items() if number == 1]
        if len(apart) == len(tied):
            return f"In each of the {len(tied)} complexes the first choice stands apart"
        shown = [
            f"{f'all {total}' if number == total else f'the first {number} of the {total}'} of {target}"
            for target, (number, total) in tied.items()
            if number > 1
        ]
        more = f" and those of {_complexes(len(shown) - SHOWN, 'other ')}" if len(shown) > SHOWN else ""
        return f"What can't be told apart: {', '.join(shown[:SHOWN])}{more}: {why}"

    def _collapsed(self) -> Iterator[str]:
        flat = []
        for target, rows in self._by_target().items():
            scores = [row.pred_dockq for row in rows]
            if len(rows) >= FEW and np.subtract(*np.quantile(scores, (0.95, 0.05))) < VARY:
                flat.append((target, min(scores), max(scores)))
        if flat:
            where = "" if len(self._by_target()) == 1 else f" of {_first([target for target, *_ in flat])}"
            low, high = min(low for _, low, _ in flat), max(high for *_, high in flat)
            yield f"the scores{where} hardly vary (from {low:.3f} to {high:.3f}), so that their order says little"

    def _outside(self) -> Iterator[str]:
        far = {model: [one for one in found if one.deviations >= FAR] for model, found in self.beyond.items()}
        far = {model: found for model, found in far.items() if found}
        if not far:
            return
        worst: dict[str, Beyond] = {}
        for one in sorted((one for found in far.values() for one in found), key=lambda one: -one.deviations):
            worst.setdefault(one.column, one)
        named = [f"{one.column} is {one.value:.3g} where it saw {_seen(one)}" for one in list(worst.values())[:SHOWN]]
        targets = list(dict.fromkeys(row.target for row in self.rows if row.model in far))
        where = "" if len(self._by_target()) == 1 else f" (of {_first(targets)})"
        total = sum(not row.error for row in self.rows)
        yield (
            f"{len(far)} of {_counted(total, 'structure')}{where} lie outside what it learned from ({', '.join(named)})"
        )

    def _no_better(self) -> Iterator[str]:
        against = self._recorded("against_baselines")
        rows = against.items() if isinstance(against, Mapping) else ()
        lost = [
            words
            for name, row in rows
            if (words := IN_WORDS.get(name))
            and isinstance(row, Mapping)
            and isinstance(one := row.get("ranking_loss"), Mapping)
            and _is_number(one.get("difference"))
            and one["difference"] >= 0
        ]
        if lost:
            yield f"on complexes that it had not learned from it chose no better than {_and(lost)}"


def _seen(one: Beyond) -> str:
    return f"{one.low:.3g} alone" if one.low == one.high else f"{one.low:.3g} to {one.high:.3g}"


def _group(number: int, total: int) -> str:
    if number == total:
        return f"None of the {total} can be told apart"
    return f"The first {number} of {total} can't be told apart"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text.startswith(("what ", "the ")) else text


def _counted(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def _complexes(number: int, which: str = "") -> str:
    return _counted(number, f"{which}complex", f"{which}complexes")


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
