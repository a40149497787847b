/* inside.h - nsm report: a page that looks inside a trained model.
 *
 *   inside.c          the command; the model, its states, what its answers rest on
 *   inside_example.c  one answer: its inputs, the states between, what came of them */
#ifndef TOOLS_INSIDE_H
#define TOOLS_INSIDE_H
#include "tools/fused_look.h"
#include "tools/model.h"
#include "tools/page.h"

typedef struct {
    tool *t;
    nsm_ctx *ctx;
    model m;
    page *page;
    const nsm_fuser *fuser;  /* of a fused model, else NULL */
    fused_view view;         /* of the test part */
} inside;

enum { INSIDE_NAME = 96 };   /* room for what has no name of its own */
/* Names: the data's own, or made in buf. */
const char *inside_answer(const fused_task *s, const fused_example *e, int64_t k,
                          char buf[INSIDE_NAME]);
/* of an element of a thing: "dog", "row 2 column 4" */
const char *inside_element(const fused_task *s, const fused_element *e, char buf[INSIDE_NAME]);
/* what the fuser calls one of its states: "latent" */
const char *inside_state(const nsm_fuser *fuser, char buf[INSIDE_NAME]);

/* A card. */
void inside_example(inside *in, const fused_example *e);

#endif
