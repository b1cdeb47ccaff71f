"""What a journal holds: each thing that a run records, as plain values that any later process can deliver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

Status = Literal["FINISHED", "FAILED", "KILLED"]
# Of what lies in the journal's folder: a plain name, so that no journal reaches out of it.
Kept = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,80}$")]


def _below(artifact: str) -> str:
    """Refuse what leads out of the run's artifacts."""
    parts = artifact.split("/")
    if not all(parts) or {".", ".."} & set(parts) or "\0" in artifact or "\\" in artifact:
        raise ValueError("leads out of the run's artifacts")
    return artifact


Artifact = Annotated[str, AfterValidator(_below)]


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Origin(_Plain):
    """Whose journal it is; its first record.

    Attributes:
        run_id: of the run; of one that no server knows yet, an id that stands for it everywhere.
        offline: whether no server knows the run yet.
        writer: of the process that records it, unlike any other's.
        uri: of the store, without credentials.
        experiment: name.
        run_name: of the run.
        tags: of a run that no server knows yet.
        started: milliseconds since 1970.
    """

    kind: Literal["origin"] = "origin"
    format: Literal[1] = 1
    run_id: Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,64}$")]
    offline: bool
    writer: Kept
    uri: str
    experiment: str
    run_name: str
    tags: Mapping[str, str]
    started: int


class Params(_Plain):
    """Parameters, by name."""

    kind: Literal["params"] = "params"
    values: dict[str, str]


class Point(_Plain):
    """One value of a metric; ``time`` in milliseconds since 1970, ``step`` the epoch."""

    key: str
    value: float | Literal["nan", "inf", "-inf"]  # JSON knows no such numbers
    time: int
    step: int


class Points(_Plain):
    """Values of metrics."""

    kind: Literal["points"] = "points"
    points: list[Point]


class Tags(_Plain):
    """Tags of the run, by name."""

    kind: Literal["tags"] = "tags"
    values: dict[str, str]


class File(_Plain):
    """An artifact, which replaces one of the same name.

    Attributes:
        kept: name of its content in the journal's folder.
        artifact: where it goes below the run's artifacts.
    """

    kind: Literal["file"] = "file"
    kept: Kept
    artifact: Artifact


class Removal(_Plain):
    """An artifact that is to go, where the store can remove one."""

    kind: Literal["removal"] = "removal"
    artifact: Artifact


class DatasetFacts(_Plain):
    """One input data set, as shown on the run's page."""

    name: str
    context: Literal["training", "validation"]
    digest: str
    source: str
    profile: dict[str, Any]


class Inputs(_Plain):
    """The run's data sets."""

    kind: Literal["inputs"] = "inputs"
    datasets: list[DatasetFacts]


class Version(_Plain):
    """A logged model of the run that becomes the next version of a registered model.

    Attributes:
        kept: folder of its files, as MLflow saves a model, in the journal's.
        name: of the registered model.
        title: of the logged model, one of its kind in the run.
        step: epoch; the run's metrics of it are linked to the model.
        tags: of the logged model and of the version.
    """

    kind: Literal["version"] = "version"
    kept: Kept
    name: str
    title: str
    step: int
    tags: dict[str, str]


class VersionTags(_Plain):
    """Tags of a version that is registered already."""

    kind: Literal["version_tags"] = "version_tags"
    name: str
    number: str
    tags: dict[str, str | None]  # none in journals of earlier versions: the rank of a version that is not kept


class Alias(_Plain):
    """An alias that is to point at a version: one of a number, or one that the journal holds, by its title.

    Attributes:
        if_better: whether it stays where it is unless the version is better (see ``standing``).
    """

    kind: Literal["alias"] = "alias"
    name: str
    alias: str
    number: str | None = None
    title: str | None = None
    if_better: bool = False


class End(_Plain):
    """How and when the run ended."""

    kind: Literal["end"] = "end"
    status: Status
    time: int


Entry = Params | Points | Tags | File | Removal | Inputs | Version | VersionTags | Alias | End
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="kind")])


def entry_of(record: Mapping[str, Any]) -> Entry:
    """A record as the entry it is.

    Raises:
        ValueError: it is none.
    """
    try:
        return _ENTRY.validate_python(record)
    except ValidationError as error:
        raise ValueError(f"no entry ({error.errors()[0]['msg']})") from None


def what(entry: Entry) -> str:
    """An entry's name in messages."""
    match entry:
        case File():
            return f"artifact {entry.artifact}"
        case Removal():
            return f"removal of {entry.artifact}"
        case Version():
            return f"a version of {entry.name}"
        case VersionTags():
            return f"tags of {entry.name} version {entry.number}"
        case Alias():
            return f"alias {entry.alias} of {entry.name}"
    plain = {"params": "parameters", "points": "metrics", "tags": "tags", "inputs": "data sets", "end": "status"}
    return plain[entry.kind]
