# Every test program links the whole library with its internal names.  Threads that wait sleep: some
# tests ask for more of them than there are cores.
AM_TESTS_ENVIRONMENT = NSM_EXAMPLE_FLAGS='$(NSM_LDFLAGS)'; export NSM_EXAMPLE_FLAGS; top_srcdir='$(top_srcdir)' top_builddir='$(top_builddir)' OMP_WAIT_POLICY=passive; \
	export top_srcdir top_builddir OMP_WAIT_POLICY;
if NSM_EMULATION
NSM_EMULATED_LIBS = libnsmcuda_emulated.la
endif
NSM_TEST_LIBS = libnsmtest.la $(NSM_EMULATED_LIBS) libnsmall.la $(NSM_ALL_LIBS) $(CHECK_LIBS)

if HAVE_CHECK
check_LTLIBRARIES += libnsmtest.la
libnsmtest_la_SOURCES = %D%/test.h %D%/test.c
if HAVE_HDF5
libnsmtest_la_SOURCES += %D%/fixture.h %D%/fixture.c
check_PROGRAMS += %D%/oracle
EXTRA_DIST += %D%/fixtures
%C%_oracle_SOURCES = %D%/oracle.c %D%/oracle_losses.c %D%/oracle_optimizers.c %D%/oracle_primitives.c \
	%D%/oracle_parts.h %D%/oracle_model.h %D%/oracle_model.c %D%/oracle_seq.c %D%/oracle_linear.c %D%/oracle_scan.c \
	%D%/oracle_s4.c %D%/oracle_rwkv.c %D%/oracle_models.c %D%/oracle_memory.c %D%/oracle_fusion.c %D%/oracle_images.c
%C%_oracle_LDADD = libnsmtestgraph.la $(NSM_TEST_LIBS)
endif

check_PROGRAMS += %D%/base/test_tape
%C%_base_test_tape_LDADD = $(NSM_TEST_LIBS)
check_PROGRAMS += %D%/base/test_ops
%C%_base_test_ops_LDADD = $(NSM_TEST_LIBS)

check_PROGRAMS += %D%/base/test_optimizer %D%/base/test_replay %D%/base/test_schedule %D%/base/test_metrics
%C%_base_test_replay_LDADD = $(NSM_TEST_LIBS)
%C%_base_test_optimizer_LDADD = $(NSM_TEST_LIBS)
%C%_base_test_schedule_LDADD = $(NSM_TEST_LIBS)
%C%_base_test_metrics_LDADD = $(NSM_TEST_LIBS)
if HAVE_HDF5
check_PROGRAMS += %D%/base/test_checkpoint %D%/base/test_safetensors %D%/base/test_state
%C%_base_test_state_LDADD = $(NSM_TEST_LIBS)
%C%_base_test_checkpoint_LDADD = $(NSM_TEST_LIBS)
%C%_base_test_safetensors_LDADD = $(NSM_TEST_LIBS)
endif
endif

# ---- sequences ----
if HAVE_CHECK
if HAVE_HDF5
check_PROGRAMS += %D%/seq/test_mixers %D%/seq/test_forecaster %D%/seq/test_reader \
	%D%/seq/test_precision %D%/seq/test_steps
%C%_seq_test_mixers_LDADD = $(NSM_TEST_LIBS)
%C%_seq_test_forecaster_LDADD = $(NSM_TEST_LIBS)
%C%_seq_test_reader_LDADD = $(NSM_TEST_LIBS)
%C%_seq_test_precision_LDADD = $(NSM_TEST_LIBS)
%C%_seq_test_steps_LDADD = $(NSM_TEST_LIBS)
endif
endif

# ---- fusion ----
if HAVE_CHECK
if HAVE_HDF5
check_PROGRAMS += %D%/fusion/test_set %D%/fusion/test_perceiver %D%/fusion/test_fusers %D%/fusion/test_fused \
	%D%/fusion/test_retrieval
%C%_fusion_test_set_LDADD = $(NSM_TEST_LIBS)
%C%_fusion_test_perceiver_LDADD = $(NSM_TEST_LIBS)
%C%_fusion_test_fusers_LDADD = $(NSM_TEST_LIBS)
%C%_fusion_test_fused_LDADD = $(NSM_TEST_LIBS)
%C%_fusion_test_retrieval_LDADD = $(NSM_TEST_LIBS)
endif
endif

# ---- graphs ----
if HAVE_CHECK
check_LTLIBRARIES += libnsmtestgraph.la
libnsmtestgraph_la_SOURCES = %D%/graph/layer.h %D%/graph/layer.c
if HAVE_HDF5
libnsmtestgraph_la_SOURCES += %D%/oracle_graph.c
endif
check_PROGRAMS += %D%/graph/test_graph %D%/graph/test_gcn %D%/graph/test_gat %D%/graph/test_sage %D%/graph/test_rgcn %D%/graph/test_link \
	%D%/graph/test_gnn %D%/graph/test_sampler
%C%_graph_test_graph_LDADD = libnsmtestgraph.la $(NSM_TEST_LIBS)
%C%_graph_test_gcn_LDADD = libnsmtestgraph.la $(NSM_TEST_LIBS)
%C%_graph_test_gat_LDADD = libnsmtestgraph.la $(NSM_TEST_LIBS)
%C%_graph_test_sage_LDADD = libnsmtestgraph.la $(NSM_TEST_LIBS)
%C%_graph_test_link_LDADD = libnsmtestgraph.la $(NSM_TEST_LIBS)
%C%_graph_test_rgcn_LDADD = libnsmtestgraph.la $(NSM_TEST_LIBS)
%C%_graph_test_gnn_LDADD = libnsmtestgraph.la $(NSM_TEST_LIBS)
%C%_graph_test_sampler_LDADD = libnsmtestgraph.la $(NSM_TEST_LIBS)
if HAVE_IGRAPH
check_PROGRAMS += %D%/graph/test_igraph
%C%_graph_test_igraph_LDADD = libnsmtestgraph.la $(NSM_TEST_LIBS)
endif
endif

# ---- the program ----
if HAVE_HDF5
check_PROGRAMS += %D%/tools/check_trace %D%/tools/make_pairs
%C%_tools_make_pairs_LDADD = libnsmall.la $(NSM_ALL_LIBS)
%C%_tools_check_trace_LDADD = libnsmall.la $(NSM_ALL_LIBS)
if NSM_EMULATION
check_PROGRAMS += %D%/tools/nsm_emulated
%C%_tools_nsm_emulated_LDADD = libnsmtools.la libnsmbench.la $(PLPLOT_LIBS) $(NSM_EMULATED_LIBS) libnsmall.la $(NSM_ALL_LIBS)
endif
if HAVE_CHECK
check_PROGRAMS += %D%/tools/test_tools %D%/tools/test_link
%C%_tools_test_link_LDADD = libnsmtools.la libnsmbench.la $(PLPLOT_LIBS) $(NSM_TEST_LIBS)
%C%_tools_test_tools_LDADD = libnsmtools.la libnsmbench.la $(PLPLOT_LIBS) $(NSM_TEST_LIBS)
endif
TESTS += %D%/tools/cli.sh %D%/tools/manual.sh %D%/tools/models.sh %D%/tools/sampled.sh %D%/tools/relations.sh %D%/tools/fused.sh %D%/tools/heads.sh %D%/tools/retrieve.sh %D%/tools/report.sh %D%/tools/labels.sh %D%/tools/links.sh \
	%D%/tools/resume.sh %D%/tools/sequences.sh %D%/tools/tasks.sh %D%/tools/compare.sh %D%/tools/trace.sh %D%/tools/pictures.sh %D%/tools/emulated.sh
endif
EXTRA_DIST += %D%/tools/common.sh %D%/tools/cli.sh %D%/tools/manual.sh %D%/tools/models.sh %D%/tools/sampled.sh %D%/tools/relations.sh %D%/tools/fused.sh %D%/tools/heads.sh %D%/tools/retrieve.sh %D%/tools/report.sh %D%/tools/links.sh \
	%D%/tools/labels.sh %D%/tools/resume.sh %D%/tools/sequences.sh %D%/tools/tasks.sh %D%/tools/compare.sh %D%/tools/trace.sh %D%/tools/pictures.sh %D%/tools/emulated.sh

# ---- the examples, against the installed library ----
if HAVE_HDF5
TESTS += %D%/examples.sh
endif
TESTS += %D%/read_h5.sh
EXTRA_DIST += %D%/examples.sh %D%/read_h5.sh

# ---- datasets ----
if HAVE_HDF5
check_PROGRAMS += %D%/datasets/fuzz_readers
%C%_datasets_fuzz_readers_SOURCES = %D%/datasets/fuzz_readers.c %D%/datasets/sample.h %D%/datasets/sample.c \
	%D%/datasets/sample_picture.h %D%/datasets/sample_picture.c
%C%_datasets_fuzz_readers_LDADD = libnsmall.la $(NSM_ALL_LIBS)
if HAVE_CHECK
check_PROGRAMS += %D%/datasets/test_datasets
%C%_datasets_test_datasets_SOURCES = %D%/datasets/test_datasets.c %D%/datasets/sample.h %D%/datasets/sample.c
%C%_datasets_test_datasets_LDADD = $(NSM_TEST_LIBS)
if HAVE_TOKENIZERS
check_PROGRAMS += %D%/datasets/test_tokenizer
%C%_datasets_test_tokenizer_SOURCES = %D%/datasets/test_tokenizer.c %D%/datasets/sample.h %D%/datasets/sample.c
%C%_datasets_test_tokenizer_LDADD = $(NSM_TEST_LIBS)
endif
check_PROGRAMS += %D%/datasets/test_pictures
%C%_datasets_test_pictures_SOURCES = %D%/datasets/test_pictures.c %D%/datasets/sample.h %D%/datasets/sample.c \
	%D%/datasets/sample_picture.h %D%/datasets/sample_picture.c
%C%_datasets_test_pictures_LDADD = $(NSM_TEST_LIBS)
check_PROGRAMS += %D%/datasets/test_emoji
%C%_datasets_test_emoji_SOURCES = %D%/datasets/test_emoji.c %D%/datasets/sample.h %D%/datasets/sample.c
%C%_datasets_test_emoji_LDADD = $(NSM_TEST_LIBS)
check_PROGRAMS += %D%/datasets/test_sequences
%C%_datasets_test_sequences_SOURCES = %D%/datasets/test_sequences.c %D%/datasets/sample.h %D%/datasets/sample.c
%C%_datasets_test_sequences_LDADD = $(NSM_TEST_LIBS)
endif
endif

# ---- the kernel table, on every instruction set ----
if HAVE_CHECK
check_PROGRAMS += %D%/kernels/test_backend
%C%_kernels_test_backend_SOURCES = %D%/kernels/test_backend.c %D%/kernels/cases.h %D%/kernels/cases.c \
	%D%/kernels/cases_dense.c %D%/kernels/cases_elementwise.c %D%/kernels/cases_graph.c %D%/kernels/cases_sequence.c \
	%D%/kernels/cases_recurrence.c %D%/kernels/cases_memory.c %D%/kernels/cases_pool.c %D%/kernels/cases_images.c
%C%_kernels_test_backend_LDADD = $(NSM_TEST_LIBS)
if NSM_EMULATION
check_PROGRAMS += %D%/kernels/test_mma
%C%_kernels_test_mma_SOURCES = %D%/kernels/test_mma.cc
%C%_kernels_test_mma_CPPFLAGS = $(AM_CPPFLAGS) -DNSM_EMULATE
%C%_kernels_test_mma_CXXFLAGS = $(NSM_CXXFLAGS) -Wno-unused-function
%C%_kernels_test_mma_LDADD = $(NSM_TEST_LIBS)
TESTS += %D%/kernels/emulated.sh
endif
endif
EXTRA_DIST += %D%/kernels/emulated.sh

# ---- vision ----
if HAVE_CHECK
check_PROGRAMS += %D%/vision/test_vision
%C%_vision_test_vision_LDADD = $(NSM_TEST_LIBS)
endif
