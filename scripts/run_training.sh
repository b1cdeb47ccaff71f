#!/bin/sh
# The legacy training script: `python -m train_cli run` of this checkout. Everything else is said there.
set -eu
self=$(readlink -f -- "$0")
root=$(dirname -- "$(dirname -- "$self")")

usage() {
  cat <<'TEXT'
usage: scripts/run_training.sh -c CONFIG [--trial LABEL] [--run-name NAME] [-- ARGS]

Trains one network by a configuration, as python -m train_cli run does. ARGS go there as they are:

  scripts/run_training.sh -c configs/default.yaml --trial first -- --override trainer.num_epochs=5
TEXT
}

fail() {
  printf 'error: %s; see scripts/run_training.sh -h\n' "$1" >&2
  exit 2
}

config='' trial='' name=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --) shift && break ;;
    -c | --config | --trial | --run-name) [ $# -gt 1 ] || fail "$1 has no value" ;;
    *) fail "unknown option $1; expected -c, --trial, --run-name, or -- before what is meant for train_cli run" ;;
  esac
  case $1 in
    -c | --config) config=$2 ;;
    --trial) trial=$2 ;;
    --run-name) name=$2 ;;
  esac
  shift 2
done
[ -n "$config" ] || fail 'no configuration; expected -c CONFIG'
# A relative CONFIG used to be sought beside the script; now here first, then in the checkout.
[ -e "$config" ] || [ ! -e "$root/$config" ] || config=$root/$config

python=${PYTHON:-$root/.venv/bin/python}
[ -n "${PYTHON-}" ] || [ -x "$python" ] || python=python3
export PYTHONPATH="$root/src${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m train_cli run --config "$config" --trial-label "$trial" --run-name "$name" "$@"
