#!/bin/sh
# Traces: what a model did with each token, in a file whose arrays agree with each other, and in pictures.
. "${top_srcdir:-.}/tests/tools/common.sh"
check=$(dirname "$nsm")/tests/tools/check_trace

ok -q generate mqar mqar.h5 length=40 vocab=32 pairs=4 train=400 valid=20 test=20
small="width=24 layers=2 batch_size=8 steps=20 epochs=2 charts=false"
ok -q train recall --data mqar.h5 --out nsm mixer=nsm heads=3 s=6 rho=0.8 tau_prune=0.2 $small
ok trace nsm row=3 --json && has '"mixer":"nsm"' && has '"tokens":40' && has '"opened":[1-9]' && has '"given_up":[1-9]'
"$check" trace/trace.h5 >said 2>&1 || fail "the trace is not true: $(cat said)"
opened=$(sed 's/.*"opened":\([0-9]*\),"used_again":\([0-9]*\),"given_up":\([0-9]*\),.*/\1 + \2 + \3/' out)
has "^2 layers, $(($opened)) events" said
if grep -q '#define HAVE_PLPLOT' "$(dirname "$nsm")/config.h"; then
    for picture in states-0 states-1 flow-0 flow-1; do
        head -c 8 trace/$picture.png | od -An -tx1 | grep -q '89 50 4e 47' || fail "$picture.png is no picture"
    done
fi
cp trace/trace.h5 first.h5
ok -q trace nsm row=3 && cmp -s first.h5 trace/trace.h5 || fail "the same trace again differs"
ok -q trace nsm row=4 --out other && cmp -s first.h5 other/trace.h5 && fail "another row has the same trace"
ok trace nsm row=3 from=8 tokens=12 head=2 --set 's=12 rho=1' --out more && has '^tokens *12'
"$check" more/trace.h5 >said 2>&1 || fail "the trace with other settings is not true: $(cat said)"
ok -q train recall --data mqar.h5 --out dense mixer=nsm heads=3 dk=8 dv=8 dense_heads=1 gate=silu s=6 $small
ok trace dense row=3 head=1 --out two && "$check" two/trace.h5 >said 2>&1 || fail "the trace of two heads with pools is not true: $(cat said)"
refused 'head is 2' trace dense row=3 head=2 --out two

i=0
while test $i -lt 60; do
    echo "the cat sat on the mat"
    i=$((i + 1))
done >text
ok -q import text text text.h5
ok -q train lm --data text.h5 --out text-nsm mixer=nsm heads=2 s=8 width=16 layers=1 context=32 batch_size=4 steps=5 epochs=1 charts=false
ok trace text-nsm --prompt 'the cat sat' --out prompt && has '^tokens *11'
"$check" prompt/trace.h5 >said 2>&1 || fail "the trace of a prompt is not true: $(cat said)"
refused 'no token for "Z' trace text-nsm --prompt Z

ok -q train recall --data mqar.h5 --out attention mixer=transformer $small
ok trace attention --out seen && has '^mixer *transformer'
"$check" seen/trace.h5 >/dev/null 2>&1 && fail "attention has states"
ok -q train recall --data mqar.h5 --out gla mixer=gla $small
refused 'no weights' trace gla
refused 'has no token' trace nsm row=20
refused 'head is 3' trace nsm head=3

test $failures -eq 0
