#!/bin/sh
# nsm report: what stands on the page, read as a file, as XML and, where there is Chromium, in it.
. "${top_srcdir:-.}/tests/tools/common.sh"
xml() { # FILE: well-formed, where there is a parser
    command -v xmllint >/dev/null || return 0
    xmllint --noout "$1" 2>junk || fail "$1 is not well-formed: $(head -2 junk)"
}
count() { grep -o -e "$1" "$2" | wc -l; }
beside() { # TEXT FILE: the number in the cell that follows the one of this text
    sed -n "/<td>$1<\/td>/{n;s/.*value=\"\([^\"]*\)\".*/\1/p;q}" "$2"
}

# 400 nodes in pairs, as in fused.sh; names and classes as nobody should write them.
awk 'BEGIN { srand(5); print "id,f,kind,said" >"nodes.csv"; print "a,b" >"edges.csv"
    name[0] = "\"<script>alert(\"\"x\"\")</script>&amp;\""; name[1] = "BAD\tone"
    for (i = 2; i < 400; i++) name[i] = "n" i
    class[0] = "\"<b>c0</b> \"\"&\""; class[1] = "c1"; class[2] = "c2"; class[3] = "c3"
    for (i = 0; i < 400; i += 2) {
        for (k = 0; k < 2; k++) { f[k] = rand() < 0.5; w[k] = rand() < 0.5 }
        for (k = 0; k < 2; k++)
            print name[i + k] "," f[k] "," class[2 * w[k] + f[1 - k]] "," (w[k] ? "the red one" : "the blue one") >"nodes.csv"
        print name[i] "," name[i + 1] >"edges.csv" } }'
for f in nodes.csv edges.csv; do
    LC_ALL=C sed "s/BAD/$(printf '\377\302\001')/" $f >$f.bad && mv $f.bad $f
done
ok import csv edges.csv pairs.h5 nodes=nodes.csv label=kind text=said
ok split pairs.h5 default train=0.5 valid=0.2
small="width=16 bases=0 layers=1 fanouts=4 batch_size=50 lr=0.01 dropout=0 warmup=0 text_options=heads=2 charts=false"
train() { # FOLDER DATA ARGUMENT...
    to=$1 data=$2
    shift 2
    ok -q train fused --data "$data" --out "$to" $small --json "$@"
}
train both pairs.h5 epochs=2 eval_every=1 fuser_options=slots=6

# ---- what stands there ----
ok report both node=0,1,2 --json && has '"page":"both/report.html"' && has '"examples":3'
page=both/report.html
xml $page
grep -q '<script\|<b>c0' $page && fail "names are not escaped"
has '&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;amp;' $page
has "$(printf '\357\277\275\357\277\275\357\277\275\tone')" $page # no UTF-8, and no character
LC_ALL=C grep -q "$(printf '\377')" $page && fail "a byte that is no UTF-8 is on the page"
grep -q 'https\{0,1\}:\|src="[^d]\|href="[^d]\|@import\|url(' $page && fail "the page names another place"
for name in 'The model' Examples 'Its states' 'What its answers rest on'; do has "<h2>$name</h2>" $page; done
test "$(count '<article>' $page)" -eq 3 || fail "not three examples"
test "$(count '<svg' $page)" -eq 11 || fail "$(count '<svg' $page) figures, want 11"
test "$(count 'class="edge text"' $page)" -ge 3 && test "$(count 'class="edge graph"' $page)" -ge 3 ||
    fail "no bands from text and graph"
for k in 0 1; do # the words of an example, each once
    grep '<p class="words text">' $page | sed -n "$((k + 1))p" >words
    test "$(count '<span' words)" -eq 3 || fail "example $k has not three words"
done
has '<td>itself</td>' $page
has '<td>edge &lt;\|<td>edge ' $page

# ---- as measured by nsm eval ----
ok eval both --explain 4 --json && cp out eval.json
same() { # KEY TEXT
    awk -v a="$(sed -n "s/.*\"$1\":\([0-9.e-]*\)[,}].*/\1/p" eval.json)" -v b="$(beside "$2" $page)" \
        'BEGIN { exit !(a != "" && b != "" && (a - b) ^ 2 < 1e-14) }' ||
        fail "$1 on the page is $(beside "$2" $page): $(cat eval.json)"
}
same without_named 'the 4 that it names'
same without_random '4 at random'
same named_alone 'all but the 4 that it names'
same without_graph 'the graph: its neighbours'
same without_text 'the text'
same without_most_read_state 'the state that each answer read most'
same without_random_state 'one state at random that it read'
for k in 1 2 3 4 5; do
    a=$(sed "s/.*{\"without_state\":$k,\"accuracy\":\([0-9.]*\)}.*/\1/" eval.json)
    b=$(sed -n "/<td>$k<\/td>/,/<\/tr>/p" $page | sed -n 's/.*value="\([^"]*\)".*/\1/p' | sed -n 5p)
    awk -v a="$a" -v b="$b" 'BEGIN { exit !(a != "" && b != "" && (a - b) ^ 2 < 1e-14) }' ||
        fail "without state $k: $a and $b"
done

# ---- the same again; other numbers of examples; beside a checkpoint ----
cp $page first.html
ok report both node=0,1,2
cmp -s $page first.html || fail "the page is another"
ok report both examples=4 --seed 3 -o four.html --json && test "$(count '<article>' four.html)" -le 4 || fail "four examples"
ok report both/best.h5 examples=0 -o none.html && test "$(count '<article>' none.html)" -eq 0 || fail "no examples"
xml four.html
has 'states of a thing by epoch' $page

# ---- other fusers, other modalities ----
for f in perceiver:latents=4 slot_attention:slots=4; do
    train "${f%%:*}" pairs.h5 epochs=1 fuser="${f%%:*}" fuser_options="${f#*:}"
    ok report "${f%%:*}" examples=2 && has 'none is opened, merged or given up' "${f%%:*}/report.html"
    xml "${f%%:*}/report.html"
done
train attention pairs.h5 epochs=1 fuser=attention
ok report attention node=5 && has 'class="edge text"' attention/report.html && xml attention/report.html
grep -q 'Its states' attention/report.html && fail "attention has states"
train concat pairs.h5 epochs=1 fuser=concat modalities=text
ok report concat node=5 && has 'concat has no weights' concat/report.html && has 'without\|the text' concat/report.html
grep -q 'class="edge\|it names</td>' concat/report.html && fail "concat names something"
xml concat/report.html
train shown pairs.h5 epochs=1 show_labels=true reuse=true modalities=graph
ok report shown examples=2 && has 'class shown' shown/report.html && xml shown/report.html

# ---- questions about pictures ----
ok generate sort_of_clevr clevr.h5 train=40 valid=10 test=10
train clevr clevr.h5 epochs=1
ok report clevr node=41,52 -o clevr.html && xml clevr.html
has 'of the kind <b>' clevr.html
test "$(grep -c 'row [0-9]* column [0-9]*: [0-9.]*</title></rect>$' clevr.html)" -ge 50 || fail "not every cell"
if grep -q "#define HAVE_PNG" "$(dirname "$nsm")/config.h"; then
    test "$(count 'href="data:image/png;base64,iVBOR' clevr.html)" -eq 4 || fail "not two pictures of two scenes"
fi

# ---- one picture ----
if grep -q "#define HAVE_PLPLOT" "$(dirname "$nsm")/config.h"; then
    ok plot both node=3 --json && has '"picture":"both/routing.png"'
    ok plot clevr/best.h5 -o map.png && ok plot attention node=5
    for p in both/routing.png map.png attention/routing.png; do
        test "$(head -c 4 $p | tail -c 3)" = PNG || fail "$p is no PNG file"
    done
    refused 'node 400 is not one of' plot both node=400
    refused 'no weights that say whence' plot concat node=3
fi

# ---- other models ----
ok generate csbm csbm.h5 nodes=60 features=8
ok -q train gcn --data csbm.h5 --out gcn epochs=3 charts=false
ok report gcn && has 'no states to look into' gcn/report.html && has '<svg' gcn/report.html && xml gcn/report.html
ok generate mqar mqar.h5 train=64 valid=16 test=16 length=16 pairs=4 vocab=32
ok -q train recall --data mqar.h5 --out recall mixer=none layers=1 width=16 epochs=1 charts=false
ok report recall && has 'nsm trace' recall/report.html && xml recall/report.html

# ---- what is wrong ----
refused 'node 400 is not one of the 400 nodes' report both node=400
refused 'node=1.5 is no number' report both node=1.5
refused 'is not a fused model' report gcn node=1
refused 'nowhere' report both -o nowhere/page.html
refused 'nowhere' report nowhere
mkdir empty && refused 'no checkpoint' report empty
test ! -e empty/report.html || fail "a page of nothing"

# ---- in a browser ----
browser=
for b in chromium chromium-browser google-chrome; do
    test -n "$browser" || browser=$(command -v $b)
done
if test -z "$browser"; then
    echo "no Chromium: what a browser makes of the page is not looked at"
    test $failures -eq 0
    exit
fi
show() { timeout 120 "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$dir/profile" "$@" 2>junk; }
# Two copies tell what stands out of a phone's width, but for what scrolls, and what they fetch.
for p in $page clevr.html; do
    sed 's#</body>#<script>document.documentElement.style.width = "360px"; document.body.dataset.out = [...document.querySelectorAll("body *")].filter(e => !e.parentElement.closest(".wide") \&\& e.getBoundingClientRect().right > 361).length; document.body.dataset.fetched = performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length</script></body>#' \
        $p >wide.html
    show --window-size=500,900 --dump-dom "file://$dir/wide.html" >dom
    has 'data-out="0"' dom
    has 'data-fetched="0"' dom
done
show --dump-dom "file://$dir/$page" >dom
has '<h3>&lt;script&gt;alert("x")&lt;/script&gt;&amp;amp;</h3>' dom
for what in '<svg' '<article' '<path class="edge' '<rect class="cell' '<tr' '<data value'; do
    test "$(count "$what" dom)" -eq "$(count "$what" $page)" || fail "$what: $(count "$what" dom) in the browser"
done
show --window-size=1100,1400 --screenshot="$dir/page.png" "file://$dir/$page"
test "$(head -c 4 page.png | tail -c 3)" = PNG && test "$(wc -c <page.png)" -gt 50000 || fail "no picture of the page"
test $failures -eq 0
