if HAVE_HDF5
nobase_pkginclude_HEADERS += %D%/dataset.h %D%/import.h %D%/generate.h %D%/info.h %D%/sequences.h %D%/tokenizer.h %D%/picture.h %D%/superpixels.h
libnsmall_la_SOURCES += %D%/internal.h %D%/dataset.c %D%/content.c %D%/store.c %D%/split.c %D%/info.c %D%/text.c %D%/options.c %D%/links.c %D%/triples.c \
	%D%/edges.c %D%/import.c %D%/ogb.c %D%/wordnet.c %D%/planted.h %D%/generate.c %D%/rmat.c %D%/sbm.c %D%/growth.c \
	%D%/tu.c %D%/words.h %D%/words.c %D%/csv.c %D%/graphfile.c %D%/child.c %D%/foreign.c %D%/sequences.c %D%/sequence_makers.c \
	%D%/sequence_parts.h %D%/sequence_text.c %D%/sequence_recall.c %D%/sequence_ntm.c %D%/sequence_listops.c %D%/sequence_pathfinder.c %D%/sequence_ett.c %D%/sequence_babi.c %D%/archive.c \
	%D%/picture_parts.h %D%/node_pictures.h %D%/node_pictures.c %D%/picture.c %D%/picture_png.c %D%/picture_jpeg.c %D%/idx.c %D%/emoji.c %D%/sort_of_clevr.c %D%/superpixels.c
if HAVE_TOKENIZERS
libnsmall_la_SOURCES += %D%/tokenizer_parts.h %D%/tokenizer.c %D%/tokenizer_bpe.c %D%/tokenizer_text.c
else
libnsmall_la_SOURCES += %D%/tokenizer_none.c
endif
endif
