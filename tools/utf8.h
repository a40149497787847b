/* utf8.h - Text that may be anything: names in other people's data. */
#ifndef TOOLS_UTF8_H
#define TOOLS_UTF8_H
#include <stddef.h>

/* Bytes of the character at s, 1 to 4; 0 if it is none that a page or a chart may hold: no UTF-8
 * (overlong, a surrogate, cut off), or no character (U+FFFE, U+FFFF). */
static inline int utf8_bytes(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    int n = s[0] < 0x80                   ? 1
            : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
            : (s[0] & 0xf0) == 0xe0       ? 3
            : (s[0] & 0xf8) == 0xf0 && s[0] <= 0xf4 ? 4
                                                    : 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0) ||
        (s[0] == 0xef && s[1] == 0xbf && s[2] >= 0xbe) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] >= 0x90))
        return 0;
    return n;
}

/* How wide it is: its code points. */
static inline size_t utf8_letters(const char *text)
{
    size_t n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

#endif
