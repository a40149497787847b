#!/bin/sh
# Builds bench/gpu.c with one command of nvcc, from base/ and kernels/ and their tests, in any folder:
#   sh SOURCE/bench/gpu.sh [nvcc [option ...]]       leaves ./gpu
# EMULATE=1: by the C++ compiler, with the kernels emulated on the host (no nvcc), to see that the walk works.
set -eu
src=$(cd "$(dirname "$0")/.." && pwd)
sources=$(cd "$src" && echo base/context.c base/memory.c base/random.c base/tensor.c base/sparse.c base/typed.c base/tape.c base/module.c \
    base/init.c base/optimizer.c base/replay.c base/schedule.c base/metrics.c base/state.c base/ops/*.c kernels/cpu/*.c \
    tests/test.c tests/kernels/cases*.c bench/gpu_kernels.c bench/gpu_replay.c bench/gpu.c)
flags="-I$src/bench/bare -I$src -D_GNU_SOURCE -DNSMI_ISA=generic"
files=
for f in $sources; do files="$files $src/$f"; done
if test "${EMULATE-}"; then
    mkdir -p gpu.objects
    for f in $sources; do
        o=gpu.objects/$(echo "$f" | tr / _).o
        test "$o" -nt "$src/$f" || ${CC-cc} -O2 -w -fopenmp $flags -DNSM_EMULATE -c -o "$o" "$src/$f"
    done
    ${CXX-c++} -std=c++17 -O2 -w $flags -DNSM_EMULATE -c -o gpu.objects/emulate.o "$src/kernels/cuda/emulate.cc"
    ${CXX-c++} -fopenmp -o gpu gpu.objects/*.o -lpthread -lm -ldl
else
    nvcc=nvcc
    case ${1-} in
    '' | -*) ;;
    *) nvcc=$1; shift ;;
    esac
    # shellcheck disable=SC2086
    "$nvcc" -O3 $flags -Xcompiler -fopenmp,-fno-math-errno,-fno-trapping-math "$@" -o gpu $files "$src"/kernels/cuda/*.cu -lpthread -lm -ldl
fi
