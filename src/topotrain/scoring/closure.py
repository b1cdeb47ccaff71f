"""What a file of this package imports: which other files of it, and which packages beside it, directly or not."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Closure:
    """What has to be there for a file to run.

    Attributes:
        files: of the package, the file itself left out, as paths below its parent folder.
        packages: import names of other packages.
    """

    files: tuple[Path, ...]
    packages: frozenset[str]

    def requirements(self) -> list[str]:
        """The packages as pinned requirements, in the versions installed, without local parts (``+cpu``)."""
        names = sorted(_distribution(package) for package in self.packages)
        return [f"{name}=={metadata.version(name).split('+')[0]}" for name in names]


@lru_cache(maxsize=4)
def import_closure(start: Path, package: Path = PACKAGE) -> Closure:
    """Follow imports, at the top and inside functions; those for the type checker alone are left out.

    Args:
        start: a file of the package.
        package: its folder.
    """
    found: set[Path] = set()
    others: set[str] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in _imports(ast.parse(path.read_text(encoding="utf-8"))):
            top, *rest = name.split(".")
            if top == package.name:
                waiting += _files(package, rest)
            elif top not in sys.stdlib_module_names:
                others.add(top)
    files = sorted(path.relative_to(package.parent) for path in found - {start})
    return Closure(tuple(files), frozenset(others))


def _imports(tree: ast.AST) -> Iterator[str]:
    """Names of modules, and of what is taken from them, which may be modules too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield from _imports(ast.Module([other], []))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from _imports(node)


def _files(package: Path, parts: list[str]) -> Iterator[Path]:
    """The files that run when ``package.PARTS`` is imported; the last part may be no module."""
    folder = package
    yield folder / "__init__.py"
    for part in parts:
        if (folder / part).is_dir():
            folder = folder / part
            yield folder / "__init__.py"
        else:
            module = folder / f"{part}.py"
            if module.is_file():
                yield module
            return


def _distribution(package: str) -> str:
    """The distribution that brings a package, by its usual name; one of the package's own name where there is one."""
    own = _usual(package)
    if _brings(own, package):
        return own
    brought = {_usual(name) for name in _distributions()[package]}
    return own if own in brought else sorted(brought)[0]


def _brings(distribution: str, package: str) -> bool:
    """Whether a distribution's record lists a package: asked first, since going through all there are takes long."""
    try:
        record = metadata.distribution(distribution).read_text("RECORD") or ""
    except metadata.PackageNotFoundError:
        return False
    return any(f"\n{start}" in f"\n{record}" for start in (f"{package}/", f"{package}.py,"))


@lru_cache(maxsize=1)
def _distributions() -> dict[str, list[str]]:
    return {name: list(brought) for name, brought in metadata.packages_distributions().items()}


def _usual(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
