"""What a file imports, directly or not: the part of the package that a model version carries."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

import topotrain.scoring.closure as closure_module
from topotrain.scoring.closure import PACKAGE, import_closure

FILES = {
    "__init__.py": "from box.version import v\ndef __getattr__(name): return import_module(f'box.{name}')\n",
    "version.py": "v = 1\n",
    "start.py": """
from __future__ import annotations
import json, numpy.linalg
from typing import TYPE_CHECKING
import box.low.one
from box.low import two, name_in_init
if TYPE_CHECKING:
    from box import types_alone
else:
    import box.for_running
def later():
    try:
        from box.lazy import thing
    except ImportError:
        import torch_geometric
""",
    "low/__init__.py": "name_in_init = 1\n",
    "low/one.py": "from box.low.two import x\nfrom box import start\n",
    "low/two.py": "x = 1\n",
    "low/three.py": "import yaml\n",
    "lazy.py": "import safetensors\n",
    "types_alone.py": "import scipy\n",
    "for_running.py": "",
}


@pytest.fixture
def box(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "box" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "box"


def test_imports_are_followed_wherever_they_are_but_for_types(box: Path) -> None:
    closure = import_closure(box / "start.py", box)
    files = ("__init__", "for_running", "lazy", "low/__init__", "low/one", "low/two", "version")
    assert [path.as_posix() for path in closure.files] == [f"box/{name}.py" for name in files]
    assert closure.packages == {"numpy", "torch_geometric", "safetensors"}


def test_packages_are_pinned_by_the_name_of_what_brings_them(box: Path) -> None:
    pinned = import_closure(box / "start.py", box).requirements()
    assert [line.split("==")[0] for line in pinned] == ["numpy", "safetensors", "torch-geometric"]
    assert pinned[0] == f"numpy=={metadata.version('numpy')}"
    (only,) = [line for line in import_closure(PACKAGE / "model" / "scaling.py").requirements() if "==" in line]
    assert only == f"torch=={metadata.version('torch').partition('+')[0]}"


def test_only_the_distributions_of_the_packages_are_looked_at(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going through all that are installed takes a third of a second, at the end of every run."""

    def search() -> dict[str, list[str]]:
        raise AssertionError("all distributions were gone through")

    monkeypatch.setattr(metadata, "packages_distributions", search)
    closure_module._distributions.cache_clear()
    assert len(import_closure(box / "start.py", box).requirements()) == 3


def test_a_package_that_a_distribution_of_another_name_brings(box: Path) -> None:
    closure_module._distributions.cache_clear()
    assert import_closure(box / "low" / "three.py", box).requirements() == [f"pyyaml=={metadata.version('PyYAML')}"]
