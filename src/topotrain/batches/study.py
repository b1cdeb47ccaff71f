"""What Optuna knows of a tuning: it suggests trials, and says which are not worth going on with.

Studies are in memory, and made anew from the runs on the tracking server. A suggestion depends on the seed, the
number of the trial and what is known then, nothing else.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from topotrain.batches.space import Dimension, Space
from topotrain.errors import ConfigError

SamplerName = Literal["tpe", "random", "grid"]
PrunerName = Literal["median", "hyperband", "none"]
FIRST_WHOLE = 5  # trials that are trained to their end before any is held against their median
WARM_UP = 10  # the first tenth of the epochs decides nothing

optuna.logging.set_verbosity(optuna.logging.WARNING)  # what is shown is shown by topotrain


class Study:
    """Suggests trials.

    Args:
        space: what is varied.
        sampler: how.
        seed: of the suggestions.
        maximise: whether a larger value is better.

    Raises:
        ConfigError: a grid of a space that has none.
    """

    def __init__(self, space: Space, sampler: SamplerName, seed: int, *, maximise: bool) -> None:
        self._space, self._sampler, self._seed = space, sampler, seed
        self._distributions = {dimension.key: distribution(dimension) for dimension in space.dimensions}
        self._grid: list[dict[str, Any]] | None = None
        self._first = space.defaults() if sampler != "grid" else None
        if sampler == "grid":
            self._grid = space.grid()
            random.Random(seed).shuffle(self._grid)  # noqa: S311 (a fair part of it, where not all is tried)
        self.optuna = optuna.create_study(direction="maximize" if maximise else "minimize")
        self._trials: dict[int, Trial] = {}

    @property
    def most(self) -> int | None:
        """How many trials there can be, where that is known."""
        return len(self._grid) if self._grid is not None else None

    def suggest(self, number: int) -> dict[str, Any]:
        """The values of a new trial.

        The first trial is the recipe as it is, where the space holds it, so that the best is never worse.

        Args:
            number: of the trial, from 0.
        """
        if self._grid is not None:
            return self.take(number, self._grid[number])
        if number == 0 and self._first is not None:
            return self.take(number, self._first)
        self.optuna.sampler = self._new_sampler(number)
        return self._ask(number)

    def take(self, number: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """Take in a trial that has its values already; returns them."""
        self.optuna.enqueue_trial(dict(values))
        return self._ask(number)

    def tell(self, number: int, value: float | None, *, pruned_at: int | None = None) -> None:
        """How a trial ended.

        Args:
            number: of the trial.
            value: what is compared; ``None`` for a trial that failed.
            pruned_at: for one that was stopped, how many epochs it had.
        """
        trial = self._trials[number]
        if value is None:
            self.optuna.tell(trial, state=TrialState.FAIL)
        elif pruned_at is not None:
            trial.report(value, pruned_at)
            self.optuna.tell(trial, state=TrialState.PRUNED)
        else:
            self.optuna.tell(trial, value)

    def _ask(self, number: int) -> dict[str, Any]:
        trial = self._trials[number] = self.optuna.ask(self._distributions)
        return dict(trial.params)

    def _new_sampler(self, number: int) -> BaseSampler:
        seed = (self._seed + 7919 * number) % 2**32
        if self._sampler == "random":
            return RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            # Trials under way count as bad ones, so that those beside each other are not alike.
            return TPESampler(seed=seed, constant_liar=True)


class Pruning:
    """Says which trials are not worth going on with: like is held against like, each seed and fold by itself.

    Args:
        pruner: how.
        num_epochs: at most.
        maximise: whether a larger value is better.
    """

    def __init__(self, pruner: PrunerName, num_epochs: int, *, maximise: bool) -> None:
        self.pruner, self._epochs = pruner, num_epochs
        self._direction = "maximize" if maximise else "minimize"
        self._studies: dict[str, optuna.Study] = {}
        self._trials: dict[tuple[str, int], Trial] = {}
        self._seen: dict[tuple[str, int], int] = {}

    def follow(self, part: str, number: int, curve: Mapping[int, float]) -> int | None:
        """Take in what a part of a trial has come to.

        Args:
            part: seed and fold.
            number: of the trial.
            curve: the metric of each epoch.

        Returns:
            The first new epoch that tells that the trial is not worth going on with, if there is one.
        """
        trial, key = self._trial(part, number), (part, number)
        for epoch, value in sorted(curve.items()):
            if epoch < self._seen.get(key, 0):
                continue
            self._seen[key] = epoch + 1
            trial.report(value, epoch + 1)
            if trial.should_prune():
                return epoch
        return None

    def end(self, part: str, number: int, value: float | None) -> None:
        """A part has ended; without a value it was stopped, or failed."""
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        self._studies[part].tell(self._trial(part, number), value, state=state)

    def _trial(self, part: str, number: int) -> Trial:
        study = self._studies.get(part)
        if study is None:
            study = self._studies[part] = optuna.create_study(
                study_name=part, direction=self._direction, pruner=self._new_pruner()
            )
        while (part, number) not in self._trials:
            trial = study.ask()  # in the order of their numbers, which decide on Hyperband's brackets
            self._trials[part, trial.number] = trial
        return self._trials[part, number]

    def _new_pruner(self) -> BasePruner:
        if self.pruner == "median":
            return MedianPruner(FIRST_WHOLE, n_warmup_steps=self._epochs // WARM_UP)
        if self.pruner == "hyperband":
            return HyperbandPruner(min_resource=max(1, self._epochs // WARM_UP), max_resource=self._epochs)
        return optuna.pruners.NopPruner()


def distribution(dimension: Dimension) -> BaseDistribution:
    """A dimension in Optuna's words."""
    if dimension.kind == "choice":
        return CategoricalDistribution(dimension.choices)
    if dimension.kind == "int":
        return IntDistribution(int(dimension.low), int(dimension.high), step=int(dimension.step or 1))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.kind == "log", step=dimension.step)


def check_count(study: Study, trials: int) -> None:
    """See that a grid has as many points as there are to be trials.

    Raises:
        ConfigError: it has fewer.
    """
    if study.most is not None and trials > study.most:
        raise ConfigError(f"{trials} trials of a grid of {study.most} points", "no more than it has", "lower --trials")
