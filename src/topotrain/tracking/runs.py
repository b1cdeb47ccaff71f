"""Questions about runs: which one is meant, which there are, what they recorded."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any

from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from topotrain.errors import TrackingError
from topotrain.fields import BEST_OF, EPOCH_METRICS, TAG_COMMAND, TAG_OFFLINE_ID, TAG_TRIAL, VALIDATION_PARAMETER
from topotrain.text import did_you_mean, one_line
from topotrain.tracking.address import ARTIFACTS_NAME, artifact_root, local_folder
from topotrain.tracking.moved import absent
from topotrain.tracking.outages import Asker, asking, asks, is_absent, paged
from topotrain.tracking.records import RunRecord

log = logging.getLogger("topotrain")

LATEST = "latest"
RUN_COMMANDS = ("run", "resume")
ENSEMBLE = "ensemble"  # ranked beside them, where it was judged as they are
MIN_PREFIX = 8
PAGE = 1000
RECENT = 200  # runs among whose names a near one is looked for
NEWEST_FIRST = ("attributes.start_time DESC",)
OLDEST_FIRST = ("attributes.start_time ASC",)
PRIMARY_PARAM = "selection.primary_metric"
VALIDATION = f"params.`{VALIDATION_PARAMETER}`"
MOST_DATA = 20  # each is a table to join, and SQLite joins 64
ATTEMPTS = 5
PAGE_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # the page opens on runs, not on chat traces


class Runs(Asker):
    """The runs of a store.

    Every method raises ``OutageError`` where the store does not answer, ``TrackingError`` where it refuses.
    """

    def find(self, run: str, experiment: str | None = None) -> RunRecord:
        """The run meant by an id, a unique prefix of one (8 or more characters), a name, or ``latest``.

        Args:
            run: what the user wrote.
            experiment: look in this experiment only.

        Raises:
            TrackingError: no such run, or several; the candidates are listed.
        """
        experiments = self._experiment_ids(experiment)
        if run == LATEST:
            return self._latest(experiments)
        if re.fullmatch(r"[0-9a-f]{32}", run):
            found = self.known(run)
            if found is not None and not found.deleted:
                return found
        quote = '"' if "'" in run else "'"  # MLflow knows no escape: a name with both kinds can't be asked for
        query = f"attributes.run_name = {quote}{run}{quote}"
        named = list(self._search(experiments, query)) if quote not in run else []
        if not named and re.fullmatch(rf"[0-9a-f]{{{MIN_PREFIX},32}}", run):
            named = list(self._search(experiments, f"attributes.run_id LIKE '{run}%'"))
            # A run --offline printed another id than the one it was given when it was delivered.
            named = named or list(self._search(experiments, f"tags.`{TAG_OFFLINE_ID}` LIKE '{run}%'"))
        named = [r for r in named if r.command in RUN_COMMANDS] or named
        if len(named) > 1:
            candidates = ", ".join(f"{r.run_id} ({r.name}, {r.status})" for r in named[:10])
            raise TrackingError(f"{run!r} means {len(named)} runs: {candidates}", "one run", "give its id")
        if not named:
            advice = [
                self._near_name(experiments, run),
                "see: topotrain leaderboard" if experiment is None else f"only experiment {experiment!r} was searched",
            ]
            raise TrackingError(
                f"no run {run!r} on this store",
                f"a run id, {MIN_PREFIX} or more of its first characters, a run name, or {LATEST}",
                "; ".join(filter(None, advice)),
            )
        return named[0]

    @asks
    def get(self, run_id: str) -> RunRecord:
        """One run, as the server has it."""
        return run_record(self._client.get_run(run_id))

    @asks
    def known(self, run_id: str | None) -> RunRecord | None:
        """One run, deleted or not, or ``None`` where the store has none of that id."""
        try:
            return run_record(self._client.get_run(run_id)) if run_id else None
        except MlflowException as error:
            if is_absent(error):
                return None
            raise

    def validated_on(self, primary: str, experiment: str | None = None, *, trials: bool = False) -> list[str | None]:
        """Digests of the validation data of the training runs of one primary metric, the latest used first.

        The last one is ``None``, for runs that recorded none.

        Args:
            primary: the metric's name.
            experiment: name of the only one to look in.
            trials: whether runs that were cut short count.
        """
        query, experiments = _ranked_by(primary, trials), self._experiment_ids(experiment)
        found: list[str | None] = []
        while len(found) < MOST_DATA:  # the server can't say which values there are: ask for a run of another one
            other = next(self._search(experiments, f"{query} AND {VALIDATION} LIKE '%'", page_size=1), None)
            if other is None:
                break
            found.append(other.params[VALIDATION_PARAMETER])
            query += f" AND {VALIDATION} != '{found[-1]}'"
        else:
            log.warning("runs were validated on more than %d data sets; those used last are shown", MOST_DATA)
        return [*found, None]

    def best_first(
        self,
        primary: str | None,
        validation: str | None,
        experiment: str | None = None,
        limit: int | None = None,
        *,
        trials: bool = False,
    ) -> list[RunRecord]:
        """Training runs of one primary metric on the same data, ordered by the server by their best value, then age.

        Ensembles are among them where they were judged on these data.

        Args:
            primary: the metric's name; ``None`` for runs that recorded no configuration, the oldest first.
            validation: digest of the validation data; ``None`` for runs that recorded none.
            experiment: name of the only one to look in.
            limit: how many; by default all.
            trials: whether runs that were cut short are among them.
        """
        same = f"{VALIDATION} = '{validation}'" if validation else f"{VALIDATION} IS NULL"
        order = [f"metrics.{BEST_OF[primary]} ASC"] if primary else []
        query = f"{_ranked_by(primary, trials)} AND {same}"
        runs = self._search(
            self._experiment_ids(experiment), query, [*order, *OLDEST_FIRST], PAGE if limit is None else limit
        )
        return list(islice((run for run in runs if _is_ranked(run, primary)), limit))

    def children(self, run_id: str) -> list[RunRecord]:
        """Runs that are part of a run, the oldest first."""
        return list(self._search(self._experiment_ids(), f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'", OLDEST_FIRST))

    def tagged(self, tag: str, value: str, command: str) -> Iterator[RunRecord]:
        """Runs of a command that have a tag of this value, the newest first."""
        quote = '"' if "'" in value else "'"
        if quote not in value:
            query = f"tags.`{TAG_COMMAND}` = '{command}' and tags.`{tag}` = {quote}{value}{quote}"
            yield from self._search(self._experiment_ids(), query)

    @asks
    def values(self, run_id: str, name: str) -> dict[int, float]:
        """A metric's value at each step, in order."""
        points = sorted(self._client.get_metric_history(run_id, name), key=lambda m: (m.step, m.timestamp))
        return {m.step: m.value for m in points}

    def history(self, run: RunRecord, names: Iterable[str] = EPOCH_METRICS) -> dict[int, dict[str, float]]:
        """Metrics of each epoch, in order; one that a run never recorded is in none of them."""
        history: dict[int, dict[str, float]] = defaultdict(dict)
        for name in names:
            if name in run.metrics:
                for step, value in self.values(run.run_id, name).items():
                    history[step][name] = value
        return dict(sorted(history.items()))

    def steps(self, run_id: str, names: Iterable[str]) -> dict[str, set[int]]:
        """Steps at which a run has a point, for each metric."""
        return {name: set(self.values(run_id, name)) for name in names}

    @asks
    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """Set one tag of a run."""
        self._client.set_tag(run_id, key, value)

    @asks
    def experiment_name(self, experiment_id: str) -> str:
        """The name of an experiment, by its id."""
        return str(self._client.get_experiment(experiment_id).name)

    @asks
    def experiment_id(self, name: str) -> str:
        """Get or create an experiment; never falls back to another one.

        Raises:
            TrackingError: it was deleted, or can't be created.
        """
        reason = ""
        for _ in range(ATTEMPTS):
            found = self._client.get_experiment_by_name(name)
            if found is not None:
                if found.lifecycle_stage != "active":
                    raise TrackingError(
                        f"experiment {name!r} was deleted", "an active experiment", "restore it, or choose another name"
                    )
                self._warn_if_moved(name, str(found.artifact_location))
                return str(found.experiment_id)
            try:
                location = artifact_root(self.uri)
                return str(self._client.create_experiment(name, artifact_location=location, tags=PAGE_TAGS))
            except MlflowException as error:  # perhaps another process created it in between
                reason = one_line(error)
        raise TrackingError(f"experiment {name!r} can't be created ({reason})", "a store that can be written")

    def _near_name(self, experiments: list[str], run: str) -> str:
        """A question that names the recent run whose name is nearest, or ""."""
        recent = islice(self._search(experiments, "", page_size=RECENT), RECENT)
        return did_you_mean(run, [LATEST, *dict.fromkeys(one.name for one in recent)])

    def _warn_if_moved(self, name: str, location: str) -> None:
        """What is recorded in an experiment goes where its artifacts were when it was made, wherever that is now."""
        folder, here = local_folder(location), artifact_root(self.uri)
        if folder and here and location != here and folder.name == ARTIFACTS_NAME and not folder.exists():
            log.warning(
                "artifacts of experiment %r go to a folder that is made anew: %s", name, absent(folder, self.uri)
            )

    def _latest(self, experiments: list[str]) -> RunRecord:
        newest = [
            run
            for command in RUN_COMMANDS
            for run in islice(self._search(experiments, f"tags.`{TAG_COMMAND}` = '{command}'", page_size=1), 1)
        ]
        if not newest:
            raise TrackingError(
                "no training run on this store", "a run recorded by topotrain", "train one with: topotrain run"
            )
        return max(newest, key=lambda run: run.started)

    def _search(
        self, experiments: list[str], query: str, order_by: Sequence[str] = NEWEST_FIRST, page_size: int = PAGE
    ) -> Iterator[RunRecord]:
        """Every run that fits a filter in MLflow's words, page by page."""

        def page(token: str | None) -> Any:
            with asking(self.uri):
                return self._client.search_runs(
                    experiments,
                    query,
                    ViewType.ACTIVE_ONLY,
                    max_results=min(page_size, PAGE),
                    order_by=list(order_by),
                    page_token=token,
                )

        return map(run_record, paged(page)) if experiments else iter(())

    @asks
    def _experiment_ids(self, name: str | None = None) -> list[str]:
        """Ids of all active experiments, or of the only one to look in.

        Raises:
            TrackingError: there is none of that name.
        """
        if name is not None:
            found = self._client.get_experiment_by_name(name)
            if found is None:
                every = self._client.search_experiments(view_type=ViewType.ACTIVE_ONLY, max_results=PAGE)
                near = did_you_mean(name, [str(one.name) for one in every])
                raise TrackingError(f"no experiment {name!r} on this store", "an experiment's name", near)
            return [str(found.experiment_id)]
        search = partial(self._client.search_experiments, view_type=ViewType.ACTIVE_ONLY, max_results=PAGE)
        return [str(one.experiment_id) for one in paged(lambda token: search(page_token=token))]


def run_record(run: Run) -> RunRecord:
    """A run as MLflow describes it, as our record."""
    info, data = run.info, run.data
    return RunRecord(
        run_id=str(info.run_id),
        name=str(info.run_name),
        experiment_id=str(info.experiment_id),
        status=str(info.status),
        started=datetime.fromtimestamp(info.start_time / 1000, UTC),
        ended=datetime.fromtimestamp(info.end_time / 1000, UTC) if info.end_time else None,
        deleted=info.lifecycle_stage != "active",
        artifact_uri=str(info.artifact_uri),
        params=dict(data.params),
        tags=dict(data.tags),
        metrics=dict(data.metrics),
    )


def _ranked_by(primary: str | None, trials: bool) -> str:
    """Runs of a primary metric, in MLflow's words, which know no OR: what is not ranked is left out afterwards."""
    metric = f"params.`{PRIMARY_PARAM}` = '{primary}'" if primary else f"params.`{PRIMARY_PARAM}` IS NULL"
    ours = f"tags.`{TAG_COMMAND}` LIKE '{'%' if primary else 'r%'}'"  # training begins with r
    return f"{ours} AND {metric}" + ("" if trials else f" AND tags.`{TAG_TRIAL}` IS NULL")


def _is_ranked(run: RunRecord, primary: str | None) -> bool:
    """Whether a run has a place beside others of a primary metric: training, or an ensemble that was judged."""
    return run.command in RUN_COMMANDS or (run.command == ENSEMBLE and BEST_OF.get(primary or "") in run.metrics)
