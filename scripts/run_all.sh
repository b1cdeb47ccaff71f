#!/bin/sh
# The legacy batch script: `python -m train_cli batch` of this checkout on manifests/run_all.yaml.
set -eu
self=$(readlink -f -- "$0")
root=$(dirname -- "$(dirname -- "$self")")

case ${1-} in
  -h | --help)
    cat <<'TEXT'
usage: scripts/run_all.sh [ARGS]

Trains every job of manifests/run_all.yaml, as python -m train_cli batch does. ARGS go there as they are:

  scripts/run_all.sh --jobs 2 --override trainer.num_epochs=5
TEXT
    exit 0
    ;;
esac

python=${PYTHON:-$root/.venv/bin/python}
[ -n "${PYTHON-}" ] || [ -x "$python" ] || python=python3
export PYTHONPATH="$root/src${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m train_cli batch --manifest "$root/manifests/run_all.yaml" "$@"
