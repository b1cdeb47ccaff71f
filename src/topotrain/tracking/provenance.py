"""Where a run's code came from: git commit, package versions, machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from topotrain.fields import TAG_GIT_COMMIT, TAG_GIT_DIRTY, TAG_VERSION
from topotrain.invocation import threads_asked
from topotrain.version import __version__


def provenance_tags() -> dict[str, str]:
    """Version of topotrain and, where it runs from a checkout, the commit and whether it was dirty."""
    tags = {TAG_VERSION: __version__}
    # A checkout that merely lies around an installation is not where the code came from.
    tracked = _git("ls-files", "--error-unmatch", __file__) is not None
    commit = _git("rev-parse", "HEAD") if tracked else None
    if commit:
        tags[TAG_GIT_COMMIT] = tags["mlflow.source.git.commit"] = commit
        tags[TAG_GIT_DIRTY] = str(bool(_git("status", "--porcelain"))).lower()
    return tags


@lru_cache(maxsize=1)
def installed_packages() -> str:
    """Every installed distribution, pinned, one a line, when it was first asked for: nothing imported changes later."""
    pins = {pin for pin in map(_pin, metadata.distributions()) if pin}
    return "\n".join(sorted(pins, key=str.lower)) + "\n"


def _pin(distribution: metadata.Distribution) -> str | None:
    """``None`` for one that is broken, or being installed just now."""
    try:
        name = distribution.metadata["Name"]
        return f"{name}=={distribution.version}" if name else None
    except (OSError, ImportError, LookupError):
        return None


def system_facts() -> dict[str, Any]:
    """What a reader needs to know of the machine to repeat a run."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "omp_num_threads": threads_asked(),
        "topotrain": __version__,
    }


def _git(*arguments: str) -> str | None:
    """Ask git about the folder of this code; ``None`` where it has no answer."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
