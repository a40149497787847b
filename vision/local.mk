# Encoders of images.
nobase_pkginclude_HEADERS += %D%/place.h %D%/image.h %D%/patch.h
libnsmall_la_SOURCES += %D%/internal.h %D%/place.c %D%/image.c %D%/patch.c
