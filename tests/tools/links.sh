#!/bin/sh
# Links of a knowledge graph: they are learned, evaluation tells the same, a resumed run ends alike.
. "${top_srcdir:-.}/tests/tools/common.sh"
number() { sed -n "s/.*\"$1\":\([0-9.e-]*\).*/\1/p" out; }
above() { # NAME LEAST WHERE
    awk -v x="$(number "$1")" -v least="$2" 'BEGIN { exit !(x > least) }' || fail "$3: $1 is $(number "$1"), want more than $2"
}
last() { ls -v "$1"/checkpoint-*.h5 | tail -1; }

# a ring of 30: next, and what follows from it: second (two steps on), and back; some of the latter
# are left out, to be told
mkdir k
awk 'BEGIN { for (i = 0; i < 30; i++) {
    print "e" i "\tnext\te" (i + 1) % 30 >"k/train.txt"
    print "e" i "\tsecond\te" (i + 2) % 30 >"k/train.txt"
    f = i % 6 == 1 ? "k/valid.txt" : i % 6 == 4 ? "k/test.txt" : "k/train.txt"
    print "e" (i + 1) % 30 "\tback\te" i >f } }'
ok import triples k k.h5 --json
ok info k.h5

train() { # FOLDER ARGUMENT...
    to=$1
    shift
    ok train link --data k.h5 --out "$to" hidden=32 epochs=60 eval_every=10 batch_size=64 lr=0.02 dropout=0.1 charts=false --json "$@"
}
train complex decoder=complex
above test 0.5 complex # by chance: 0.13
above test_hits10 0.8 complex
want=$(number test)
ok eval complex --json
test "$(number test)" = "$want" || fail "eval: test is $(number test), training said $want"
train threads decoder=complex --threads 3
cmp "$(last complex)" "$(last threads)" || fail "3 threads: other bits"
train again decoder=complex checkpoint_every=20
rm "$(last again)"
train again decoder=complex checkpoint_every=20 --resume
cmp complex/best.h5 threads/best.h5 || fail "best.h5 differs"
train whole decoder=complex checkpoint_every=20
cmp "$(last whole)" "$(last again)" || fail "resumed: other bits"

train negatives decoder=complex negatives=16 penalty=0.001
above test 0.4 negatives
train encoder encoder=rgcn layers=1 bases=2 activation=tanh residual=true
above test 0.2 encoder
ok eval encoder --json
above test 0.2 "eval encoder"
ok train link --data k.h5 --dry-run --json
above parameters 100 dry-run

# what the entities are called says where they stand; "lone" is named in the test alone, and is
# called what e4 is
awk 'BEGIN { for (i = 0; i < 30; i++) print "e" i "\tx" i " y" (i + 1) % 30; print "lone\tx4 y5"; print "nobody\tz" }' >k/text.tsv
printf 'lone\tnext\te5\n' >>k/test.txt
refused 'file or directory' import triples k t.h5 text=k/none.tsv -q
ok import triples k t.h5 text=k/text.tsv --json
ok info t.h5
has '31 of 31 entities have a text; 1 texts are of none'
fused() { # FOLDER ARGUMENT...
    to=$1
    shift
    ok train pairs --data t.h5 --out "$to" fuser=concat fuser_options= hidden=32 epochs=120 warmup=20 eval_every=20 batch_size=32 lr=0.02 charts=false --json "$@"
}
fused fused
above test 0.35 fused # by chance: 0.13
above test_unmet 0.2 fused
want=$(number test)
ok eval fused --json
test "$(number test)" = "$want" || fail "eval: test is $(number test), training said $want"
above test_unmet 0.2 "eval fused"
ok predict fused --best 3
has '^head,relation,tail,asked,rank,entity0,score0,entity1,score1,entity2,score2$'
mrr=$(awk -F, -v want="$want" 'NR > 1 { right = $4 == "tail" ? $3 : $1; sum += 1 / $5; n++
    if (($5 == 1 && $6 != right) || $7 < $9 || $9 < $11) bad++ } END { if (bad) print bad " bad rows"; d = sum / n - want; print n, (d < 1e-6 && d > -1e-6) }' out)
test "$mrr" = "12 1" || fail "predict: $mrr; its ranks do not make the mean that eval tells"
ok predict fused --json
has '"questions":12,"best":10'
ok predict fused --out best.h5 --json && has '"file":"best.h5"'
refused 'no number of entities' predict fused --best 0
refused 'predicts links' plot fused node=3
fused fused3 --threads 3
cmp "$(last fused)" "$(last fused3)" || fail "fused, 3 threads: other bits"
fused again3 checkpoint_every=20 own=true negatives=8
fused again4 checkpoint_every=20 own=true negatives=8
rm "$(last again4)"
fused again4 checkpoint_every=20 own=true negatives=8 --resume
cmp "$(last again3)" "$(last again4)" || fail "fused, resumed: other bits"
above test 0.2 "fused, own=true" # by chance: 0.13
fused pool fuser=nsm fuser_options="slots=4" epochs=20
refused 'have no pictures' train link --data t.h5 --out wrong decoder=complex encoder=fused modalities=picture
refused 'want the number' train link --data t.h5 --out wrong decoder=complex encoder=fused fanouts=-7
refused 'own=true' train link --data t.h5 --out wrong decoder=complex encoder=fused node_features=false

refused even train link --data k.h5 --out wrong decoder=complex hidden=33
"$nsm" -q generate sbm a.h5 nodes=50 classes=2 >/dev/null
refused triples train link --data a.h5 --out wrong

test $failures -eq 0
