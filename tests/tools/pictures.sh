#!/bin/sh
# Pictures: Sort-of-CLEVR is the same file with any number of threads; its pictures on one sheet.
. "${top_srcdir:-.}/tests/tools/common.sh"

ok generate sort_of_clevr a.h5 train=20 valid=5 test=5 --threads 1 --json
ok generate sort_of_clevr b.h5 train=20 valid=5 test=5 --threads 3
cmp a.h5 b.h5 || fail "another file with 3 threads"
ok info a.h5 --json && has scene && has object
refused size generate sort_of_clevr c.h5 size=20
refused ubyte import idx . c.h5 -q
if grep -q "#define HAVE_PNG" "$(dirname "$nsm")/config.h"; then
    ok export a.h5 a.png --json && has '"pictures": *30' && has '"height": *306'
    test "$(head -c 4 a.png | tail -c 3)" = PNG || fail "a.png is no PNG file"
    ok generate sbm g.h5 nodes=300
    refused "no pictures" export g.h5 g.png
else
    refused libpng export a.h5 a.png
fi

test $failures -eq 0
