/* tests/datasets/test_tokenizer.c - Tokenizers against what Hugging Face's library (tokenizers
 * 0.23) gave for texts that are hard to cut (tests/fixtures/tokenizers/cases.json): byte-level BPE
 * of GPT-2's pattern and of another, WordPiece with and without capitals; files that are no
 * tokenizers; a damaged file; every allocation fails in turn.
 *
 * The fixture's files were trained on a few lines in many scripts; cases.json has, for each text,
 * the tokens of each file. */
#include "config.h"
#include <jansson.h>
#include "datasets/tokenizer.h"
#include "tests/datasets/sample.h"
#include "tests/test.h"

static nsm_ctx *ctx;

static const char *fixture(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/tests/fixtures/tokenizers/%s", test_srcdir(), name);
    return path;
}

static json_t *cases_of(void)
{
    json_t *cases = json_load_file(fixture("cases.json"), JSON_ALLOW_NUL, NULL);
    ck_assert(json_array_size(cases) > 80);
    return cases;
}

/* Every text becomes the tokens that stand under `name`. */
static void check_tokens(const char *file, bool lowercase, const char *name)
{
    json_t *cases = cases_of(), *one;
    nsm_tokenizer *t = nsm_tokenizer_load(ctx, fixture(file), lowercase);
    size_t i;
    ck_ok(ctx);
    json_array_foreach(cases, i, one) {
        json_t *text = json_object_get(one, "text"), *want = json_object_get(one, name);
        int64_t n;
        int32_t *id = nsm_tokenizer_encode(t, json_string_value(text),
                                           (int64_t)json_string_length(text), &n);
        ck_ok(ctx);
        bool same = n == (int64_t)json_array_size(want);
        for (int64_t k = 0; same && k < n; k++)
            same = id[k] == json_integer_value(json_array_get(want, (size_t)k));
        ck_assert_msg(same, "%s: text %zu, \"%.60s\", is cut otherwise", file, i,
                      json_string_value(text));
        free(id);
    }
    json_decref(cases);
    nsm_tokenizer_free(t);
}

START_TEST(tokens)
{
    ctx = nsm_ctx_new(NULL);
    check_tokens("vocab.json", true, "vocab.json");
    check_tokens("split.json", true, "split.json");
    check_tokens("wordpiece.json", true, "wordpiece.json");
    check_tokens("vocab.txt", true, "wordpiece.json");
    check_tokens("cased.json", true, "cased.json");
    nsm_ctx_free(ctx);
}
END_TEST

/* What tokens of `file` read as stands under `back`; bytes that are no UTF-8 do not occur. */
static void check_text(const char *file, const char *name, const char *back)
{
    json_t *cases = cases_of(), *one;
    nsm_tokenizer *t = nsm_tokenizer_load(ctx, fixture(file), true),
                  *again = nsm_tokenizer_parse(ctx, nsm_tokenizer_text(t), "again");
    size_t i;
    ck_ok(ctx);
    ck_assert_int_eq(nsm_tokenizer_vocab(t), nsm_tokenizer_vocab(again));
    json_array_foreach(cases, i, one) {
        json_t *want = json_object_get(one, back), *ids = json_object_get(one, name);
        int64_t n = (int64_t)json_array_size(ids), bytes, done = 0;
        int32_t *id = malloc((size_t)n * sizeof *id + 1);
        for (int64_t k = 0; k < n; k++)
            id[k] = (int32_t)json_integer_value(json_array_get(ids, (size_t)k));
        char *text = nsm_tokenizer_decode(again, id, n, true, &bytes);
        ck_ok(ctx);
        ck_assert_msg(bytes == (int64_t)json_string_length(want) &&
                          !memcmp(text, json_string_value(want), (size_t)bytes),
                      "%s: text %zu comes back as \"%s\"", file, i, text);
        for (int64_t k = 0; k < n; k++) { /* one token at a time it is the same */
            int64_t more;
            char *piece = nsm_tokenizer_decode(t, id + k, 1, k == 0, &more);
            ck_assert(done + more <= bytes && !memcmp(text + done, piece, (size_t)more));
            done += more;
            free(piece);
        }
        ck_assert(done == bytes);
        free(text);
        free(id);
    }
    json_decref(cases);
    nsm_tokenizer_free(t);
    nsm_tokenizer_free(again);
}

START_TEST(texts)
{
    ctx = nsm_ctx_new(NULL);
    check_text("vocab.json", "vocab.json", "back");
    check_text("wordpiece.json", "wordpiece.json", "words");
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(malformed)
{
    static const struct { const char *file, *text, *says;
    } cases[] = {
        { "t.json", "{\n\"model\": {\n,", "t.json:3: " },
        { "t.json", "[]", "merges.txt: " },
        { "t.json", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}",
          "the model \"Unigram\" is not known here" },
        { "t.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}",
          "the model has no vocabulary" },
        { "t.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}",
          "the token \"a\" has no number" },
        { "t.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
          "BPE without ByteLevel is not known" },
        { "t.json",
          "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{"
          "\"a\":0},\"merges\":[\"a a\"]}}",
          "merge 1 is no pair of tokens that join to a token: \"a\" \"a\"" },
        { "t.json",
          "{\"pre_tokenizer\":{\"type\":\"Metaspace\"},\"model\":{\"type\":\"BPE\",\"vocab\":{"
          "\"a\":0},\"merges\":[]}}",
          "the pre_tokenizer \"Metaspace\" is not known here" },
        { "t.json",
          "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Nmt\"}]},\"pre_"
          "tokenizer\":{\"type\":\"ByteLevel\"},"
          "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
          "the normalizer \"Nmt\" is not known here" },
        { "t.json",
          "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a(\"},\"behavior\":"
          "\"Isolated\"},\"model\":{\"type\":\"WordPiece\",\"vocab\":"
          "{\"[UNK]\":0}}}",
          "the pattern \"a(\": missing closing parenthesis" },
        { "t.json",
          "{\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"model\":{\"type\":\"WordPiece\","
          "\"vocab\":{\"a\":0}}}",
          "the token for unknown words" },
        { "vocab.txt", "[UNK]\na\na\n", "vocab.txt:3: the token \"a\" stands twice" },
        { "vocab.txt", "[UNK]\n\xff\n", "vocab.txt:2: the token is not UTF-8" },
        { "vocab.json", "{\"a\":0}", "merges.txt: No such file" },
    };
    ctx = nsm_ctx_new(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sample_folder_remove();
        sample_write(sample_path("%s", cases[i].file), cases[i].text, strlen(cases[i].text));
        nsm_tokenizer *t = nsm_tokenizer_load(ctx, sample_path("%s", cases[i].file), true);
        ck_assert_msg(!t && strstr(nsm_error_message(ctx), cases[i].says),
                      "case %zu: want \"%s\", have \"%s\"", i, cases[i].says,
                      nsm_error_message(ctx));
        nsm_error_clear(ctx);
    }
    sample_write(sample_path("vocab.json"), "{\"a\":0,\"b\":1,\"ab\":2}", 20);
    sample_write(sample_path("merges.txt"), "#version: 0.2\na b\nab\n", 20);
    ck_assert(!nsm_tokenizer_load(ctx, sample_path("vocab.json"), true) &&
              strstr(nsm_error_message(ctx), "merges.txt:3: \"ab\" is no pair"));
    nsm_error_clear(ctx);
    nsm_tokenizer *t = nsm_tokenizer_load(ctx, fixture("vocab.json"), true);
    int64_t n;
    ck_assert(!nsm_tokenizer_encode(t, "ab\xff", 3, &n) &&
              strstr(nsm_error_message(ctx), "byte 2 of the text is not UTF-8"));
    ck_error(ctx, NSM_EFORMAT);
    ck_assert(!nsm_tokenizer_decode(t, (int32_t[]){ 1 << 20 }, 1, true, &n));
    ck_error(ctx, NSM_EINVAL);
    nsm_tokenizer_free(t);
    nsm_ctx_free(ctx);
    sample_folder_remove();
}
END_TEST

/* a byte changed anywhere: an error that says something, or a tokenizer that works */
START_TEST(damaged)
{
    size_t bytes;
    char *whole = sample_read(fixture("split.json"), &bytes), *copy = malloc(bytes + 1);
    uint32_t state = 1;
    ctx = nsm_ctx_new(NULL);
    for (int i = 0; i < 400; i++) {
        int64_t n;
        memcpy(copy, whole, bytes);
        copy[bytes] = 0;
        for (int k = 0; k < 2; k++) state = state * 1664525 + 1013904223;
        copy[(state >> 4) % (i % 2 ? 700 : bytes)] = "\"{}[],:0a\\ntrue"[state >> 28];
        nsm_tokenizer *t = nsm_tokenizer_parse(ctx, copy, "damaged");
        ck_assert_msg(t || strlen(nsm_error_message(ctx)) > 12,
                      "input %d: neither a tokenizer nor an error", i);
        int32_t *id = t ? nsm_tokenizer_encode(t, "so it goes, 12 <mask>", 21, &n) : NULL;
        for (int64_t k = 0; id && k < n; k++)
            ck_assert(id[k] >= 0 && id[k] < nsm_tokenizer_vocab(t));
        free(id);
        nsm_tokenizer_free(t);
        nsm_error_clear(ctx);
    }
    nsm_ctx_free(ctx);
    free(whole);
    free(copy);
}
END_TEST

static void run(nsm_ctx *c)
{
    static const char *const file[] = { "vocab.json", "wordpiece.json" };
    for (int i = 0; i < 2; i++) {
        int64_t n, bytes;
        nsm_tokenizer *t = nsm_tokenizer_load(c, fixture(file[i]), true);
        int32_t *id = nsm_tokenizer_encode(t, "Über <|endoftext|> all.", 24, &n);
        free(nsm_tokenizer_decode(t, id, id ? n : 0, true, &bytes));
        free(id);
        nsm_tokenizer_free(t);
    }
}
START_TEST(memory)
{
    ctx = nsm_ctx_new(NULL);
    ck_assert(test_brutal(run, ctx) > 30);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("tokenizer",
                     (const TTest *const[]){ tokens, texts, malformed, damaged, memory, NULL });
}
