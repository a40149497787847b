# Fusion: several modalities in one pool of states.
nobase_pkginclude_HEADERS += %D%/set.h %D%/perceiver.h %D%/slot_attention.h
libnsmall_la_SOURCES += %D%/set.c %D%/set_parts.h %D%/parts.h %D%/parts.c %D%/perceiver.c %D%/slot_attention.c
