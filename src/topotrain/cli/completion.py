"""What the shell offers for a value; it never fails, asks no server, and takes a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps

import click

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _offered(names: Callable[[click.Context, click.Parameter], Iterable[str]]) -> Complete:
    """Those names that begin as the user has begun; none where they can't be had."""

    @wraps(names)
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        try:
            return [name for name in dict.fromkeys(names(ctx, param)) if name.startswith(incomplete)]
        except Exception:  # noqa: BLE001 (whatever is wrong is said when the command runs, not while it is typed)
            return []

    return complete


@_offered
def runs(ctx: click.Context, param: click.Parameter) -> Iterable[str]:
    """``latest``, then names and ids of runs."""
    from topotrain.tracking.glance import run_names

    found = run_names(ctx.params.get("tracking_uri"))
    return ["latest", *(name for name, _ in found), *(run_id for _, run_id in found)]


@_offered
def models(ctx: click.Context, param: click.Parameter) -> Iterable[str]:
    """``models:/NAME@alias`` and ``models:/NAME/VERSION``, then ``starter``."""
    from topotrain.fields import STARTER
    from topotrain.tracking.glance import model_uris

    return [*model_uris(ctx.params.get("tracking_uri")), STARTER]


@_offered
def model_names(ctx: click.Context, param: click.Parameter) -> Iterable[str]:
    """Names of registered models."""
    from topotrain.tracking.glance import model_names as names

    return names(ctx.params.get("tracking_uri"))


@_offered
def modules(ctx: click.Context, param: click.Parameter) -> Iterable[str]:
    """Ids of the feature modules of an option's kind."""
    from topotrain.features.registry import list_modules

    return [module.id for module in list_modules(str(param.name).removesuffix("_module"))]


@_offered
def configuration_keys(ctx: click.Context, param: click.Parameter) -> Iterable[str]:
    """Dotted keys, up to the value."""
    from topotrain.config import known_dotted_keys

    return [f"{key}=" for key in known_dotted_keys()]
