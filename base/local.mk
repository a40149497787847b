nobase_pkginclude_HEADERS += %D%/context.h %D%/tensor.h %D%/sparse.h %D%/tape.h %D%/module.h %D%/options.h
libnsmall_la_SOURCES += %D%/internal.h %D%/context.c %D%/memory.c %D%/random.c %D%/tensor.c %D%/sparse.c %D%/typed.c \
	%D%/tape.c %D%/module.c %D%/init.c %D%/options.c
nobase_pkginclude_HEADERS += %D%/ops.h
libnsmall_la_SOURCES += %D%/ops/common.h %D%/ops/list.c %D%/ops/elementwise.c %D%/ops/linear.c %D%/ops/norm.c \
	%D%/ops/shape.c %D%/ops/loss.c %D%/ops/sparse.c %D%/ops/typed.c %D%/ops/sequence.c %D%/ops/rnn.c %D%/ops/recurrence.c
libnsmall_la_SOURCES += %D%/ops/memory.c %D%/ops/pool.c %D%/ops/image.c
if HAVE_HDF5
libnsmall_la_SOURCES += %D%/hdf5.h %D%/hdf5.c %D%/seal.h %D%/seal.c
endif

nobase_pkginclude_HEADERS += %D%/optimizer.h %D%/replay.h %D%/schedule.h %D%/metrics.h %D%/state.h
libnsmall_la_SOURCES += %D%/optimizer.c %D%/replay.c %D%/schedule.c %D%/metrics.c %D%/state.c
nobase_pkginclude_HEADERS += %D%/checkpoint.h %D%/safetensors.h
if HAVE_HDF5
libnsmall_la_SOURCES += %D%/checkpoint.c %D%/safetensors.c %D%/state_file.c
endif
