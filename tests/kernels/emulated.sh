#!/bin/sh
# The CUDA kernels without a GPU: programs of this suite on the backend "emulated", which is the same .cu
# files compiled as C++ (kernels/cuda/emulate.h).
set -eu
NSM_BACKEND=emulated
export NSM_BACKEND
for program in kernels/test_backend base/test_ops base/test_optimizer base/test_replay base/test_state graph/test_graph \
    graph/test_gcn graph/test_gat graph/test_sage graph/test_gnn graph/test_sampler seq/test_precision seq/test_steps fusion/test_set fusion/test_fused; do
    "$top_builddir/tests/$program"
done
