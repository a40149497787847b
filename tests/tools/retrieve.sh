#!/bin/sh
# One side of a thing found by the other: learned, the same with any number of threads, told again by
# eval, resumed; what lacks a side is left out; errors.
. "${top_srcdir:-.}/tests/tools/common.sh"
make_pairs=$(cd "$(dirname "$nsm")" && pwd)/tests/tools/make_pairs
number() { sed -n "s/.*\"$1\":\([0-9.e-]*\)[,}].*/\1/p" out; }
way() { # NAME WAY: a number of the first or second way
    sed -n 's/.*"ways":\[{\([^}]*\)},{\([^}]*\)}\].*/\'"$2"'/p' out | tr , '\n' | sed -n "s/^\"$1\"://p"
}
within() { # WHAT VALUE LOW HIGH
    awk -v x="$2" -v a="$3" -v b="$4" 'BEGIN { exit !(x != "" && x >= a && x <= b) }' || fail "$1 is $2, want $3 to $4"
}
last() { ls -v "$1"/checkpoint-*.h5 | tail -1; }

"$make_pairs" pairs.h5 || fail make_pairs
refused 'no classes' split pairs.h5 default
ok split pairs.h5 default kind=random train=0.6 valid=0.15 --json
has '"train":130,"valid":32,"test":54'
small="width=32 bases=0 layers=1 stem_layers=2 filters=16 batch_size=65 epochs=40 eval_every=10 lr=0.01 weight_decay=0 dropout=0 warmup=5 fuser_options=slots=8 text_options=heads=2 charts=false"
train() { # FOLDER ARGUMENT...
    to=$1
    shift
    ok -q train retrieve --data pairs.h5 --out "$to" $small --json "$@"
}

# By chance a rank of 1 comes once in 54, of 10 or less in five.
train both
within candidates "$(number candidates)" 52 54
for w in 1 2; do
    within "recall10 of way $w" "$(way recall10 $w)" 0.8 1
    within "recall1 of way $w" "$(way recall1 $w)" 0.3 1
    within "median rank of way $w" "$(way median_rank $w)" 1 3
done
has '"from":"picture","to":"text"'
want=$(number test)
ok eval both --json
test "$(number test)" = "$want" || fail "eval: test is $(number test), training said $want"
train again --threads 3 checkpoint_every=10
rm -f again/best.h5 "$(last again)"
train again --resume checkpoint_every=10
train through checkpoint_every=10
cmp "$(last again)" "$(last through)" || fail "a resumed run ends elsewhere"
train graph sides=picture/text,graph epochs=4
has '"to":"text,graph"'
train sampled sides=picture/text,graph whole=false fanouts=4,4 epochs=2
train latent fuser=perceiver fuser_options=latents=6 epochs=2

# ---- what is wrong ----
refused 'want two sides' train retrieve --data pairs.h5 $small sides=picture
refused 'want two sides' train retrieve --data pairs.h5 $small sides=picture/smell
refused 'want two sides' train retrieve --data pairs.h5 $small sides=text,picture/text
refused 'stay out of it' train retrieve --data pairs.h5 $small modalities=text
refused 'nsm eval tells how well' predict both --out p.csv
refused 'finds sides of things' eval both --explain 2
refused 'finds sides of things' plot both node=3
ok report both && grep -q sides both/report.html || fail 'no page of a model of sides'
ok generate sbm sbm.h5 nodes=60 classes=2
refused 'the nodes of sbm have no text' train retrieve --data sbm.h5 $small
refused 'the nodes of sbm have no pictures' train retrieve --data sbm.h5 $small sides=graph/picture
ok train retrieve --data pairs.h5 --dry-run --json && has '"parameters"'

test $failures -eq 0
