/* fused_parts.h - What the files of the fused task share.
 *
 *   fused.c          making, training, scores
 *   fused_batch.c    from a sampled batch to what the model takes, and its logits
 *   fused_heads.c    what is asked of a batch, by head
 *   fused_explain.c  what its answers rest on, measured
 *   fused_sides.c    one side of a thing found by the other
 *   fused_look.c     what it did with single things, and how its states are used */
#ifndef TOOLS_FUSED_PARTS_H
#define TOOLS_FUSED_PARTS_H
#include "base/internal.h"
#include "fusion/retrieval.h"
#include "tools/fused.h"
#include "tools/fused_input.h"

/* How well one side of a part's things is found by the other. */
enum { FUSED_RECALLS = 3 };
typedef struct {
    double mrr, recall[FUSED_RECALLS], median; /* rank */
} fused_found;

/* Of words with classes: those told to be of another than the first, those that are, and both. */
typedef struct {
    double told, there, right;
} fused_marks;

struct fused_task {
    task base;
    nsm_ctx *ctx;
    const train_options *options;
    const nsm_dataset *ds;
    const nsm_dataset_split *split;
    fused_data data;
    bool graph, text, picture, questions, whole;
    bool graphs;             /* the things are graphs, their elements all of their nodes */
    nsm_fused_head head;
    nsm_module module;       /* the model, and what it last told */
    nsm_fused *model;
    nsm_retrieval *retrieval; /* it holds the model, which learns sides; NULL: answers */
    unsigned side[2];        /* bits of the modalities of each */
    fused_found found[NSM_SPLIT_PARTS][2]; /* side 1 by side 0, and the other way */
    nsm_graph *all;          /* the whole graph; NULL where neighbours are sampled */
    nsm_tensor *x;           /* features: of the whole graph, or of a batch's nodes */
    nsm_csr *x_rows;
    nsm_tape *tape, *node_tape; /* node_tape: what every batch of an evaluation reads */
    nsm_sampler *sampler;    /* of the training nodes, from the first epoch on */
    int fan_out[SETTING_LIST_MOST];
    int layers;              /* of a sampled batch: blocks */
    nsm_tensor *told;        /* [targets, C] what was last told of each, zeros: nothing; or NULL */
    float *guess;            /* host copy of it */
    uint8_t *known;          /* [targets] 1: of the training part */
    int32_t *look[NSM_SPLIT_PARTS]; /* the nodes of each part, as numbers of all, */
    int64_t looks[NSM_SPLIT_PARTS]; /* how many: those that have both sides, with sides */
    struct { double right; int64_t asked; } *by_group; /* of the test part */
    fused_marks marks;       /* of the test part, with tokens */
    /* [things, places of all modalities] 1: taken away from what the model sees; NULL: nothing
     * is */
    const uint8_t *gone;
    bool forget;             /* the things that are asked for show nothing, not even a guess */
};

/* One batch on a tape. */
typedef struct {
    const nsm_batch *from;
    int64_t things, readers;
    nsm_fused_input in;
    nsm_tensor *target;      /* int32 [things * readers], -1 where nothing is asked */
    int32_t *answer, *group; /* the same on the host; group: of each, NULL without */
    int64_t choices;         /* an answer is one of so many: classes, or places of the graph */
    int32_t *element, *elements; /* of the graph, as in has them, on the host */
    /* Elements of each thing side by side: so many places of the graph, of words, of the
     * picture. */
    int64_t places[FUSED_MODALITIES];
} fused_batch;

/* ---- fused_batch.c ---- */
int64_t fused_target(const fused_task *s,
                     int64_t node); /* of the target type; -1: it is another's */
/* Every node's embedding, of the whole graph, the classes of this batch's things hidden. */
nsm_tensor *fused_whole_nodes(fused_task *s, nsm_tape *tape, const nsm_batch *hide);
/* Logits [things * readers, choices] of a batch on s->tape; h: the whole graph's nodes, or NULL:
 * they are sampled, the things' own classes hidden.  With s->gone, f->places are those of the call
 * before, of the same batch, by which it is laid out. */
nsm_tensor *fused_logits(fused_task *s, const nsm_batch *b, nsm_tensor *h, fused_batch *f);
void fused_end_step(fused_task *s); /* resets s->tape */
/* What the model takes of a batch, without what is asked. */
void fused_lay_out(fused_task *s, const nsm_batch *b, nsm_tensor *h, fused_batch *f);
int64_t fused_places(const fused_batch *f); /* of all modalities */
/* The reader of thing i that is looked at: of those that are asked number `turn` modulo their
 * count; -1: nothing is asked. */
int64_t fused_reader(const fused_batch *f, int64_t i, int64_t turn);
/* `count` nodes of the test part (or all), of the target type, as the seed draws them; to be
 * freed. */
int32_t *fused_draw(const fused_task *s, uint64_t seed, int64_t *count);

/* ---- fused_heads.c ---- */
/* What `head` asks for, into s->head: does the data have it?  Then, with what is used chosen: does
 * that go with it? */
int fused_head_choose(fused_task *s);
int fused_head_check(const fused_task *s);
int64_t fused_outputs(const fused_task *s); /* classes, or the width of what is compared */
/* The modality that answers are of, which is not taken away; -1: none is. */
int fused_held(const fused_task *s);
bool fused_asked(const fused_task *s, int64_t thing); /* is anything asked of it? */
/* readers, answer, group, choices and the questions of a batch that is laid out. */
void fused_ask(fused_task *s, fused_batch *f);
void fused_mark(fused_marks *m, int32_t answer, int32_t told);
double fused_f1(const fused_marks *m);
void fused_head_details(const fused_task *s, json_t *o);

/* ---- fused.c ---- */
nsm_sampler *fused_sampler(fused_task *s, int64_t count, const int32_t *node, bool in_order,
                           uint64_t seed);
/* The whole graph's nodes once for all batches, on node_tape; NULL: they are sampled, or an
 * error. */
nsm_tensor *fused_nodes_for_looking(fused_task *s);

/* ---- fused_explain.c ---- */
/* Has it elements that can be taken away, and answers be left? */
bool fused_removable(const fused_task *s);

/* ---- fused_sides.c ---- */
/* What `sides` asks for, into s->side; both without it. */
int fused_sides_choose(fused_task *s);
/* NSM_EINVAL: it tells no class or answer, it finds sides. */
int fused_answers(const fused_task *s);
/* Has this node of the target type both sides? */
bool fused_sides_there(const fused_task *s, int64_t i);
nsm_tensor *fused_sides_loss(fused_task *s, const nsm_batch *b, nsm_tensor *h);
int fused_sides_evaluate(task *base, part_score part[3]);
void fused_sides_details(const fused_task *s, json_t *o);

#endif
