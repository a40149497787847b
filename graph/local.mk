# Graphs and the layers over them.
nobase_pkginclude_HEADERS += %D%/graph.h %D%/attention.h %D%/gcn.h %D%/gat.h %D%/gatv2.h %D%/sage.h %D%/rgcn.h %D%/link.h %D%/gnn.h %D%/sampler.h %D%/pool.h
libnsmall_la_SOURCES += %D%/internal.h %D%/graph.c %D%/loops.c %D%/order.c %D%/hetero.c %D%/layer.c %D%/gcn.c %D%/gat.c \
	%D%/gatv2.c %D%/sage.c %D%/rgcn.c %D%/link.c %D%/types.c %D%/gnn.c %D%/pool.c %D%/sample.h %D%/sample.c %D%/sampler.c
if HAVE_IGRAPH
include_HEADERS += nsm-igraph.h
libnsmall_la_SOURCES += %D%/igraph.c
endif
