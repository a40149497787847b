# Graphs and the layers over them.
nobase_pkginclude_HEADERS += %D%/graph.h %D%/attention.h %D%/gcn.h %D%/gat.h %D%/gatv2.h %D%/sage.h %D%/gnn.h
libnsmall_la_SOURCES += %D%/internal.h %D%/graph.c %D%/loops.c %D%/layer.c %D%/gcn.c %D%/gat.c %D%/gatv2.c %D%/sage.c \
	%D%/gnn.c
