# The CPU kernels: the same files once for every instruction set, picked at run time.
NSM_CPU_SOURCES = %D%/cpu/cpu.h %D%/cpu/simd.h %D%/cpu/random.h %D%/cpu/rows.h %D%/cpu/dense.c %D%/cpu/gemm.c %D%/cpu/elementwise.c %D%/cpu/norm.c %D%/cpu/loss.c \
	%D%/cpu/optimizer.c %D%/cpu/sparse.c %D%/cpu/attention.c %D%/cpu/tile.h %D%/cpu/attend.c
NSM_CPU_SOURCES += %D%/cpu/conv1d.c %D%/cpu/decay.h %D%/cpu/recurrence.c
	%D%/cpu/optimizer.c %D%/cpu/sparse.c %D%/cpu/attention.c %D%/cpu/tile.h %D%/cpu/attend.c %D%/cpu/rnn.c
NSM_CPU_SOURCES += %D%/cpu/conv1d.c

libnsmall_la_SOURCES += %D%/backend.h %D%/philox.h %D%/cpu/backend.c
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
