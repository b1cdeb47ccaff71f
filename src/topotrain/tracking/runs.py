"""Questions to the tracking server: which run is meant, what it recorded."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from topotrain.errors import TrackingError
from topotrain.fields import EPOCH_METRICS, TAG_COMMAND
from topotrain.text import one_line
from topotrain.tracking.store import asking

LATEST = "latest"
RUN_COMMANDS = ("run", "resume")
MIN_PREFIX = 8
PAGE = 1000
NEWEST_FIRST = ("attributes.start_time DESC",)
RUNS_A_QUESTION = 100  # ids that one filter names
READS = 3  # of an artifact that may be in the middle of being replaced


def find_run(client: MlflowClient, run: str, experiment: str | None = None) -> Run:
    """The run meant by an id, a unique prefix of one (8 or more characters), a name, or ``latest``.

    Args:
        client: of the store.
        run: what the user wrote.
        experiment: look in this experiment only.

    Raises:
        TrackingError: no such run, or several; the candidates are listed.
    """
    experiments = experiment_ids(client, experiment)
    if run == LATEST:
        newest = [r for command in RUN_COMMANDS for r in _first(client, experiments, command)]
        if not newest:
            raise TrackingError(
                "no training run on this store", "a run recorded by topotrain", "train one with: topotrain run"
            )
        return max(newest, key=lambda r: r.info.start_time)
    if re.fullmatch(r"[0-9a-f]{32}", run):
        try:
            found = client.get_run(run)
            if found.info.lifecycle_stage == "active":
                return found
        except MlflowException:
            pass
    quote = '"' if "'" in run else "'"  # MLflow knows no escape: a name with both kinds can't be asked for
    query = f"attributes.run_name = {quote}{run}{quote}"
    named = list(search_runs(client, experiments, query)) if quote not in run else []
    if not named and re.fullmatch(rf"[0-9a-f]{{{MIN_PREFIX},32}}", run):
        named = list(search_runs(client, experiments, f"attributes.run_id LIKE '{run}%'"))
    named = [r for r in named if r.data.tags.get(TAG_COMMAND) in RUN_COMMANDS] or named
    if len(named) > 1:
        candidates = ", ".join(f"{r.info.run_id} ({r.info.run_name}, {r.info.status})" for r in named[:10])
        raise TrackingError(f"{run!r} means {len(named)} runs: {candidates}", "one run", "give its id")
    if not named:
        raise TrackingError(
            f"no run {run!r} on this store",
            f"a run id, {MIN_PREFIX} or more of its first characters, a run name, or {LATEST}",
            "see: topotrain ui" if experiment is None else f"only experiment {experiment!r} was searched",
        )
    return named[0]


def search_runs(
    client: MlflowClient,
    experiments: list[str],
    query: str,
    order_by: Sequence[str] = NEWEST_FIRST,
    page_size: int = PAGE,
) -> Iterator[Run]:
    """Every run that fits, page by page; a page is fetched when its first run is asked for.

    Args:
        client: of the store.
        experiments: ids of those to look in.
        query: filter, in MLflow's words.
        order_by: in MLflow's words; by default the newest first.
        page_size: runs fetched at once, at most 1,000.
    """
    token: str | None = None
    while experiments:
        page = client.search_runs(
            experiments,
            query,
            ViewType.ACTIVE_ONLY,
            max_results=min(page_size, PAGE),
            order_by=list(order_by),
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def training_runs(
    client: MlflowClient,
    experiment: str | None = None,
    condition: str = "",
    order_by: Sequence[str] = NEWEST_FIRST,
    page_size: int = PAGE,
) -> Iterator[Run]:
    """Every training run: no reports, and no batches, whose children are the runs.

    Args:
        client: of the store.
        experiment: name of the only one to look in.
        condition: further filter, in MLflow's words.
        order_by: in MLflow's words; by default the newest first.
        page_size: runs fetched at once.
    """
    # MLflow's filter knows no OR: both commands begin with r, and what else does is left out here.
    query = f"tags.`{TAG_COMMAND}` LIKE 'r%'" + (f" AND {condition}" if condition else "")
    for run in search_runs(client, experiment_ids(client, experiment), query, order_by, page_size):
        if run.data.tags[TAG_COMMAND] in RUN_COMMANDS:
            yield run


def child_runs(client: MlflowClient, run: Run) -> list[Run]:
    """Runs that are part of a run, the oldest first."""
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run.info.run_id}'"
    return list(search_runs(client, experiment_ids(client), query, ["attributes.start_time ASC"]))


def metric_history(client: MlflowClient, run_id: str, name: str) -> dict[int, float]:
    """A metric's value at each step, in order."""
    points = sorted(client.get_metric_history(run_id, name), key=lambda m: (m.step, m.timestamp))
    return {m.step: m.value for m in points}


def epoch_history(client: MlflowClient, run: Run, names: Iterable[str] = EPOCH_METRICS) -> dict[int, dict[str, float]]:
    """Figures of each epoch, in order; one that a run never recorded is in none of them."""
    history: dict[int, dict[str, float]] = defaultdict(dict)
    for name in names:
        if name in run.data.metrics:
            for step, value in metric_history(client, run.info.run_id, name).items():
                history[step][name] = value
    return dict(sorted(history.items()))


def artifact_text(client: MlflowClient, run_id: str, artifact: str) -> str | None:
    """A text artifact of a run, or ``None`` when the run has none of that name that can be read here.

    Raises:
        TrackingError: the store does not answer, or refuses.
    """
    folder = artifact.rpartition("/")[0]
    with asking(client.tracking_uri), tempfile.TemporaryDirectory() as scratch:
        try:
            # Listed first: a failed download does not tell a file that is not there from a server that is away.
            if artifact not in [item.path for item in client.list_artifacts(run_id, folder or None)]:
                return None
            return _download(client, run_id, artifact, Path(scratch)).read_text(encoding="utf-8")
        except (PermissionError, FileNotFoundError, UnicodeDecodeError):
            return None


def artifact_json(client: MlflowClient, run_id: str, artifact: str) -> Any | None:
    """A JSON artifact of a run, or ``None`` when the run has none of that name that can be read here.

    Raises:
        TrackingError: the store does not answer, or refuses.
    """
    for attempt in range(READS):
        text = artifact_text(client, run_id, artifact)
        try:
            return None if text is None else json.loads(text)
        except ValueError:
            time.sleep(0.2 * (attempt + 1))
    return None


def fetch_artifact(client: MlflowClient, run_id: str, artifact: str, folder: Path) -> Path:
    """Download one artifact of a run.

    Args:
        client: of the store.
        run_id: the run.
        artifact: its path below the run's artifacts.
        folder: where to put it.

    Raises:
        TrackingError: the run has none of that name, or it can't be fetched.
    """
    try:
        return _download(client, run_id, artifact, folder)
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"runs:/{run_id}/{artifact} can't be fetched ({one_line(error)})", "an artifact of a run on this store"
        ) from None


def _download(client: MlflowClient, run_id: str, artifact: str, folder: Path) -> Path:
    return Path(
        mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=artifact, dst_path=str(folder), tracking_uri=client.tracking_uri
        )
    )


def parse_run_uri(uri: str) -> tuple[str, str]:
    """``runs:/ID/PATH`` to run id and path.

    Raises:
        TrackingError: it is not of that form.
    """
    match = re.fullmatch(r"runs:/([0-9a-zA-Z_-]+)/(.+)", uri)
    if match is None:
        raise TrackingError(f"{uri!r} is malformed", "runs:/RUN_ID/checkpoints/NAME")
    return match[1], match[2]


def artifact_names(client: MlflowClient, run_id: str, folder: str) -> set[str]:
    """Names of the artifacts in one folder of a run."""
    try:
        return {Path(item.path).name for item in client.list_artifacts(run_id, folder)}
    except (MlflowException, OSError):
        return set()


def recorded_steps(client: MlflowClient, run_id: str, names: Iterable[str]) -> dict[str, set[int]]:
    """Steps at which a run has a point, for each metric."""
    return {name: set(metric_history(client, run_id, name)) for name in names}


def local_artifact(run: Run, artifact: str) -> str | None:
    """Path of an artifact, where the artifact store is a folder of this machine and the file is there."""
    uri = run.info.artifact_uri
    root = url2pathname(urlsplit(uri).path) if uri.startswith("file:") else uri
    path = Path(root) / artifact
    return str(path) if "://" not in root and path.exists() else None


@dataclass(frozen=True)
class Version:
    """A registered version, with what it was made from.

    Attributes:
        name: of the registered model.
        number: of the version.
        run_id: of the run that made it.
        epoch: of its checkpoint.
        aliases: that point at it, sorted.
    """

    name: str
    number: str
    run_id: str
    epoch: int | None
    aliases: tuple[str, ...]

    @property
    def uri(self) -> str:
        """``models:/NAME/VERSION``."""
        return f"models:/{self.name}/{self.number}"


def registered_versions(client: MlflowClient, run_ids: Sequence[str]) -> list[Any]:
    """Versions that runs registered, as MLflow describes them (without aliases), the oldest of a model first."""
    found: list[Any] = []
    for start in range(0, len(run_ids), RUNS_A_QUESTION):
        ids = ", ".join(f"'{run_id}'" for run_id in run_ids[start : start + RUNS_A_QUESTION])
        token: str | None = None
        while True:
            page = client.search_model_versions(f"run_id IN ({ids})", max_results=PAGE, page_token=token)
            found += page
            token = page.token
            if not token:
                break
    return sorted(found, key=lambda version: int(version.version))


def best_version(client: MlflowClient, run_id: str, name: str | None = None) -> Any | None:
    """The version of a run's best checkpoint (the newest one where none has a rank), or ``None`` where it has none.

    Args:
        client: of the store.
        run_id: the run.
        name: of a registered model; by default any.

    Raises:
        TrackingError: the store does not answer, or refuses.
    """
    with asking(client.tracking_uri):
        versions = [one for one in registered_versions(client, [run_id]) if name in (None, one.name)]
    ranked = [one for one in versions if one.tags.get("rank") == "1"]
    return (ranked or versions or [None])[-1]


def model_versions(client: MlflowClient, run_ids: Sequence[str]) -> list[Version]:
    """Versions that runs registered, with their aliases, the oldest of a model first."""
    found = registered_versions(client, run_ids)
    aliases: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in {version.name for version in found}:  # a search for versions leaves the aliases out
        for alias, number in client.get_registered_model(name).aliases.items():
            aliases[name, str(number)].append(alias)
    return [
        Version(
            name=one.name,
            number=str(one.version),
            run_id=one.run_id,
            epoch=int(one.tags["epoch"]) if one.tags.get("epoch", "").isdecimal() else None,
            aliases=tuple(sorted(aliases[one.name, str(one.version)])),
        )
        for one in found
    ]


def experiment_ids(client: MlflowClient, name: str | None = None) -> list[str]:
    """Ids of all active experiments, or of the only one to look in.

    Raises:
        TrackingError: there is none of that name.
    """
    if name is not None:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise TrackingError(f"no experiment {name!r} on this store", "an experiment's name")
        return [str(found.experiment_id)]
    ids: list[str] = []
    token: str | None = None
    while True:
        page = client.search_experiments(view_type=ViewType.ACTIVE_ONLY, max_results=PAGE, page_token=token)
        ids += [str(one.experiment_id) for one in page]
        token = page.token
        if not token:
            return ids


def _first(client: MlflowClient, experiments: list[str], command: str) -> list[Run]:
    return list(
        client.search_runs(
            experiments,
            f"tags.`{TAG_COMMAND}` = '{command}'",
            ViewType.ACTIVE_ONLY,
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
    )
