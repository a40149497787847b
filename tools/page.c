/* page.c - See page.h. */
#include "tools/page.h"
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "tools/utf8.h"

enum { COLUMNS_MOST = 64 };

struct page {
    FILE *f;
    char *text;
    size_t bytes;
    bool section, article;
    enum { BETWEEN, HEAD, BODY } table;
    int columns, at; /* of the table; the next cell's */
    bool numbers[COLUMNS_MOST];
};

/* Colours that colour-blind readers can tell apart; a dark page has lighter ones. */
static const char style[] =
    ":root{color-scheme:light dark;--ink:#1f2933;--soft:#5f6c7b;--line:#e2e6eb;--paper:#fff;"
    "--panel:#f6f8fa;--graph:#0072b2;--text:#00876c;--picture:#c4501b;--state:#7559a6;"
    "--right:#17794a;--wrong:#b3261e}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e3e8ee;--soft:#9aa7b5;--line:#2c3540;"
    "--paper:#12171d;--panel:#1a2129;--graph:#5db3ea;--text:#3fc7a4;--picture:#f0905c;"
    "--state:#b79ce4;--right:#5cc98d;--wrong:#f28b82}}\n"
    "body{font:15px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--paper);"
    "margin:2.5rem auto;max-width:66rem;padding:0 1.25rem;overflow-wrap:anywhere}\n"
    "h1{font-size:1.7rem;line-height:1.25;margin:0 0 .4rem;letter-spacing:-.01em}\n"
    "h2{font-size:1.2rem;margin:2.8rem 0 .8rem;padding-top:.9rem;"
    "border-top:1px solid var(--line)}\n"
    "h3{font-size:1rem;margin:0 0 .3rem}h4{font-size:.85rem;font-weight:600;color:var(--soft);"
    "margin:1.4rem 0 .4rem}\n"
    "p{margin:.4rem 0;max-width:46rem}header p,.soft{color:var(--soft)}\n"
    "article{background:var(--panel);border:1px solid var(--line);border-radius:10px;"
    "padding:1rem 1.2rem 1.2rem;margin:1rem 0}\n"
    ".wide{overflow-x:auto}.row{display:flex;flex-wrap:wrap;gap:.6rem 3rem;margin-top:.8rem}"
    ".row>*{min-width:0;max-width:100%}\n"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;white-space:nowrap}\n"
    "th,td{padding:.3em 1em .3em 0;text-align:left;border-bottom:1px solid var(--line)}\n"
    "th{color:var(--soft);font-weight:600}td.n,th.n{text-align:right}\n"
    "img{max-width:100%;height:auto;background:#fff}summary{cursor:pointer;color:var(--soft)}\n"
    "pre{background:var(--panel);padding:1em;overflow-x:auto;font-size:13px;line-height:1.45}\n"
    "svg{display:block;max-width:none;font:12px system-ui,sans-serif;"
    "font-variant-numeric:tabular-nums}\n"
    "svg text{fill:var(--ink)}svg .soft{fill:var(--soft)}svg .axis{stroke:var(--line);fill:none}\n"
    ".graph{--c:var(--graph)}.text{--c:var(--text)}.picture{--c:var(--picture)}"
    ".state{--c:var(--state)}.none{--c:var(--soft)}\n"
    "svg .bar,svg .cell{fill:var(--c)}svg .edge{fill:var(--c);fill-opacity:.32}"
    "svg .edge:hover{fill-opacity:.7}svg .line{stroke:var(--c);fill:none;stroke-width:2}"
    "svg .opened{stroke:var(--ink);fill:none;stroke-width:1.5}\n"
    ".badge{border-radius:4px;padding:.05em .45em;font-size:.8rem;font-weight:600;"
    "border:1px solid currentColor;vertical-align:.1em}"
    ".badge.right{color:var(--right)}.badge.wrong{color:var(--wrong)}\n"
    ".key{color:var(--c);font-weight:600}.words{line-height:2.1;max-width:46rem}\n"
    ".words span{border-radius:3px;padding:.12em .28em;"
    "background:color-mix(in srgb,var(--c) calc(var(--w)*1%),transparent)}\n";

/* ---- text ---- */
static void put_character(FILE *f, const char *s, int bytes)
{
    if (bytes == 0 || (bytes == 1 && (unsigned char)*s < 32 && !strchr("\n\t", *s)) || *s == 127)
        fputs("\xef\xbf\xbd", f);
    else if (*s == '<') fputs("&lt;", f);
    else if (*s == '>') fputs("&gt;", f);
    else if (*s == '&') fputs("&amp;", f);
    else if (*s == '"') fputs("&quot;", f);
    else fwrite(s, 1, (size_t)bytes, f);
}

void page_escape(FILE *f, const char *text, int most)
{
    for (int n = 0; *text; n++) {
        int bytes = utf8_bytes(text), step = bytes ? bytes : 1;
        if (most >= 0 && n + 1 >= most && text[step]) {
            fputs("\xe2\x80\xa6", f); /* an ellipsis */
            return;
        }
        put_character(f, text, bytes);
        text += step;
    }
}

static void put_element(FILE *f, const char *name, const char *text)
{
    fprintf(f, "<%s>", name);
    page_escape(f, text, -1);
    fprintf(f, "</%s>\n", name);
}

/* ---- blocks ---- */
static void end_table(page *p)
{
    if (p->table)
        fprintf(p->f, "</tr></%s></table></div>\n", p->table == HEAD ? "thead" : "tbody");
    p->table = BETWEEN;
}

static void end_article(page *p)
{
    end_table(p);
    if (p->article) fputs("</article>\n", p->f);
    p->article = false;
}

static void end_section(page *p)
{
    end_article(p);
    if (p->section) fputs("</section>\n", p->f);
    p->section = false;
}

page *page_new(const char *title, const char *about)
{
    page *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->f = open_memstream(&p->text, &p->bytes);
    if (!p->f) {
        free(p);
        return NULL;
    }
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>\n",
          p->f);
    put_element(p->f, "title", title);
    fprintf(p->f, "<style>%s</style></head><body>\n<header>", style);
    put_element(p->f, "h1", title);
    put_element(p->f, "p", about);
    fputs("</header>\n", p->f);
    return p;
}

void page_section(page *p, const char *title)
{
    if (!p) return;
    end_section(p);
    fputs("<section>", p->f);
    put_element(p->f, "h2", title);
    p->section = true;
}

void page_article(page *p, const char *title)
{
    if (!p) return;
    end_article(p);
    fputs("<article>", p->f);
    put_element(p->f, "h3", title);
    p->article = true;
}

void page_say(page *p, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    if (!p) return;
    end_table(p);
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0) text = NULL;
    va_end(args);
    put_element(p->f, "p", text ? text : "");
    free(text);
}

FILE *page_markup(page *p)
{
    if (!p) return NULL;
    end_table(p);
    return p->f;
}

/* ---- tables ---- */
void page_head(page *p, const char *title, bool numbers)
{
    if (!p) return;
    if (p->table != HEAD) {
        end_table(p);
        p->columns = 0;
        fputs("<div class=\"wide\"><table><thead><tr>\n", p->f);
    }
    p->table = HEAD;
    if (p->columns < COLUMNS_MOST) p->numbers[p->columns++] = numbers;
    fputs(numbers ? "<th class=\"n\">" : "<th>", p->f);
    page_escape(p->f, title, -1);
    fputs("</th>\n", p->f);
}

void page_row(page *p)
{
    if (!p) return;
    fputs(p->table == HEAD   ? "</tr></thead><tbody><tr>\n"
          : p->table == BODY ? "</tr><tr>\n"
                             : "<div class=\"wide\"><table><tbody><tr>\n",
          p->f);
    if (p->table == BETWEEN) p->columns = 0;
    p->table = BODY;
    p->at = 0;
}

static void begin_cell(page *p)
{
    bool number = p->at < p->columns && p->numbers[p->at];
    p->at++;
    fputs(number ? "<td class=\"n\">" : "<td>", p->f);
}

void page_cell(page *p, const char *text)
{
    if (!p) return;
    begin_cell(p);
    page_escape(p->f, text, -1);
    fputs("</td>\n", p->f);
}

void page_number(page *p, double value, int digits)
{
    if (!p) return;
    begin_cell(p);
    if (isfinite(value))
        fprintf(p->f, "<data value=\"%.9g\">%.*f</data></td>\n", value, digits, value);
    else fputs("\xe2\x80\x93</td>\n", p->f);
}

/* ---- pictures and texts ---- */
void page_base64(FILE *f, const void *bytes, size_t count)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *b = bytes;
    for (size_t i = 0; i < count; i += 3) {
        size_t n = count - i < 3 ? count - i : 3;
        uint32_t v = (uint32_t)b[i] << 16 | (n > 1 ? (uint32_t)b[i + 1] << 8 : 0) |
                     (n > 2 ? b[i + 2] : 0);
        for (size_t k = 0; k < 4; k++) fputc(k <= n ? digit[v >> (18 - 6 * k) & 63] : '=', f);
    }
}

void page_picture(page *p, const char *title, const char *path)
{
    unsigned char buf[3 * 1024]; /* three bytes are four digits: pieces need no filling */
    FILE *from = p && *path ? fopen(path, "rb") : NULL;
    if (!from) return;
    end_table(p);
    put_element(p->f, "h2", title);
    fputs("<img alt=\"", p->f);
    page_escape(p->f, title, -1);
    fputs("\" src=\"data:image/png;base64,", p->f);
    for (size_t n; (n = fread(buf, 1, sizeof buf, from)) > 0;) page_base64(p->f, buf, n);
    fputs("\"/>\n", p->f);
    fclose(from);
}

void page_text(page *p, const char *title, const char *text)
{
    if (!p) return;
    end_table(p);
    put_element(p->f, "h2", title);
    put_element(p->f, "pre", text);
}

void page_fold(page *p, const char *title, const char *text)
{
    if (!p) return;
    end_table(p);
    fputs("<details>", p->f);
    put_element(p->f, "summary", title);
    put_element(p->f, "pre", text);
    fputs("</details>\n", p->f);
}

char *page_end(page *p)
{
    if (!p) return NULL;
    end_section(p);
    fputs("</body></html>\n", p->f);
    bool ok = !ferror(p->f);
    ok = fclose(p->f) == 0 && ok;
    char *text = p->text;
    free(p);
    if (ok) return text;
    free(text);
    return NULL;
}
