"""What a tuning is to do: which recipes it tries, with which seeds and folds, and what they are compared by."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from topotrain.batches.manifest import Job, Manifest, digest_of
from topotrain.batches.space import Space, load_space
from topotrain.batches.study import PrunerName, SamplerName, Study, check_count
from topotrain.config import MOST_EPOCHS, TrainConfig, merge
from topotrain.data.folds import Fold, make_folds
from topotrain.errors import ConfigError
from topotrain.fields import (
    SELECTION_METRIC,
    TAG_TUNE_FOLD,
    TAG_TUNE_SEED,
    TAG_TUNE_STUDY,
    TAG_TUNE_TRIAL,
    TAG_TUNE_VALUES,
    VAL_LOSS,
    VAL_PEARSON,
    VAL_RANKING_LOSS,
    VAL_SPEARMAN,
)
from topotrain.text import did_you_mean

METRICS = {  # what trials can be compared by: whether a larger value is better
    VAL_LOSS: False,
    SELECTION_METRIC: False,
    VAL_RANKING_LOSS: False,
    VAL_SPEARMAN: True,
    VAL_PEARSON: True,
}
SEEDS = 2**32  # a seed is below
WINNER = "winner"  # the job that makes the model of the winning recipe


@dataclass(frozen=True)
class Part:
    """One training run of each trial.

    Attributes:
        seed: of the run.
        fold: that it is validated on; ``None`` for the recipe's own labels.
    """

    seed: int
    fold: Fold | None = None

    @property
    def name(self) -> str:
        """Short, and unlike that of the others."""
        return f"seed_{self.seed}" + (f"_fold_{self.fold.number}" if self.fold else "")


@dataclass(frozen=True)
class Plan:
    """A tuning, checked.

    Attributes:
        space: what is varied.
        metric: what is compared: its value at a run's best epoch, the mean over the parts of a trial.
        sampler: how trials are suggested.
        pruner: how those that are not worth going on with are found.
        parts: the runs of each trial.
        trials: how many there are to be, earlier ones included.
        timeout: seconds after which no further trial begins.
    """

    space: Space
    metric: str
    sampler: SamplerName
    pruner: PrunerName
    parts: tuple[Part, ...]
    trials: int
    timeout: float | None = None

    @property
    def maximise(self) -> bool:
        """Whether a larger value of the metric is better."""
        return METRICS[self.metric]

    @property
    def folds(self) -> list[Fold]:
        """One for each fold; none where trials are compared on the recipe's own validation labels."""
        return list({part.fold.number: part.fold for part in self.parts if part.fold}.values())

    @cached_property
    def recipe(self) -> TrainConfig:
        """What is varied, as it is without."""
        return self.space.recipe

    @property
    def num_epochs(self) -> int:
        """Of the longest trial there may be."""
        own = [value for one in self.space.dimensions if one.key == "trainer.num_epochs" for value in one.tried_first]
        return int(max(own, default=self.recipe.trainer.num_epochs or MOST_EPOCHS))

    @property
    def reads(self) -> list[str]:
        """Absolute paths of what has to be there when a trial begins."""
        choices = [one.choices for one in self.space.dimensions if one.key == "paths.graph"]
        graphs = [self.space.config({"paths.graph": value}).paths.graph for value in (choices or [()])[0]]
        own = self.recipe.paths.model_dump(exclude={"cache"}, exclude_none=True)
        folds = [str(path) for fold in self.folds for path in (fold.train_labels, fold.val_labels)]
        return [path for path in dict.fromkeys([*graphs, *own.values(), *folds]) if os.path.isabs(path)]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over what decides what is tried, the same wherever the project lies; not how much of it."""
        chosen = {"metric": self.metric, "sampler": self.sampler, "pruner": self.pruner}
        folds = {fold.number: fold.targets for fold in self.folds}
        return digest_of({**self.space.to_dict(), **chosen, "parts": [one.name for one in self.parts], "folds": folds})

    def study(self) -> Study:
        """A new study of it.

        Raises:
            ConfigError: the grid is none, or has too few points.
        """
        study = Study(self.space, self.sampler, self.recipe.dataloader.seed, maximise=self.maximise)
        check_count(study, self.trials)
        return study

    def job(self, number: int, values: Mapping[str, Any], part: Part) -> Job:
        """One run of a trial.

        It registers no versions: ``resume`` with ``mlflow.register`` does that later, for the winner.

        Raises:
            ConfigError: values that can't go together.
        """
        name = f"trial_{number:03d}" + (f"_{part.name}" if len(self.parts) > 1 else "")
        config = self.space.config(values, name)
        own: dict[str, dict[str, Any]] = {"dataloader": {"seed": part.seed}, "mlflow": {"register_": "none"}}
        tags = {
            TAG_TUNE_STUDY: self.digest,
            TAG_TUNE_TRIAL: str(number),
            TAG_TUNE_VALUES: json.dumps(dict(values)),
            TAG_TUNE_SEED: str(part.seed),
        }
        if part.fold is not None:
            own["paths"] = {"train_labels": str(part.fold.train_labels), "val_labels": str(part.fold.val_labels)}
            tags[TAG_TUNE_FOLD] = str(part.fold.number)
        config = _with(config, own)
        return Job(name, config, None, name, tags=tags, digest=digest_of([self.digest, name, dict(values)]))

    def winner_job(self, number: int, values: Mapping[str, Any]) -> Job:
        """The run that makes the winner's model, on the recipe's own labels."""
        config = self.space.config(values, WINNER)
        digest = digest_of([self.digest, WINNER, number, dict(values)])
        return Job(WINNER, config, None, WINNER, tags={TAG_TUNE_STUDY: self.digest}, digest=digest)

    def as_manifest(self) -> Manifest:
        """What a scheduler needs to know of it."""
        settings = self.recipe.mlflow
        return Manifest(self.space.path, self.space.text, (), True, settings.tracking_uri, settings.experiment)


def _with(config: TrainConfig, values: Mapping[str, Mapping[str, Any]]) -> TrainConfig:
    sections = {name: getattr(config, name).model_copy(update=dict(own)) for name, own in values.items()}
    return config.model_copy(update=sections)


def plan_tuning(
    space: str | os.PathLike[str],
    *,
    trials: int,
    config: str | os.PathLike[str] | None,
    overrides: Sequence[str],
    sampler: SamplerName,
    pruner: PrunerName,
    metric: str | None,
    seeds: int,
    folds: int | None,
    timeout: float | None,
    elsewhere: bool = False,
) -> Plan:
    """Read and check everything that a tuning needs; the arguments are those of ``topotrain.tune``.

    Where its trials run on other machines (``elsewhere``), this one need not have the hardware.

    Raises:
        UserInputError: something is wrong; nothing has run then.
    """
    loaded = load_space(space, config, overrides)
    recipe = loaded.recipe
    wanted = metric or recipe.selection.primary_metric
    if wanted not in METRICS:
        raise ConfigError(f"metric {wanted!r}", f"one of {', '.join(METRICS)}", did_you_mean(wanted, METRICS))
    first = recipe.dataloader.seed
    made: list[Fold | None] = [*make_folds(recipe, folds)] if folds is not None else [None]
    parts = tuple(Part((first + number) % SEEDS, fold) for number in range(seeds) for fold in made)
    plan = Plan(loaded, wanted, sampler, pruner, parts, trials, timeout)
    plan.study()
    for one in () if elsewhere else (recipe, *_hardware_asked(loaded)):
        _check_hardware(one)
    return plan


def _hardware_asked(space: Space) -> list[TrainConfig]:
    own = [one for one in space.dimensions if one.key.startswith("trainer.")]
    return [space.config({one.key: value}) for one in own for value in one.tried_first]


def _check_hardware(config: TrainConfig) -> None:
    from topotrain.training.hardware import check_hardware

    check_hardware(config)


def as_recipe(config: TrainConfig, experiment: str, heading: Sequence[str]) -> str:
    """A configuration as a file that ``topotrain run --config`` takes.

    Args:
        config: the recipe.
        experiment: that its runs go to.
        heading: comment lines above it.
    """
    values = merge(config.to_dict(), {"mlflow": {"experiment": experiment, "tracking_uri": None}})
    comments = "".join(f"# {line}\n" for line in heading)
    return comments + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
