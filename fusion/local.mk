# Fusion: several modalities in one pool of states.
nobase_pkginclude_HEADERS += %D%/set.h %D%/perceiver.h %D%/slot_attention.h
libnsmall_la_SOURCES += %D%/set.c %D%/set_parts.h %D%/parts.h %D%/parts.c %D%/perceiver.c %D%/slot_attention.c
nobase_pkginclude_HEADERS += %D%/fuser.h
libnsmall_la_SOURCES += %D%/fuser.c %D%/fuser_parts.h %D%/fuse_nsm.c %D%/fuse_perceiver.c %D%/fuse_slots.c \
	%D%/fuse_attention.c %D%/fuse_concat.c
nobase_pkginclude_HEADERS += %D%/fused.h %D%/retrieval.h
libnsmall_la_SOURCES += %D%/fused.c %D%/retrieval.c
