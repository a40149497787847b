# Files of doc/.
dist_man_MANS += %D%/nsm.1
