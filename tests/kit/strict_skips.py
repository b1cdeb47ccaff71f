"""Reference data beside the checkout, and what a test may skip for where everything ought to be there.

With ``TOPOTRAIN_STRICT_SKIPS`` set, as ``.ci/run`` sets it, a test that skips fails, save for want of a program or a
device that can't be everywhere, and of the reference data where there are none. ``conftest.py`` takes over the two
hooks.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import NoReturn

import pytest

STRICT = "TOPOTRAIN_STRICT_SKIPS"
PLACE = "TOPOTRAIN_SHARED_DATA"
MAY_BE_ABSENT = (
    *("mkdssp is not installed", "no chromium and chromedriver on PATH", "no CUDA device"),
    "no file system can be mounted here",
)
NO_REFERENCE_DATA = "reference data are not here"


def reference_data() -> Path | None:
    """The folder of reference data: the one named, or ``shared/data`` beside the checkout or further up."""
    if os.environ.get(PLACE):
        return Path(os.environ[PLACE])
    places = (parent / "shared" / "data" for parent in Path(__file__).resolve().parents)
    return next((place for place in places if place.is_dir()), None)


def skip_without_reference_data(part: str = "") -> NoReturn:
    """Skip the test that asks."""
    pytest.skip(f"{NO_REFERENCE_DATA}: {Path('shared', 'data', part)} (set {PLACE})")


def may_skip(reason: str) -> bool:
    """Whether a test may skip for this reason here."""
    if not os.environ.get(STRICT) or any(words in reason for words in MAY_BE_ABSENT):
        return True
    return NO_REFERENCE_DATA in reason and reference_data() is None


def _judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):  # an expected failure has none
        reason = report.longrepr[2]
        if not may_skip(reason):
            report.outcome, report.longrepr = "failed", f"may not skip where {STRICT} is set: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip of a test that may not is a failure."""
    report = yield
    _judge(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """So is one of a whole file."""
    report = yield
    _judge(report)
    return report
