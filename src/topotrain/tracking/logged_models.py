"""A kept checkpoint as the files of a logged model; nothing of it is pickled."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.types.schema import ColSpec, Schema

TEXTS = (".json", ".md", MLMODEL_FILE_NAME)  # of a model: where the run is named


@dataclass(frozen=True)
class ModelFiles:
    """What a logged model is made of, on disk.

    Attributes:
        loader: the Python file that MLflow runs to load it.
        code: folder with the package it imports.
        artifacts: its files by name.
        requirements: pinned, one a line.
        input_example: a table as the served model takes it.
        outputs: the columns in which it gives numbers: its scores, and their spread where it has one.
    """

    loader: Path
    code: Path
    artifacts: Mapping[str, Path]
    requirements: list[str]
    input_example: Any
    outputs: tuple[str, ...]

    @property
    def signature(self) -> ModelSignature:
        """What the served model takes and gives."""
        return ModelSignature(
            inputs=Schema([ColSpec("string", "graph", required=False), ColSpec("string", "path", required=False)]),
            outputs=Schema(
                [*(ColSpec("double", name) for name in self.outputs), ColSpec("string", "error", required=False)]
            ),
        )

    def save(self, folder: Path) -> None:
        """Write them as MLflow keeps a model, which has no id yet.

        Args:
            folder: a folder that does not exist.

        Raises:
            OSError: it can't be written.
        """
        with _without_advice():
            mlflow.pyfunc.save_model(
                str(folder),
                python_model=str(self.loader),
                code_paths=[str(self.code)],
                artifacts={key: str(path) for key, path in self.artifacts.items()},
                signature=self.signature,
                input_example=self.input_example,
                pip_requirements=self.requirements,
            )
        for cache in list(folder.rglob("__pycache__")):
            shutil.rmtree(cache, ignore_errors=True)


def model_title(text: str) -> str:
    """A logged model's name, without the characters that it may not have."""
    return re.sub(r"""[/:.%"']""", "-", text)


def identify(folder: Path, location: str, model_id: str, run_id: str, stand_in: str | None) -> None:
    """Say in a model's files which logged model of which run they are.

    Each is replaced whole, by one that was written beside the folder: a kill leaves nothing in it that is half written.

    Args:
        folder: as ``ModelFiles.save`` wrote it.
        location: where the logged model's files go.
        model_id: of the logged model.
        run_id: of the run that made it.
        stand_in: the id that stands for the run in the files.

    Raises:
        OSError: they can't be written.
    """
    # Whole or not at all, and never a file of its own in the model: a kill may come in the middle.
    aside = folder.with_name(f"{folder.name}-new")
    if stand_in is not None:
        for path in model_files(folder):
            if path.name.endswith(TEXTS):
                aside.write_bytes(path.read_bytes().replace(stand_in.encode(), run_id.encode()))
                aside.replace(path)
    model = Model.load(str(folder))
    model.artifact_path, model.model_uuid, model.run_id, model.model_id = location, model_id, run_id, model_id
    model.save(str(aside))
    aside.replace(folder / MLMODEL_FILE_NAME)


def model_files(folder: Path) -> list[Path]:
    """The files of a model, sorted; none of them is a link, which may lead anywhere."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep MLflow from advising on type hints that a table model has no use for."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
