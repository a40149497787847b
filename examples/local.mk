# Programs to copy: built against the installed library and run by tests/examples.sh.
EXTRA_DIST += %D%/train_gcn.c %D%/custom_op.c
