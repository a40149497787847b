#!/bin/sh
# The fused model's heads: a pointer to a node, classes of graphs, classes of words.
. "${top_srcdir:-.}/tests/tools/common.sh"
number() { sed -n "s/.*\"$1\":\([0-9.e-]*\)[,}].*/\1/p" out; }
group() { sed -n "s/.*{\"group\":\"$1\",\"accuracy\":\([0-9.e-]*\)}.*/\1/p" out; }
between() { # NUMBER LOW HIGH WHAT
    awk -v x="$1" -v a="$2" -v b="$3" 'BEGIN { exit !(x != "" && x >= a && x <= b) }' ||
        fail "$4 is $1, want $2 to $3"
}

# ---- which object a question is after ----
ok generate sort_of_clevr clevr.h5 train=400 valid=20 test=40
point() { # FOLDER ARGUMENT...
    to=$1
    shift
    ok -q train clevr --data clevr.h5 --out "$to" --json width=32 filters=8 lr=0.003 warmup=10 eval_every=1 charts=false "$@"
}
point pointer head=pointer modalities=graph epochs=8
ok eval pointer --json
for kind in shape left above; do between "$(group $kind)" 0.95 1 "pointing, $kind"; done
for kind in nearest farthest; do between "$(group $kind)" 0.2 1 "pointing, $kind (chance 0.17)"; done
grep -q '"group":"count"' out && fail "questions that point at nothing have a score"
point again head=pointer modalities=graph epochs=8
cmp -s pointer/best.h5 again/best.h5 || fail "equal runs give different files"
refused 'nothing beside it' eval pointer --explain 2
refused 'nsm eval tells how well' predict pointer
ok report pointer examples=4 --json && has '"examples":4'
has 'The answer is <b>[a-z]* \(rectangle\|circle\) at [0-9]*,[0-9]*</b>' pointer/report.html
has 'of the kind <b>[a-z]*</b>: [a-z]*, \(one object\|relational\), [123][a-z]* of three</p>' pointer/report.html
has 'the nodes stay' pointer/report.html
grep -q 'the graph: its neighbours' pointer/report.html && fail "what is pointed at was taken away"
point both head=pointer modalities=graph,picture epochs=1
ok eval both --explain 2 --json && has '"without_named"' && has '"without_picture"'
grep -q '"without_graph"' out && fail "what is pointed at was taken away"
refused 'modalities has to name it' train clevr --data clevr.h5 head=pointer
refused 'no element of its thing' train clevr --data clevr.h5 head=pointer modalities=graph fanouts=3,3 -q
refused 'label_smoothing' train clevr --data clevr.h5 head=pointer modalities=graph label_smoothing=0.1
refused 'words of sort_of_clevr have no classes' train clevr --data clevr.h5 head=token
refused 'expected one of\|class|pointer|token' train clevr --data clevr.h5 head=tail
ok generate csbm csbm.h5 nodes=60 features=8
refused 'no questions that point' train fused --data csbm.h5 head=pointer

# ---- classes of graphs ----
# 90 graphs of 4 to 12 nodes of three kinds: the class is whether an edge joins two of the first kind.
mkdir SET
awk 'BEGIN { srand(2); f = "SET/SET_"
    for (g = 1; g <= 90; g++) {
        n = 4 + int(9 * rand()); yes = 0
        for (i = 1; i <= n; i++) { kind[i] = int(3 * rand()); print kind[i] >(f "node_labels.txt"); print g >(f "graph_indicator.txt") }
        for (i = 1; i < n; i++) { # a path
            print base + i ", " base + i + 1 >(f "A.txt"); print base + i + 1 ", " base + i >(f "A.txt")
            if (!kind[i] && !kind[i + 1]) yes = 1 }
        base += n; print yes >(f "graph_labels.txt") } }'
ok import tu SET set.h5
ok split set.h5 default train=0.6 valid=0.2
graphs="layers=2 width=16 lr=0.01 warmup=10 epochs=40 batch_size=10 charts=false"
ok -q train graphs --data set.h5 --out graphs --json $graphs
between "$(number test)" 0.85 1 "classes of graphs"
ok -q train graphs --data set.h5 --out none --json $graphs encoder=sage layers=1 aggr=max epochs=1
ok eval graphs --json && between "$(number test)" 0.85 1 "classes of graphs, again"
ok eval graphs --explain 2 --json && has '"without_named"' && has '"without_graph"'
ok predict graphs --out p.csv && test "$(wc -l <p.csv)" = 91 && test "$(head -1 p.csv)" = graph,class,p0,p1 ||
    fail "predictions of 90 graphs: $(head -2 p.csv)"
ok report graphs node=3,89 --json && has '<h3>graph 3</h3>' graphs/report.html && has '<h3>graph 89</h3>' graphs/report.html
refused 'not one of the 90 graphs' report graphs node=90
refused 'have no text' train graphs --data set.h5 modalities=text,graph
refused 'learns classes, and nothing else' train graphs --data set.h5 show_labels=true
refused 'at most 15' train graphs --data set.h5 layers=16
refused 'no labels of nodes' train gcn --data set.h5

# ---- classes of words ----
# 400 kinds of one of 3 genera; a definition names all of them in any order: which is meant, only
# the pointer tells.
mkdir words
awk 'BEGIN { srand(3); f = "words/data."; n = 3
    for (i = 0; i < n + 400; i++) if (i >= n) { of[i] = int(n * rand()); down[of[i]] = down[of[i]] sprintf(" ~ %08d n 0000", i + 1); count[of[i]]++ }
    for (i = 0; i < n + 400; i++) {
        if (i < n) { printf "%08d 03 n 01 genus%c 0 %03d%s | a genus\n", i + 1, 97 + i, count[i], down[i] >(f "noun"); continue }
        a = (of[i] + 1) % n; b = (of[i] + 2) % n
        at = int(3 * rand()); if (rand() < 0.5) { c = a; a = b; b = c } w[at] = of[i]; w[(at + 1) % 3] = a; w[(at + 2) % 3] = b
        printf "%08d 05 n 01 kind 0 001 @ %08d n 0000 | genus%c by genus%c and genus%c\n", i + 1, of[i] + 1, 97 + w[0], 97 + w[1], 97 + w[2] >(f "noun") }
    print "00000001 31 v 01 be 0 000 01 + 02 00 | exist" >(f "verb"); print "00000001 00 a 01 so 0 000 | thus" >(f "adj")
    print "00000001 02 r 01 not 0 000 | negation" >(f "adv") }'
ok import wordnet words words.h5 genus=true least=1 features=1024
ok split words.h5 default train=0.6 valid=0.1 kind=random
tokens="head=token width=32 bases=0 layers=1 words=8 lr=0.005 warmup=10 epochs=20 batch_size=32 dropout=0 text_options=heads=2 fuser_options=slots=6 charts=false"
ok -q train fused --data words.h5 --out tokens --json $tokens modalities=graph,text
has '"metric":"f1"' && between "$(number test)" 0.9 1 "words by text and pointers"
ok -q train fused --data words.h5 --out text --json $tokens modalities=text epochs=5
between "$(number test)" 0 0.7 "words by the text alone"
ok eval tokens --json && has '"precision"' && has '"marked"'
awk -v p="$(number precision)" -v r="$(number recall)" -v f="$(number test)" 'BEGIN { exit !((2 * p * r / (p + r) - f) ^ 2 < 1e-12) }' ||
    fail "F1 is not the harmonic mean of precision and recall: $(cat out)"
ok eval tokens --explain 2 --json && has '"without_graph"'
grep -q '"without_text"' out && fail "the words that are asked for were taken away"
refused 'nothing beside it' eval text --explain 2
refused 'nsm eval tells how well' predict tokens
ok report tokens examples=4 --json && has 'Word [0-9]*: <b>[a-z]*</b>' tokens/report.html
has 'The answer is <b>\(genus\|other\)</b>' tokens/report.html
refused 'modalities has to name it' train fused --data words.h5 head=token modalities=graph
refused 'for models of classes' train fused --data words.h5 head=token show_labels=true
test $failures -eq 0
