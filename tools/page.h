/* page.h - A page of HTML that needs nothing beside itself: tables, pictures inside it, texts.
 *
 * What is written is XML as well, so that any parser can check it.  Text from data is escaped, and
 * what is no UTF-8 in it shows as U+FFFD. */
#ifndef TOOLS_PAGE_H
#define TOOLS_PAGE_H
#include <nsm.h>
#include <stddef.h>
#include <stdio.h>

typedef struct page page;

/* NULL when memory is out, which every other call takes; page_end() then gives NULL. */
page *page_new(const char *title, const char *about);
void page_section(page *p, const char *title);
void page_article(page *p, const char *title); /* a card of a section, until the next begins */
void page_say(page *p, const char *format, ...) NSM_PRINTF(2, 3); /* a paragraph */
/* A table: its columns, those of numbers to the right, or none; then row after row of cells.  It
 * ends with what comes next. */
void page_head(page *p, const char *title, bool numbers);
void page_row(page *p);
void page_cell(page *p, const char *text);
void page_number(page *p, double value, int digits); /* NaN: a dash */
/* a PNG file's; one that is not there is left out */
void page_picture(page *p, const char *title, const char *path);
void page_text(page *p, const char *title, const char *text);
void page_fold(page *p, const char *title, const char *text); /* the same, closed at first */
char *page_end(page *p); /* the whole text, to be freed */

/* Markup of the caller's own, as SVG: to be written there, between two calls.  NULL: no memory. */
FILE *page_markup(page *p);
/* Text in markup, or in an attribute within ""; cut to so many characters (-1: whole). */
void page_escape(FILE *f, const char *text, int most);
void page_base64(FILE *f, const void *bytes, size_t count);

#endif
