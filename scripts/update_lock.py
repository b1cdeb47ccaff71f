"""Write the versions installed in this environment to requirements.lock and conda.yaml.

Run it in an environment made by ``pip install -e .[dev]``: ``python scripts/update_lock.py``.
"""

from __future__ import annotations

import platform
import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Written by scripts/update_lock.py; Makefile, conda.yaml and .ci/run install exactly these.\n"
LOCKED_EXTRAS = ("dev", "label", "server")
NOT_LOCKED = {"topotrain", "pip", "setuptools", "wheel", "distribute"}


def wanted() -> set[str]:
    """Names of all distributions that topotrain needs, directly or not, those of extras asked for too."""
    seen: set[tuple[str, str]] = set()
    names: set[str] = set()
    queue = [Requirement(f"topotrain[{','.join(LOCKED_EXTRAS)}]")]
    while queue:
        requirement = queue.pop()
        try:
            further = [Requirement(line) for line in metadata.requires(requirement.name) or []]
        except metadata.PackageNotFoundError:
            continue  # for another platform or Python
        names.add(normal(requirement.name))
        for extra in ("", *requirement.extras):  # "": what is needed without any extra
            if (normal(requirement.name), extra) not in seen:
                seen.add((normal(requirement.name), extra))
                queue += [one for one in further if one.marker is None or one.marker.evaluate({"extra": extra})]
    return names - NOT_LOCKED


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Write both files."""
    # A local version (+cpu) names one build of a release; the release is what is locked.
    pins = sorted(f"{name}=={metadata.version(name).split('+')[0]}" for name in wanted())
    (ROOT / "requirements.lock").write_text(HEADER + "\n".join(pins) + "\n", encoding="utf-8")
    # The patch version too: without it, pyenv builds the newest one from source though another 3.11 is installed.
    python = platform.python_version()
    conda = ["name: topotrain", "channels:", "  - conda-forge", "dependencies:", f"  - python={python}"]
    conda += ["  - pip", "  - pip:", *(f"      - {pin}" for pin in pins)]
    (ROOT / "conda.yaml").write_text(HEADER + "\n".join(conda) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
