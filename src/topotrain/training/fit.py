"""One training run, from a configuration to registered model versions."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from topotrain import __version__
from topotrain.config import LoadedConfig, TrainConfig, config_of_mapping, load_config
from topotrain.data.prepare import PreparedData, prepare_data
from topotrain.errors import ConfigError, InterruptedRunError
from topotrain.fields import CHECKPOINT_DIR, TAG_TRIAL_LABEL
from topotrain.model.lightning import Figures, ScoringModule
from topotrain.model.network import NetworkSpec, TopoQANetwork
from topotrain.progress import track
from topotrain.scoring.metrics import epoch_figures
from topotrain.tracking.provenance import provenance_tags
from topotrain.tracking.recorder import Recorder
from topotrain.tracking.store import resolve_tracking_uri
from topotrain.training.callbacks import EpochEnd, EpochSeeds, progress_callback
from topotrain.training.record import record_figures, record_recipe
from topotrain.training.register import register_kept
from topotrain.training.selection import Selection
from topotrain.training.signals import interruptible

log = logging.getLogger("topotrain")


@dataclass(frozen=True)
class TrainResult:
    """What a finished run left.

    Attributes:
        run_id: of the MLflow run.
        run_name: its name.
        tracking_uri: of the store it is on.
        experiment_id: of its experiment.
        best_epoch: by the primary metric, counted from 0.
        best_checkpoint: URI of its checkpoint, ``runs:/RUN_ID/checkpoints/...``.
        metrics: all figures of the best epoch.
        epochs: how many epochs were trained.
        model_versions: registered versions, best first; empty when nothing was registered.
        page: address of the run's page, where the store is a server.
    """

    run_id: str
    run_name: str
    tracking_uri: str
    experiment_id: str
    best_epoch: int
    best_checkpoint: str
    metrics: dict[str, float]
    epochs: int
    model_versions: list[str] = field(default_factory=list)
    page: str | None = None


@dataclass(frozen=True)
class Limits:
    """Options that cut a run short, for trying things out; such a run registers no model."""

    fast_dev_run: bool = False
    train_batches: int | float | None = None
    val_batches: int | float | None = None

    @property
    def any(self) -> bool:
        """Whether the run is cut short at all."""
        return self.fast_dev_run or self.train_batches is not None or self.val_batches is not None


def fit(
    config: TrainConfig | LoadedConfig | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    run_name: str | None = None,
    notes: str | None = None,
    trial_label: str | None = None,
    limits: Limits = Limits(),
    tracking_uri: str | None = None,
) -> TrainResult:
    """Train one network and record everything about it.

    Args:
        config: a ``TrainConfig``, nested plain values, or the path of a YAML file; by default the defaults.
        overrides: ``dotted.key=value``, on top of a file.
        run_name: by default ``mlflow.run_name``, else ``training_run_`` and the time.
        notes: shown on the run's page.
        trial_label: kept as a tag.
        limits: cut the run short.
        tracking_uri: wins over the configuration's.

    Raises:
        TopotrainError: bad input, a store that can't be used, or a loss that is not finite. The run, if one was
            opened, is closed as FAILED.
        InterruptedRunError: SIGINT or SIGTERM; the run is closed as KILLED.
    """
    loaded = _load(config, overrides)
    for notice in loaded.notices:
        log.info(notice)
    recipe = loaded.config
    uri = resolve_tracking_uri(tracking_uri, recipe.mlflow.tracking_uri, log.info)
    tags = {**recipe.mlflow.tags, **provenance_tags(), **({TAG_TRIAL_LABEL: trial_label} if trial_label else {})}
    with interruptible():
        recorder = Recorder.open(
            uri,
            recipe.mlflow.experiment,
            command="run",
            run_name=run_name or recipe.mlflow.run_name,
            tags=tags,
            notes=notes,
        )
        training = _Training(loaded, recorder, limits)
        try:
            return training.run()
        except InterruptedRunError as stop:
            recorder.close("KILLED", f"interrupted by signal {stop.signum} after {training.epochs} epochs")
            training.salvage()
            raise
        except BaseException as error:
            recorder.close("FAILED", f"{type(error).__name__}: {error}")
            training.salvage()
            raise
        finally:
            training.tidy()


class _Training:
    """The steps of one run, with what a failure needs to know of them."""

    def __init__(self, loaded: LoadedConfig, recorder: Recorder, limits: Limits) -> None:
        self.loaded, self.recorder, self.limits = loaded, recorder, limits
        self.versions: dict[int, str] = {}
        self.torch_settings = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
        self.config = loaded.config
        self.selection = Selection(self.config)
        self.data: PreparedData | None = None

    @cached_property
    def workdir(self) -> Path:
        """Made when it is first asked for."""
        return Path(mkdtemp(prefix="topotrain-run-"))

    @property
    def epochs(self) -> int:
        return len(self.selection.history)

    def run(self) -> TrainResult:
        """Prepare, train, register, close."""
        log.info("run %s (%s)", self.recorder.run_name, self.recorder.run_id)
        self.data = data = prepare_data(self.config, track)
        for warning in data.warnings:
            log.warning(warning)
        pl.seed_everything(self.config.dataloader.seed, workers=True, verbose=False)
        self._limit_threads()
        network = TopoQANetwork(NetworkSpec.of(data.schema, self.config))
        if self.config.model.input_scaling == "standard":
            network.fit_scaling(data.module.train.x, data.module.train.edge_attr)
        num_parameters = sum(p.numel() for p in network.parameters())
        record_recipe(self.recorder, self.loaded, data, num_parameters)
        log.info(
            "%d training and %d validation graphs; %d node and %d edge columns; %d parameters",
            *(len(data.module.train), len(data.module.val)),
            *(data.schema.node_dim, data.schema.edge_dim, num_parameters),
        )
        epoch_end = self._train(network, data)
        record_figures(self.recorder, self.selection, epoch_end.best_val_predictions, data, self.workdir)
        versions = self._register(data, candidate=True)
        self.recorder.close("FINISHED")
        return self._result(versions)

    def salvage(self) -> None:
        """Make models of what was kept, though the run did not finish."""
        if self.data is None or not self.selection.kept:
            return
        try:
            self._register(self.data, candidate=False)
        except Exception as error:  # noqa: BLE001 (the run's own end matters more)
            log.error("the kept checkpoints could not be registered (%s)", error)

    def tidy(self) -> None:
        """Leave the caller's process and disk as they were, apart from what could not be delivered."""
        torch.set_num_threads(self.torch_settings[0])
        torch.use_deterministic_algorithms(self.torch_settings[1])
        if self.recorder.complete:
            shutil.rmtree(self.workdir, ignore_errors=True)
        else:
            log.error("checkpoints and figures that could not be delivered are kept in %s", self.workdir)

    def _train(self, network: TopoQANetwork, data: PreparedData) -> EpochEnd:
        config = self.config
        module = ScoringModule(network, config, _figures_with_one_warning(), data.module.val.targets)
        carried = {
            "feature_metadata": data.schema.to_dict(),
            "model_hyperparameters": network.spec.to_dict(),
            "config": config.to_dict(),
            "data_digest": data.digest,
            "topotrain_version": __version__,
        }
        checkpoints = self.workdir / CHECKPOINT_DIR
        checkpoints.mkdir()
        epoch_end = EpochEnd(self.selection, self.recorder, checkpoints, carried)
        progress = progress_callback(self.selection, config.logging.progress_bar_refresh_rate)
        trainer = self._trainer([EpochSeeds(config.dataloader.seed), progress, epoch_end])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            try:
                trainer.fit(module, datamodule=data.module)
            except MisconfigurationException as error:
                raise ConfigError(f"training can't start: {error}", "limits that leave a batch") from None
        return epoch_end

    @staticmethod
    def _limit_threads() -> None:
        """One thread for the small tensors of interface graphs: faster, and the same sums on any number of cores."""
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)

    def _trainer(self, callbacks: list[pl.Callback]) -> pl.Trainer:
        config = self.config.trainer
        logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
        try:
            trainer = pl.Trainer(
                accelerator=config.accelerator,
                devices=config.devices,
                precision=config.precision,  # type: ignore[arg-type]
                max_epochs=config.num_epochs,
                accumulate_grad_batches=config.accumulate_grad_batches,
                fast_dev_run=self.limits.fast_dev_run,
                limit_train_batches=self.limits.train_batches,
                limit_val_batches=self.limits.val_batches,
                log_every_n_steps=self.config.logging.log_every_n_steps,
                num_sanity_val_steps=0,
                deterministic=True,
                logger=False,
                enable_checkpointing=True,
                enable_model_summary=False,
                enable_progress_bar=any(isinstance(c, pl.callbacks.ProgressBar) for c in callbacks),
                default_root_dir=str(self.workdir),
                callbacks=callbacks,
            )
        except (MisconfigurationException, ValueError, RuntimeError) as error:
            raise ConfigError(f"trainer: {error}", "settings that this machine has") from None
        if trainer.world_size > 1:
            raise ConfigError(
                f"trainer.devices is {config.devices!r}, {trainer.world_size} processes", "one device", "set it to 1"
            )
        return trainer

    def _register(self, data: PreparedData, *, candidate: bool) -> list[str]:
        if self.limits.any or self.config.mlflow.register_ == "none":
            return []
        return register_kept(
            self.recorder, self.config, self.selection, data, self.workdir, self.versions, candidate=candidate
        )

    def _result(self, versions: list[str]) -> TrainResult:
        best, recorder = self.selection.best, self.recorder
        assert best is not None  # noqa: S101 (a run that ended has an epoch)
        return TrainResult(
            run_id=recorder.run_id,
            run_name=recorder.run_name,
            tracking_uri=recorder.uri,
            experiment_id=recorder.experiment_id,
            best_epoch=best.epoch,
            best_checkpoint=f"runs:/{recorder.run_id}/{CHECKPOINT_DIR}/{best.file_name}",
            metrics=dict(best.figures),
            epochs=self.epochs,
            model_versions=versions,
            page=recorder.page,
        )


def _load(
    config: TrainConfig | LoadedConfig | Mapping[str, Any] | str | os.PathLike[str] | None, overrides: Sequence[str]
) -> LoadedConfig:
    if isinstance(config, Mapping):
        config = config_of_mapping(config)
    if isinstance(config, TrainConfig):
        config = LoadedConfig(config, "# no configuration file: given from Python\n")
    if isinstance(config, LoadedConfig):
        if overrides:
            raise ConfigError("overrides go with a file, not with a configuration that is already validated")
        return config
    return load_config(config, overrides)


def _figures_with_one_warning() -> Figures:
    """Validation figures for the Lightning module; an undefined correlation is told once."""
    told: set[str] = set()

    def figures(predicted: Tensor, true: Tensor, targets: Sequence[str]) -> dict[str, float]:
        values, undefined = epoch_figures(predicted.to(torch.float64).numpy(), true.to(torch.float64).numpy(), targets)
        for name in set(undefined) - told:
            told.add(name)
            log.warning("%s is undefined (all predictions or all labels are equal) and is recorded as 0", name)
        return values

    return figures
