# Files of doc/.
dist_man_MANS += %D%/nsm.1
EXTRA_DIST += %D%/cuda.md %D%/memory.md %D%/images.md %D%/speed.md %D%/set.md %D%/format.md %D%/read_h5.py
