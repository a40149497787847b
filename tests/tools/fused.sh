#!/bin/sh
# The fused model: what neither a text nor a graph tells alone; stopped and resumed; its errors.
. "${top_srcdir:-.}/tests/tools/common.sh"
number() { sed -n "s/.*\"$1\":\([0-9.e-]*\)[,}].*/\1/p" out; }
within() { # NAME LOW HIGH WHAT
    awk -v x="$(number "$1")" -v a="$2" -v b="$3" 'BEGIN { exit !(x >= a && x <= b) }' ||
        fail "$4: $1 is $(number "$1"), want $2 to $3"
}

# 600 nodes in pairs: a node's class is one bit that its text tells and one that its partner's
# feature tells.
awk 'BEGIN { srand(5); print "id,f,kind,said" >"nodes.csv"; print "a,b" >"edges.csv"
    for (i = 0; i < 600; i += 2) {
        for (k = 0; k < 2; k++) { f[k] = rand() < 0.5; w[k] = rand() < 0.5 }
        for (k = 0; k < 2; k++)
            print i + k "," f[k] ",c" (2 * w[k] + f[1 - k]) "," (w[k] ? "the red one" : "the blue one") >"nodes.csv"
        print i "," i + 1 >"edges.csv" } }'
ok import csv edges.csv pairs.h5 nodes=nodes.csv label=kind text=said
ok split pairs.h5 default train=0.5 valid=0.2
small="width=16 bases=0 layers=1 fanouts=4 batch_size=50 epochs=12 lr=0.01 dropout=0 warmup=0 fuser_options=slots=6 text_options=heads=2 charts=false"
train() { # FOLDER ARGUMENT...
    to=$1
    shift
    ok -q train fused --data pairs.h5 --out "$to" $small --json "$@"
}
train both
within test 0.95 1 both
train text modalities=text
within test 0.3 0.7 "text alone"
train graph modalities=graph
within test 0.3 0.7 "graph alone"
train sampled whole=false fanouts=4,4
within test 0.95 1 sampled
train perceiver fuser=perceiver fuser_options=latents=6 epochs=2
train shown show_labels=true reuse=true epochs=4

# ---- looking ----
train again
ok eval both --json && has '"split":"default"' && within test 0.95 1 eval
ok eval both --explain 2 --json && within without_named 0.2 0.8 explain
awk -v a="$(number without_named)" -v b="$(number without_random)" 'BEGIN { exit !(a < b) }' || fail "what is named matters no more than anything"
has '"states":\[{"without_state":0,"accuracy":[0-9.]*},' && within without_most_read_state 0.2 1 "a state less"
refused 'explain=none is no number' eval both --explain none
head -1 both/log.csv | grep -q ',states_open,states_mass,states_read$' || fail "no states in the log: $(head -1 both/log.csv)"
awk -F, 'NR > 1 && !($9 >= 1 && $9 <= 6 && $10 > 0 && $10 < 9 && $11 >= 1 && $11 <= 6.001) { exit 1 }' both/log.csv ||
    fail "states in the log: $(tail -1 both/log.csv)"
ok predict both --out p.csv && test "$(wc -l <p.csv)" = 601 && test "$(head -1 p.csv)" = node,class,p0,p1,p2,p3 ||
    fail "predictions of 600 nodes"
cmp -s both/best.h5 again/best.h5 || fail "equal runs give different files"

# ---- a run that was stopped goes on as if it had not been ----
ok -q train fused --data pairs.h5 --out stopped $small --json show_labels=true reuse=true epochs=4 checkpoint_every=1
rm -f stopped/best.h5 "$(ls -v stopped/checkpoint-*.h5 | tail -1)"
cut -d, -f1-8 stopped/log.csv >short && cp short stopped/log.csv # a log as earlier versions wrote it
ok -q train fused --data pairs.h5 --out stopped --resume $small --json show_labels=true reuse=true epochs=4 checkpoint_every=1
ok -q train fused --data pairs.h5 --out through $small --json show_labels=true reuse=true epochs=4 checkpoint_every=1
cmp -s "$(ls -v stopped/checkpoint-*.h5 | tail -1)" "$(ls -v through/checkpoint-*.h5 | tail -1)" ||
    fail "a resumed run ends elsewhere"
tail -n +2 stopped/log.csv | cut -d, -f9 | tr '\n' ' ' | grep -q '^   [0-9.]* $' || fail "a short log is not taken up"

# ---- what is wrong ----
ok generate sbm sbm.h5 nodes=60 classes=2
ok generate csbm csbm.h5 nodes=60 features=8
refused 'the nodes of sbm have no text' train fused --data sbm.h5 $small modalities=text
for modalities in smell graph,smell graph, graph,graph graph/text; do
    refused 'want some of graph,text,picture' train fused --data pairs.h5 $small modalities=$modalities
done
refused 'fanouts has 1 numbers, want 2' train fused --data pairs.h5 $small whole=false
refused 'in_file=true' train fused --data csbm.h5 $small in_file=true
refused 'no fuser\|glue' train fused --data pairs.h5 $small fuser=glue
refused 'is for models of nodes' export both both.graphml
test $failures -eq 0
