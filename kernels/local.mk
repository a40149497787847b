# The CPU kernels: the same files once for every instruction set, picked at run time.
NSM_CPU_SOURCES = %D%/cpu/cpu.h %D%/cpu/simd.h %D%/cpu/random.h %D%/cpu/rows.h %D%/cpu/tile.h %D%/cpu/decay.h
NSM_CPU_SOURCES += %D%/cpu/dense.c %D%/cpu/gemm.c %D%/cpu/elementwise.c %D%/cpu/norm.c %D%/cpu/loss.c
NSM_CPU_SOURCES += %D%/cpu/optimizer.c %D%/cpu/sparse.c %D%/cpu/attention.c %D%/cpu/attend.c
NSM_CPU_SOURCES += %D%/cpu/rnn.c %D%/cpu/meeting.h
NSM_CPU_SOURCES += %D%/cpu/slots.c %D%/cpu/memory.c %D%/cpu/pool.c
NSM_CPU_SOURCES += %D%/cpu/conv1d.c %D%/cpu/recurrence.h %D%/cpu/recurrence.c %D%/cpu/shared_heads.c %D%/cpu/scan.c
NSM_CPU_SOURCES += %D%/cpu/conv2d.c %D%/cpu/image.c

libnsmall_la_SOURCES += %D%/backend.h %D%/philox.h %D%/update.h %D%/cpu/backend.c
libnsmall_la_LIBADD += libnsmcpu_generic.la
noinst_LTLIBRARIES += libnsmcpu_generic.la
libnsmcpu_generic_la_SOURCES = $(NSM_CPU_SOURCES)
libnsmcpu_generic_la_CPPFLAGS = $(AM_CPPFLAGS) -DNSMI_ISA=generic
if NSM_X86_64
libnsmall_la_LIBADD += libnsmcpu_avx2.la libnsmcpu_avx512.la
noinst_LTLIBRARIES += libnsmcpu_avx2.la libnsmcpu_avx512.la
libnsmcpu_avx2_la_SOURCES = $(NSM_CPU_SOURCES)
libnsmcpu_avx2_la_CPPFLAGS = $(AM_CPPFLAGS) -DNSMI_ISA=avx2
libnsmcpu_avx2_la_CFLAGS = $(AM_CFLAGS) -mavx2 -mfma -mf16c
libnsmcpu_avx512_la_SOURCES = $(NSM_CPU_SOURCES)
libnsmcpu_avx512_la_CPPFLAGS = $(AM_CPPFLAGS) -DNSMI_ISA=avx512
libnsmcpu_avx512_la_CFLAGS = $(AM_CFLAGS) -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mprefer-vector-width=512
endif

# The CUDA kernels: by nvcc into the library; and as C++ on the host, for tests.
NSM_CUDA_SOURCES = %D%/cuda/backend.cu %D%/cuda/copy.cu %D%/cuda/replay.cu %D%/cuda/gemm.cu %D%/cuda/elementwise.cu %D%/cuda/dense.cu %D%/cuda/norm.cu %D%/cuda/loss.cu \
	%D%/cuda/optimizer.cu %D%/cuda/sparse.cu %D%/cuda/gather.cu %D%/cuda/attention.cu %D%/cuda/attend.cu \
	%D%/cuda/attend_back.cu %D%/cuda/attend_rows.cu %D%/cuda/conv1d.cu \
	%D%/cuda/recurrence.cu %D%/cuda/recurrence_back.cu %D%/cuda/scan.cu %D%/cuda/rnn.cu \
	%D%/cuda/memory.cu %D%/cuda/slots.cu %D%/cuda/slots_back.cu %D%/cuda/pool.cu %D%/cuda/conv2d.cu %D%/cuda/image.cu
NSM_CUDA_INCLUDES = %D%/cuda/cuda.h %D%/cuda/mma.h %D%/cuda/attend.h %D%/cuda/chunk.h %D%/cuda/recurrence.h %D%/cuda/slots.h %D%/cuda/functions.h %D%/cuda/rows.h %D%/cuda/emulate.h
EXTRA_DIST += $(NSM_CUDA_SOURCES) $(NSM_CUDA_INCLUDES) %D%/cuda/emulate.cc %D%/cuda/nvcc
if HAVE_CUDA
NSM_CUDA_OBJECTS = $(NSM_CUDA_SOURCES:.cu=.lo)
libnsmall_la_LIBADD += $(NSM_CUDA_OBJECTS)
libnsmall_la_DEPENDENCIES = $(libnsmall_la_LIBADD)
CLEANFILES += %D%/cuda/*.lo %D%/cuda/*.o
$(NSM_CUDA_OBJECTS): $(NSM_CUDA_INCLUDES) %D%/backend.h %D%/philox.h %D%/update.h base/sparse.h %D%/cuda/nvcc
endif
SUFFIXES = .cu
AM_V_NVCC = $(AM_V_NVCC_@AM_V@)
AM_V_NVCC_ = $(AM_V_NVCC_@AM_DEFAULT_V@)
AM_V_NVCC_0 = @echo "  NVCC    " $@;
.cu.lo:
	$(AM_V_NVCC)$(MKDIR_P) $(@D) && $(LIBTOOL) $(AM_V_lt) --tag=CC --mode=compile $(SHELL) $(top_srcdir)/kernels/cuda/nvcc $(NVCC) \
		-std=c++17 $(NVCCFLAGS) $(CUDA_GENCODE) -I$(top_srcdir) -I$(top_builddir) \
		--compiler-options=-Wall,-Wextra,-Wno-missing-field-initializers,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics -c -o $@ $<
if NSM_EMULATION
check_LTLIBRARIES += libnsmcuda_emulated.la
libnsmcuda_emulated_la_SOURCES = %D%/cuda/emulate.cc
libnsmcuda_emulated_la_CPPFLAGS = $(AM_CPPFLAGS) -DNSM_EMULATE
libnsmcuda_emulated_la_CXXFLAGS = $(NSM_CXXFLAGS)
endif
