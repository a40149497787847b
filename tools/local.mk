# The program.  All but main.c is a library of its own, so that tests link it.
if HAVE_HDF5
bin_PROGRAMS += nsm
noinst_LTLIBRARIES += libnsmtools.la
libnsmtools_la_SOURCES = %D%/tool.h %D%/tool.c %D%/utf8.h %D%/options.c %D%/nearest.h %D%/nearest.c %D%/settings.h %D%/settings.c \
	%D%/report.h %D%/report.c %D%/progress.h %D%/progress.c %D%/events.h %D%/events.c %D%/run.h %D%/run.c \
	%D%/charts.h %D%/paper.h %D%/paper.c %D%/chart_curves.c %D%/chart_map.c %D%/chart_classes.c %D%/chart_graph.c \
	%D%/pictures.h %D%/pictures.c %D%/summary.h %D%/summary.c \
	%D%/recipe.h %D%/recipe.c %D%/trainer.h %D%/trainer.c %D%/batches.h %D%/batches.c %D%/node.h %D%/node_parts.h \
	%D%/node.c %D%/node_data.c %D%/node_train.c %D%/node_look.c %D%/node_trial.c \
	%D%/sequence.h %D%/sequence.c %D%/sequence_parts.h %D%/task_tokens.c %D%/task_forecast.c %D%/task_qa.c %D%/task_bits.c %D%/sample.c %D%/train.c %D%/bench.c %D%/link.h %D%/link_parts.h %D%/link.c %D%/link_fused.c \
	%D%/fused.h %D%/fused_parts.h %D%/fused.c %D%/fused_batch.c %D%/fused_heads.c %D%/fused_explain.c %D%/fused_look.h %D%/fused_look.c %D%/fused_sides.c %D%/fused_data.h %D%/fused_data.c %D%/fused_input.h %D%/fused_input.c %D%/model.h %D%/model.c %D%/eval.c %D%/predict.c %D%/export.c \
	%D%/compare.h %D%/compare.c %D%/compare_match.c %D%/compare_jobs.c %D%/compare_work.c %D%/compare_explain.c %D%/compare_scaling.c \
	%D%/compare_table.c %D%/page.h %D%/page.c %D%/trace.c %D%/figure.h %D%/figure.c %D%/inside.h %D%/inside.c %D%/inside_example.c \
	%D%/import.c %D%/generate.c %D%/split.c %D%/info.c %D%/plot.c
nsm_SOURCES = %D%/main.c
nsm_LDADD = libnsmtools.la libnsmbench.la libnsmall.la $(PLPLOT_LIBS) $(NSM_ALL_LIBS)
endif
