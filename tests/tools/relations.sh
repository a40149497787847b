#!/bin/sh
# Models of relations: the type of an edge says what a node is, on the whole graph and on samples.
. "${top_srcdir:-.}/tests/tools/common.sh"
number() { sed -n "s/.*\"$1\":\([0-9.e-]*\).*/\1/p" out; }
above() { # NAME LEAST
    awk -v x="$(number "$1")" -v least="$2" 'BEGIN { exit !(x > least) }' || fail "$3: $1 is $(number "$1"), want more than $2"
}
last() { ls -v "$1"/checkpoint-*.h5 | tail -1; }

# 400 nodes on a ring; one edge of either relation leaves each, and its relation is the class of the
# node it leaves: only who looks along it against its direction, and at its type, can tell.
mkdir -p g/raw g/split/s
awk 'BEGIN { srand(3); for (i = 0; i < 400; i++) {
    r = rand() < 0.5; print i "," (i + 1) % 400 >("g/raw/edge-" (r ? "up" : "down") ".csv"); print r >"g/raw/node-label.csv"
    print "1," rand() >"g/raw/node-feat.csv" } }'
for r in up down; do echo "$r,$(wc -l <g/raw/edge-$r.csv)"; done >g/raw/relation-list.csv
echo 400 >g/raw/num-node-list.csv
seq 0 199 >g/split/s/train.csv
seq 200 299 >g/split/s/valid.csv
seq 300 399 >g/split/s/test.csv
ok import ogb g g.h5 --json

train() { # FOLDER ARGUMENT...
    to=$1
    shift
    ok train rgcn --data g.h5 --out "$to" dropout=0 epochs=60 row_normalize=false charts=false --json "$@"
}
train whole
above test 0.95 whole
ok eval whole --json
above test 0.95 "eval whole"
train bases bases=2
above test 0.95 bases
train blocks blocks=2 hidden=8
above test 0.95 blocks
train largest aggr=max
above test 0.95 max
train sampled batch_size=32 fanouts=2,2
above test 0.95 sampled
train sampled2 batch_size=32 fanouts=2,2 whole_mib=0 --threads 2
above test 0.95 "sampled, looked at by samples"

# what sees no types, or no edge turned around, cannot tell
train onward inverse=false
awk -v x="$(number test)" 'BEGIN { exit !(x < 0.8) }' || fail "inverse=false: test is $(number test)"

# killed and taken up: the same bits
train again
rm "$(last again)"
train again --resume checkpoint_every=50
cmp "$(last whole)" "$(last again)" || fail "resumed: other bits"

refused inverse=true train rgcn --data g.h5 --out wrong symmetric=true
refused symmetric=true train gcn --data g.h5 --out wrong inverse=true
refused blocks train rgcn --data g.h5 --out wrong blocks=3

test $failures -eq 0
