# One library of measurements, which the program's bench command links, and a program for each claim of its own.
noinst_LTLIBRARIES += libnsmbench.la
libnsmbench_la_SOURCES = %D%/gnn.h %D%/gnn.c %D%/limits.c %D%/mixer.h %D%/mixer.c %D%/fuser.h %D%/fuser.c
if HAVE_HDF5
noinst_PROGRAMS += %D%/bench_sampler
%C%_bench_sampler_LDADD = libnsmbench.la libnsmall.la $(NSM_ALL_LIBS)
endif
noinst_PROGRAMS += %D%/bench_fusers
%C%_bench_fusers_LDADD = libnsmbench.la libnsmall.la $(NSM_ALL_LIBS)

# A GPU against the CPU, by one command of nvcc and nothing else of this build (doc/cuda.md).
EXTRA_DIST += %D%/gpu.c %D%/gpu_kernels.c %D%/gpu_replay.c %D%/gpu.sh %D%/bare/check.h %D%/bare/cblas.h %D%/bare/config.h
CLEANFILES += gpu
.PHONY: gpu
gpu:
	$(AM_V_GEN)$(SHELL) $(srcdir)/%D%/gpu.sh $(NVCC) $(CUDA_GENCODE)
