"""How lines for people get to standard error, from the shell and from Python; never with credentials."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from topotrain.credentials import mask_credentials

LOGGER = "topotrain"


class MaskingFormatter(logging.Formatter):
    """A line, and a traceback where there is one, with their credentials masked."""

    def format(self, record: logging.LogRecord) -> str:
        """As it is shown."""
        return mask_credentials(super().format(record))


def log_to_stderr() -> None:
    """Show the program's own lines on standard error, and mask what other libraries log or warn of."""
    logger = logging.getLogger(LOGGER)
    logger.handlers[:] = [_handler()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if logging.getLogRecordFactory() is not _masked_record:
        _others.record, _others.warning = logging.getLogRecordFactory(), warnings.formatwarning
        logging.setLogRecordFactory(_masked_record)
        warnings.formatwarning = _masked_warning


@contextmanager
def lines_shown(wanted: bool) -> Iterator[None]:
    """Show the lines on standard error for a while, unless the caller has set logging up to show them already.

    Args:
        wanted: whether to show them at all.
    """
    logger = logging.getLogger(LOGGER)
    if not wanted or (logger.hasHandlers() and logger.isEnabledFor(logging.INFO)):
        yield
        return
    handler, level, propagate = _handler(), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _Others:
    """How records and warnings were made before they were masked."""

    record: Any = logging.LogRecord
    warning: Any = warnings.formatwarning


_others = _Others()


def _handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(MaskingFormatter("%(message)s"))
    return handler


def _masked_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record: logging.LogRecord = _others.record(*args, **kwargs)
    if not record.name.startswith(LOGGER):
        record.msg, record.args = mask_credentials(record.getMessage()), ()
        if record.exc_info and record.exc_info[0]:
            record.exc_text = mask_credentials(logging.Formatter().formatException(record.exc_info))
    return record


def _masked_warning(*args: Any, **kwargs: Any) -> str:
    return mask_credentials(_others.warning(*args, **kwargs))
