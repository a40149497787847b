#!/bin/sh
# tests/read_h5.sh - Python with h5py alone reads what nsm writes, and computes the same scores from it.
set -eu
src=$(cd "${top_srcdir:-.}" && pwd)
nsm=$(cd "${top_builddir:-.}" && pwd)/nsm
: "${PYTHON:=python3}"
"$PYTHON" -c 'import h5py, numpy' 2>/dev/null || { echo "skipped: no python3 with h5py"; exit 77; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$nsm" generate sbm "$place/sbm.h5" nodes=400 features=16 -q >/dev/null
"$nsm" train gcn --data "$place/sbm.h5" --out "$place/run" epochs=30 row_normalize=false charts=false -q >/dev/null
"$PYTHON" "$src/doc/read_h5.py" "$place/sbm.h5" "$place/run/checkpoint-30.h5"
