"""A model version in an interpreter that knows nothing of the checkout, and imports from the version alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ALONE = """
import builtins, importlib.abc, importlib.util, json, sys
from pathlib import Path
request = json.loads(sys.stdin.read())
sys.path[:] = [entry for entry in sys.path if not entry.endswith("/src")]
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
importlib.invalidate_caches()
assert importlib.util.find_spec("topotrain") is None, "this process must not see the checkout"

class Absent(importlib.abc.MetaPathFinder):  # what training and building graphs need and a served model must not
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in request["absent"]:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Absent())
plain_import = builtins.__import__

def watched_import(name, globals=None, locals=None, fromlist=(), level=0):
    # What MLflow and torch import for themselves is theirs; files of the version may ask for what it pins, even if it
    # is there already.
    file = Path((globals or {}).get("__file__") or ".")
    if request["pinned"] is not None and (file.name == "served.py" or "code/topotrain/" in str(file)):
        top = name.split(".")[0]
        if top not in {"topotrain", *request["pinned"], *sys.stdlib_module_names}:
            raise ImportError(f"{file} imports {name}, which the version does not pin")
    return plain_import(name, globals, locals, fromlist, level)

builtins.__import__ = watched_import
import mlflow, pandas as pd
if request["store"]:
    mlflow.set_tracking_uri(request["store"])
from mlflow.pyfunc import scoring_server  # what MLflow itself unpickles when it is imported is not ours
unpickled = []
sys.addaudithook(lambda event, args: unpickled.append(str(args)) if event == "pickle.find_class" else None)
model = mlflow.pyfunc.load_model(request["model"])
import topotrain
scores = {kind: model.predict(pd.DataFrame({kind: rows})).to_dict("list") for kind, rows in request["table"].items()}
ours = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "topotrain"]
print(json.dumps({"scores": scores, "code": topotrain.__file__, "unpickled": unpickled, "loaded": ours}))
"""
TRAINING = ("pytorch_lightning", "lightning_fabric", "platformdirs")
BUILDING = ("gemmi", "gudhi", "mdtraj", "biotite", "DockQ", "plotly", "filelock")


def score_alone(
    model: str,
    table: Mapping[str, Sequence[str]],
    home: Path,
    *,
    store: str = "",
    pinned: Sequence[str] | None = None,
    absent: Sequence[str] = (*TRAINING, *BUILDING),
) -> dict[str, Any]:
    """Load a model in a new process by MLflow, and score tables of one column.

    Args:
        model: as MLflow takes it.
        table: rows by column.
        home: an empty folder to work in.
        store: tracking URI, for a model of the registry.
        pinned: import names that files of the version may ask for; by default all that is there.
        absent: packages that this process must do without.
    """
    request = {"model": model, "table": dict(table), "store": store, "pinned": pinned, "absent": list(absent)}
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=home,
        env={**environment, "MLFLOW_DISABLE_TELEMETRY": "true"},
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def pinned_names(requirements: Path) -> list[str]:
    """Import names of the packages in a requirements file (of those whose name is that of their package)."""
    return [line.split("==")[0].replace("-", "_") for line in requirements.read_text().split()]
