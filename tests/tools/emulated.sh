#!/bin/sh
# Whole trainings on CUDA's kernels, emulated: passes are recorded and replayed there.  They learn what the
# CPU's learn, and one that is stopped and resumed ends with the same bits.
. "${top_srcdir:-.}/tests/tools/common.sh"
emulated=$(dirname "$nsm")/tests/tools/nsm_emulated
test -x "$emulated" || { echo "the emulation is not in this build"; exit 77; }

# alike FOLDER FOLDER: the losses and scores of their logs, to float32's rounding
alike() {
    cut -d, -f1-6 "$1/log.csv" | tr ',' '\n' >one
    cut -d, -f1-6 "$2/log.csv" | tr ',' '\n' | paste one - | awk -v of="$1" '
        $1 + 0 == $1 && ($1 - $2 > 1e-3 * ($1 > 1 ? $1 : 1) || $2 - $1 > 1e-3 * ($1 > 1 ? $1 : 1)) { print of ": " $1 " and " $2; bad = 1 }
        END { exit bad }' || fail "$1 is not $2"
}

gpu() { NSM_BACKEND=emulated "$emulated" train "$@" >/dev/null || fail "emulated: nsm train $*"; }

# both NAME EPOCHS SETTINGS...: on the CPU and emulated; and its last epochs once more, from a checkpoint
both() {
    name=$1 epochs=$2
    shift 2
    set -- "$@" -q charts=false epochs="$epochs" checkpoint_every=2
    "$nsm" train "$@" --out "$name-cpu" >/dev/null || fail "$name: on the CPU"
    gpu "$@" --out "$name-gpu"
    alike "$name-cpu" "$name-gpu"
    last=$(cd "$name-gpu" && ls checkpoint-*.h5 | sort -t- -k2n | tail -1)
    cp -r "$name-gpu" "$name-parts" && rm "$name-parts/$last"
    gpu "$@" --out "$name-parts" --resume
    cmp -s "$name-gpu/$last" "$name-parts/$last" || fail "$name: resumed, another checkpoint"
}

"$nsm" -q generate csbm graph.h5 nodes=200 features=8 >/dev/null || exit 1
"$nsm" -q generate mqar rows.h5 length=16 pairs=2 vocab=16 train=200 valid=16 test=16 >/dev/null || exit 1
both graph 12 gcn --data graph.h5 patience=0 hidden=8 dropout=0.3
both rows 4 recall --data rows.h5 mixer=transformer width=16 layers=1 batch_size=8 steps=10 dropout=0.1

exit $((failures > 0))
