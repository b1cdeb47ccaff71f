"""What goes wrong while the store is asked: it refuses, or it does not answer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from topotrain.credentials import mask_uri
from topotrain.disk import EXPECTED, database_fault
from topotrain.errors import OutageError, TrackingError, UserInputError
from topotrain.scratch import temporary_fault
from topotrain.text import one_line, refusal
from topotrain.tracking.address import database_path

# What asking again does not mend.
REFUSALS = (
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "PERMISSION_DENIED",
    "RESOURCE_DOES_NOT_EXIST",
    "UNAUTHENTICATED",
)
ROOM = (EXPECTED, "make room there, or give another --tracking-uri")
P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A", bound="Asker")


def advice(error: Exception) -> tuple[str, str] | None:
    """What to expect and to do where a server that has users refuses this one; ``None`` for any other error."""
    words = refusal(str(error))
    if not words:
        return None
    if words.endswith("(401)"):
        how = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        return "a user of the server", how
    return "a user with the permission", "ask who manages the server for it, or take an experiment or model of your own"


@contextmanager
def asking(uri: str) -> Iterator[None]:
    """Name what goes wrong while the store is asked.

    Args:
        uri: of the store.

    Raises:
        OutageError: it does not answer, but may later.
        TrackingError: it refuses.
    """
    try:
        yield
    except (MlflowException, OSError) as error:  # OSError: what requests raises, too
        if told := full_here(uri, error):
            raise told from None
        advised = advice(error)
        if advised or (isinstance(error, MlflowException) and error.error_code in REFUSALS):
            raise TrackingError(f"{mask_uri(uri)} refuses ({one_line(error)})", *(advised or ())) from None
        raise OutageError(
            f"{mask_uri(uri)} does not answer ({one_line(error)})", "a store that can be asked", "try again"
        ) from None


def full_here(uri: str, error: Exception) -> UserInputError | None:
    """What to say where a disk of this machine takes nothing more: the store's, or that of what is fetched.

    Args:
        uri: of the store.
        error: of asking it.
    """
    fault, database = database_fault(error), database_path(uri)
    if fault and database:
        return OutageError(f"tracking store {database} can't be used ({fault})", *ROOM)
    return None if fault else temporary_fault(error)


class Asker:
    """Base of what asks one store.

    Args:
        client: of the store.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    @property
    def uri(self) -> str:
        """Of the store."""
        return str(self._client.tracking_uri)


def asks(method: Callable[Concatenate[A, P], T]) -> Callable[Concatenate[A, P], T]:
    """Marks a method that asks the store; see ``asking``."""

    @functools.wraps(method)
    def ask(self: A, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with asking(self.uri):
            return method(self, *args, **kwargs)

    return ask


def is_absent(error: MlflowException) -> bool:
    """Whether the store answered that there is no such thing, or that there can be none of that name."""
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def paged(page: Callable[[str | None], Any]) -> Iterator[Any]:
    """Everything, page by page; a page is fetched when its first item is asked for.

    Args:
        page: takes a token, ``None`` for the first page.
    """
    token: str | None = None
    while True:
        found = page(token)
        yield from found
        token = found.token
        if not token:
            return
