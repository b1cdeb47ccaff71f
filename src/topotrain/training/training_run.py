"""The steps of one training run, from its data to registered model versions."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pytorch_lightning as pl
import torch

from topotrain.config import LoadedConfig
from topotrain.credentials import mask_credentials
from topotrain.data.prepare import PreparedData, prepare_data
from topotrain.errors import DataError, DiskError, InterruptedRunError
from topotrain.fields import (
    CHECKPOINT_DIR,
    DEMO,
    DOCKQ_COLUMN,
    INTERRUPTED_NOTE,
    TAG_TRIAL,
    TREES,
    quality_name,
)
from topotrain.invocation import resume_command, sync_advice
from topotrain.metrics.paired import differences_in_words
from topotrain.model.fit_inputs import fit_inputs
from topotrain.model.lightning import STEP
from topotrain.model.network import TopoQANetwork
from topotrain.progress import track
from topotrain.scratch import make_scratch, remove_scratch, writing
from topotrain.signals import heeding, release
from topotrain.text import one_line
from topotrain.tracking.journal import JournalError
from topotrain.tracking.recorder import AWAY_SECONDS, STOP_SECONDS, NewVersion, Recorder, Status
from topotrain.training.callbacks import EpochEnd, progress_callback
from topotrain.training.continuation import RATE, Continuation
from topotrain.training.crew import END_SECONDS, Crew, dismiss
from topotrain.training.epochs import with_epochs
from topotrain.training.initial_weights import load_initial_weights
from topotrain.training.judged import Judged
from topotrain.training.leaks import shared_proteins
from topotrain.training.loop import Limits, Loop, limit_threads
from topotrain.training.network_shape import network_spec
from topotrain.training.ranks import Place
from topotrain.training.record import record_figures, record_recipe
from topotrain.training.register import TakeCandidate, numbers_of, register_kept
from topotrain.training.selection import Selection
from topotrain.training.step_end import MID_EPOCH, StepEnd, batches_seen
from topotrain.training.summary import run_summary
from topotrain.version import __version__

log = logging.getLogger("topotrain")
TOLERANCE = "1e-5"  # of losses and metrics, between runs that differ in the number of processes alone


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
        metrics: all metrics of the best epoch.
        epochs: how many epochs were trained.
        model_versions: registered versions, best first; empty when nothing was registered.
        journal: folder that holds what the server does not have yet; ``None`` where it has everything.
        page: address of the run's page, where the store is a server.
        quality: name of what was learned.
        graphs: where it was learned from; ``demo`` for the demo data set.
    """

    run_id: str
    run_name: str
    tracking_uri: str = field(repr=False)  # it may hold a password
    experiment_id: str
    best_epoch: int
    best_checkpoint: str
    metrics: dict[str, float]
    epochs: int
    model_versions: list[str] = field(default_factory=list)
    journal: Path | None = None
    page: str | None = None
    quality: str = quality_name(DOCKQ_COLUMN)
    graphs: str = DEMO


class TrainingRun:
    """One run, with what a failure needs to know of it.

    Args:
        loaded: the recipe.
        recorder: of the run, open.
        limits: cut the run short.
        initial: a checkpoint or a model whose weights the run begins with.
        continuation: where the run goes on from; with it, ``initial`` has no use.
        take_candidate: whether the best version becomes the candidate.
        progress: whether bars are drawn where there is a terminal.
        place: of this process among several that train together.
    """

    def __init__(
        self,
        loaded: LoadedConfig,
        recorder: Recorder,
        limits: Limits,
        *,
        initial: str | None = None,
        continuation: Continuation | None = None,
        take_candidate: TakeCandidate = "if_better",
        progress: bool = True,
        place: Place | None = None,
    ) -> None:
        self.progress, self.place = progress, place
        self.loaded, self.recorder, self.limits = loaded, recorder, limits
        self.initial, self.continuation, self.take_candidate = initial, continuation, take_candidate
        self.versions: dict[int, str | NewVersion] = {}
        self.torch_settings = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
        self.config = loaded.config
        self.selection = continuation.selection if continuation else Selection(self.config)
        self.judged: Judged | None = None
        self.crew: Crew | None = None
        self.batches = 0  # of the epoch in which the run was stopped

    @cached_property
    def workdir(self) -> Path:
        """Made when it is first asked for."""
        return make_scratch("run")

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are written before they are recorded."""
        folder = self.workdir / CHECKPOINT_DIR
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def epochs(self) -> int:
        """Epochs that have ended."""
        return len(self.selection.history)

    def execute(self, data: PreparedData | None = None) -> TrainResult:
        """Train, and close the run however that ends.

        Args:
            data: of the recipe, where it was read already.

        Raises:
            TopotrainError: bad input, or a loss that is not finite; the run is closed as FAILED.
            InterruptedRunError: SIGINT or SIGTERM; the run is closed as KILLED.
        """
        try:
            with writing(self.workdir):
                result = self._run(data)
        except InterruptedRunError as stop:
            release(stop)
            within = f" and {self.batches} batches" if self.batches else ""
            self._end("KILLED", f"{INTERRUPTED_NOTE} {stop.signum} after {self.epochs} epochs{within}")
            if self.crew is not None:
                log.info("the epoch under way will begin anew: several processes keep whole epochs alone")
            if self.epochs or within:
                log.info("to resume: %s", resume_command(self.recorder.run_id, self.recorder.uri))
            raise
        except BaseException as error:
            full = isinstance(error, DiskError | JournalError)
            self._end("FAILED", f"{type(error).__name__}: {error}", full)
            raise
        finally:
            self.tidy()
        self.recorder.check()
        return result

    def _run(self, data: PreparedData | None) -> TrainResult:
        """Prepare, train, register, close."""
        log.info("run %s (%s)", self.recorder.run_name, self.recorder.run_id)
        log.info("  to resume: %s", resume_command(self.recorder.run_id, self.recorder.uri))
        if not self.selection.has_epochs_left:
            dismiss(self.place)
        elif self.place is not None:
            self.crew = Crew(self.place)
            self.place = self.crew.place
        data = data or prepare_data(self.config, track if self.progress else None)
        data = replace(data, notes=tuple(shared_proteins(data)))
        if self.config.trainer.num_epochs is None:
            self._settle_epochs(len(data.module.train_dataloader()))
        self.judged = judged = Judged(data, self.checkpoints)
        for warning in data.warnings:
            log.warning(warning)
        for split in (data.train, data.val):
            log.info("%s: %s", split.name, split.target_line)
        pl.seed_everything(self.config.dataloader.seed, workers=True, verbose=False)
        limit_threads()
        network = self._network(data)
        num_parameters = sum(p.numel() for p in network.parameters())
        if self.limits.any:
            self.recorder.tags({TAG_TRIAL: self.limits.in_words})
        if self.continuation is None or not self.continuation.same_run:
            record_recipe(self.recorder, self.loaded, data, num_parameters)
            self.recorder.flush(STOP_SECONDS, away=AWAY_SECONDS)  # what the run is about is known before the first step
        log.info(
            "%d training and %d validation graphs; %d node and %d edge columns; %d parameters",
            *(len(data.module.train), len(data.module.val)),
            *(data.schema.node_dim, data.schema.edge_dim, num_parameters),
        )
        if self.continuation is not None:
            self._say_other_ranks(self.continuation.content.get("num_ranks", 1))
            self.versions |= self.continuation.restore(self.recorder, self.loaded, self.checkpoints)
        self._record_baselines(judged)
        if self.selection.has_epochs_left:
            self._train(network, data)
        self._summarise(judged)
        record_figures(self.recorder, self.selection, judged, self.workdir)
        self._say_verdict(judged)
        versions = self._register(judged, candidate=self.take_candidate)
        patience = self.config.mlflow.flush_timeout
        delivered = self.recorder.flush(patience)
        self.recorder.end("FINISHED")
        self.recorder.close(patience if delivered else 0)
        return self._result(self._said(numbers_of(versions)))

    def _settle_epochs(self, num_batches: int) -> None:
        """From here on the recipe says how many epochs there are at most."""
        self.config = self.selection.config = with_epochs(self.config, num_batches)
        self.loaded = replace(self.loaded, config=self.config)
        log.info("%d batches an epoch: %d epochs at most", num_batches, self.config.trainer.num_epochs)

    def _record_baselines(self, judged: Judged) -> None:
        """What the network is held against, once: before its first epoch, so that no way to end a run loses it."""
        there = self.continuation.recorded.metrics if self.continuation else set()
        if missing := {name: value for name, value in judged.baselines.metrics.items() if name not in there}:
            self.recorder.metrics(missing, step=0)
        self._summarise(judged)

    def _summarise(self, judged: Judged) -> None:
        self.recorder.summary(run_summary(self.config, judged, self.selection, self.recorder.run_id))

    def _say_verdict(self, judged: Judged) -> None:
        best = self.selection.best
        found = judged.against_baselines(best).get(TREES, {}) if best else {}
        if found:
            log.info("best epoch less boosted trees on the validation targets: %s", differences_in_words(found))

    @property
    def _num_ranks(self) -> int:
        return self.place.size if self.place else 1

    def _say_other_ranks(self, before: int) -> None:
        if before != self._num_ranks:
            log.warning(
                "the checkpoint is of %d processes, and %d go on: sums are added in another order, and results agree "
                "with those of an unchanged number to rounding (%s over some epochs), not to the last bit",
                *(before, self._num_ranks, TOLERANCE),
            )

    def _network(self, data: PreparedData) -> TopoQANetwork:
        """New, or with the weights of another; a run that goes on takes its own from the checkpoint."""
        spec = network_spec(data.schema, self.config)
        if self.initial is not None:
            initial = load_initial_weights(self.initial, lambda: self.recorder.store)
            initial.check(spec, data.schema)
            self.recorder.tags(initial.lineage)
            log.info("beginning with the weights of %s", mask_credentials(self.initial))
            network = TopoQANetwork(spec)  # a new one, since dropout is the configuration's and not the weights'
            network.load_state_dict(initial.network.state_dict())
            return network
        network = TopoQANetwork(spec)
        if self.continuation is None:
            scaled = self.config.model.input_scaling != "none"
            fit_inputs(network, data.module.train, data.columns() if scaled else None)
        return network

    def _end(self, status: Status, note: str, full: bool = False) -> None:
        """Close a run that did not finish, and make models of what it kept.

        Args:
            status: how it ended.
            note: why.
            full: because of a disk that takes nothing more: what can't be written now needs no line of its own.
        """
        try:
            self.recorder.end(status, note)
            if self.judged is not None and self.selection.kept and not full:
                self._summarise(self.judged)
                self._register(self.judged, candidate="never")
        except Exception as error:  # noqa: BLE001 (what ended the run matters more)
            if not full:
                log.error("not everything of the run could be recorded (%s)", one_line(error))
        self.recorder.close(0)
        if self.recorder.journal is not None:
            log.warning("not yet delivered: %s keeps it; %s", self.recorder.journal, sync_advice(self.recorder.journal))

    def tidy(self) -> None:
        """Leave the caller's process and disk as they were; what is not delivered yet is in the journal."""
        if self.crew is not None:
            self.crew.end()
        torch.set_num_threads(self.torch_settings[0])
        torch.use_deterministic_algorithms(self.torch_settings[1])
        if "workdir" in vars(self):
            remove_scratch(self.workdir)

    def _train(self, network: TopoQANetwork, data: PreparedData) -> None:
        continuation = self.continuation
        carried = {
            "feature_metadata": data.schema.to_dict(),
            "model_hyperparameters": network.spec.to_dict(),
            "config": self.config.to_dict(),
            "limits": asdict(self.limits),
            "data_digest": data.digest,
            "run_id": self.recorder.run_id,
            "topotrain_version": __version__,
            "step": STEP,
            "num_ranks": self._num_ranks,
        }
        epoch_end = EpochEnd(self.selection, self.recorder, self.checkpoints, carried)
        callbacks = [progress_callback(self.selection, self.config.logging, bar=self.progress), epoch_end]
        data.module.first_epoch = self.epochs
        last = self.checkpoints / continuation.name if continuation else None
        new_rate = RATE in continuation.drift if continuation else False
        loop = Loop(self.config, self.limits, self.workdir, self.place, last, new_rate)
        if self.crew is None:
            before = continuation.content if continuation else {}
            data.module.first_batch = batches_seen(before)
            with heeding() as wish:
                step_end = StepEnd(wish, epoch_end, before.get(MID_EPOCH))
                try:
                    loop.run(network, data.module, [*callbacks, step_end])
                finally:
                    self.batches = step_end.batches
            return
        self.crew.brief(
            {
                **{name: carried[name] for name in ("config", "limits", "data_digest")},
                "weights": network.state_dict(),
                "first_epoch": self.epochs,
                "new_learning_rate": new_rate,
            },
            last,
        )
        try:
            loop.run(network, data.module, callbacks)
        except (RuntimeError, DataError) as error:
            if lost := self.crew.lost(error):
                raise lost from error
            raise
        self.crew.end(patience=END_SECONDS)

    def _register(self, judged: Judged, *, candidate: TakeCandidate) -> list[str | NewVersion]:
        if self.limits.any or self.config.mlflow.register_ == "none":
            return []
        return register_kept(
            self.recorder, self.config, self.selection, judged, self.workdir, self.versions, candidate=candidate
        )

    def _said(self, versions: list[str]) -> list[str]:
        """Say which versions were registered; returns them."""
        if versions:
            name, oldest_first = self.config.mlflow.model_name, ", ".join(reversed(versions))
            log.info("registered %s versions %s", name, oldest_first)
        return versions

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
            metrics=dict(best.metrics),
            epochs=self.epochs,
            model_versions=versions,
            journal=recorder.journal,
            page=recorder.page,
            quality=quality_name(self.config.labels.column),
            graphs=self.config.paths.graph,
        )
