#!/bin/sh
# Models that tell several labels at once, or numbers: training, evaluation and prediction.
. "${top_srcdir:-.}/tests/tools/common.sh"
ok() { "$nsm" -q "$@" >out 2>err || fail "nsm $*: $(cat err)"; }
number() { sed -n "s/.*\"$1\":\([0-9.e-]*\).*/\1/p" out; }
compare() { # NAME OPERATOR BOUND
    awk -v x="$(number "$1")" "BEGIN { exit !(x != \"\" && x $2 $3) }" || fail "$4: $1 is $(number "$1"), want $2 $3"
}

# A ring of nodes, whose labels follow from their own features; one label is unknown.
source() { # NAME PROGRAM: of awk, which prints a node's labels from a, b, c
    mkdir -p "$1/raw" "$1/split/s"
    awk 'BEGIN { srand(7); for (i = 0; i < 300; i++) print rand() - 0.5 "," rand() - 0.5 "," rand() - 0.5 }' \
        >"$1/raw/node-feat.csv"
    awk 'BEGIN { for (i = 0; i < 300; i++) print i "," (i + 1) % 300 }' >"$1/raw/edge.csv"
    echo 300 >"$1/raw/num-node-list.csv"
    awk -F, "{ a = \$1; b = \$2; c = \$3; $2 }" "$1/raw/node-feat.csv" >"$1/raw/node-label.csv"
    seq 0 179 >"$1/split/s/train.csv"
    seq 180 239 >"$1/split/s/valid.csv"
    seq 240 299 >"$1/split/s/test.csv"
}
source multi '{ print (a > 0) "," (b + c > 0) "," (NR == 5 ? "" : a < b) }'
source values '{ print 4 * a - 2 * b "," c + 10 }'

# run KIND DATASET METRIC OPERATOR BOUND HEADER
run() {
    ok import ogb "$2" "$2.h5" labels="$1" --json
    for batch in 0 32; do
        to=$2-$batch
        ok train sage --data "$2.h5" --out "$to" hidden=32 epochs=150 dropout=0 lr=0.02 row_normalize=false keep=best \
            batch_size=$batch fanouts=2,2 charts=false --json
        grep -q "\"metric\":\"$3\"" out || fail "$to: the metric is not $3: $(cat out)"
        compare test "$4" "$5" "$to"
        want=$(number test)
        ok eval "$to" --json
        compare test '==' "$want" "eval $to"
        grep -q '"classes"' out && fail "eval $to: speaks of classes"
        ok predict "$to" --out p.csv
        test "$(head -1 p.csv)" = "$6" || fail "predict $to: the header is $(head -1 p.csv)"
        test "$(wc -l <p.csv)" -eq 301 || fail "predict $to: not one line a node"
        ok predict "$to" --out p.h5
    done
    ok train sage --data "$2.h5" --dry-run --json
}
run multi multi roc_auc '>' 0.9 node,p0,p1,p2
awk -F, 'NR > 1 && ($2 < 0 || $2 > 1) { exit 1 }' p.csv || fail "a probability is outside 0..1"
run value values mae '<' 0.4 node,value0,value1
awk -F, 'NR > 1 { sum += $3 } END { exit !(sum / (NR - 1) > 9 && sum / (NR - 1) < 11) }' p.csv ||
    fail "the second value is not about 10"

# a model is not put to labels of another kind
"$nsm" eval multi-0 --data values.h5 >out 2>err && fail "a model of labels was put to values"
test "$(wc -l <err)" -eq 1 || fail "not one line: $(cat err)"

test $failures -eq 0
