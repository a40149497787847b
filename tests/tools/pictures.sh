#!/bin/sh
# Pictures: Sort-of-CLEVR is the same file with any number of threads; its pictures on one sheet;
# those of one's own nodes, by a column and by a folder.
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

    # ---- a graph, a column of text and a folder of pictures: one file, one model of all three ----
    # A node's class is one of two pictures; the words and the edges tell nothing.
    ok generate sort_of_clevr one.h5 train=1 valid=0 test=0
    ok generate sort_of_clevr two.h5 train=4 valid=0 test=0
    mkdir faces
    awk 'BEGIN { print "id,kind,said,look" >"nodes.csv"; print "a,b" >"edges.csv"
        for (i = 0; i < 60; i++) {
            print "n" i "," (i % 2 ? "cat" : "dog") ",it is an animal," (i % 2 ? "one.png" : "two.png") >"nodes.csv"
            print "n" i ",n" (i + 1) % 60 >"edges.csv" } }'
    ok export one.h5 one.png && ok export two.h5 two.png
    for i in $(seq 0 59); do
        if test $((i % 2)) = 1; then ln one.png "faces/n$i.png"; else ln two.png "faces/n$i.png"; fi
    done
    ok import csv edges.csv column.h5 nodes=nodes.csv label=kind text=said image=look size=24 --json
    has '"nodes": *60'
    ok import csv edges.csv folder.h5 nodes=nodes.csv label=kind text=said features=false images=faces size=24 --json
    ok split folder.h5 default train=0.5 valid=0.2
    ok -q train fused --data folder.h5 --out three width=16 stem_layers=2 filters=8 bases=0 batch_size=10 epochs=20 lr=0.01 warmup=0 dropout=0 fuser_options=slots=6 text_options=heads=2 charts=false --json
    has '"test": *1.0'
    rm faces/n7.png
    ok import csv edges.csv folder.h5 nodes=nodes.csv label=kind features=false images=faces size=24
    echo junk >faces/n7.png
    refused faces/n7.png import csv edges.csv broken.h5 nodes=nodes.csv label=kind features=false images=faces size=24 -q
    test ! -e broken.h5 || fail "half a dataset"
else
    refused libpng export a.h5 a.png
fi

test $failures -eq 0
