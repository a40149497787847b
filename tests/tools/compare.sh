#!/bin/sh
# Comparisons: matched sizes, equal results however often the work is killed, the table in all its forms, refusals.
. "${top_srcdir:-.}/tests/tools/common.sh"

task="--task mqar length=24 vocab=16 pairs=3 train=600 valid=50 test=50"
small="width=24 heads=2 batch_size=8 lrs=0.003,0.01 lengths=32,64 explain=12 explain_k=2"
models="nsm:s=8:heads=2,transformer,gla,rwkv4"

# value COLUMN MODEL: of table.csv, in whichever folder
value() {
    awk -F, -v want="$1" -v model="\"$2\"" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == want) at = i }
        $1 == model { print $at }' "${3:-whole}/table.csv"
}
near() { awk "BEGIN { d = $1 / $2 - 1; exit !(d * d <= $3 * $3) }" || fail "$1 is not within $3 of $2: $4"; }

ok -q compare $task $small --models $models --match state --seeds 2 --steps 60 --jobs 2 --out whole
has '^nsm:s=8:heads=2 .*±.*routing' && has '^transformer .* a token .*attention' && has 'gradient x input'
has 'grows with every token and cannot be matched' && has '^rwkv4 .*state .*only the width sizes it'
cmp -s out whole/table.txt || fail "what is printed is not table.txt"
near "$(value state_bytes gla)" "$(value state_bytes nsm:s=8:heads=2)" 0.05 "state of gla"
for model in nsm:s=8:heads=2 transformer gla rwkv4; do
    for column in train_seconds tensor_mib process_mib step_us_32 step_us_64 read_us_64 parameters; do
        awk "BEGIN { exit !(\"$(value $column $model)\" + 0 > 0) }" || fail "$column of $model: $(value $column $model)"
    done
    test "$(value seeds $model)" = 2 || fail "seeds of $model: $(value seeds $model)"
done
grep -q 'kind": "explain"' whole/runs/gla/seed-1/explain/result.json || fail "no explanation of gla's second seed"
if grep -q '#define HAVE_PLPLOT' "$(dirname "$nsm")/config.h"; then
    for picture in state cost; do
        head -c 8 whole/$picture.png | od -An -tx1 | grep -q '89 50 4e 47' || fail "$picture.png is no picture"
    done
    test "$(grep -c 'data:image/png;base64' whole/index.html)" -eq 2 || fail "the page lacks its pictures"
fi
test "$(grep -c '<td>nsm:s=8:heads=2</td>' whole/index.html)" -eq 1 || fail "the page lacks a row"
grep -q '<[^>]*\(src\|href\)="[^d]' whole/index.html && fail "the page needs something beside itself"

# Killed again and again, by a signal that nothing can catch too, it comes to the same scores.
for second in 0.7 1.1 0.4 1.5; do
    timeout -s KILL $second "$nsm" -q compare $task $small --models $models --match state --seeds 2 --steps 60 --jobs 2 --out parts >out 2>err
    timeout $second "$nsm" -q compare $task $small --models $models --match state --seeds 2 --steps 60 --out parts >out 2>err
done
ok -q compare $task $small --models $models --match state --seeds 2 --steps 60 --out parts --json
has '"task":"mqar"' && has '"model":"rwkv4"'
for model in nsm:s=8:heads=2 transformer gla rwkv4; do
    for column in test test_sd test_loss lr parameters state_bytes own_comprehensiveness gradient_sufficiency random_sufficiency own_gini answers; do
        test "$(value $column $model whole)" = "$(value $column $model parts)" ||
            fail "$column of $model: $(value $column $model whole) in one go, $(value $column $model parts) in parts"
    done
done

# What is done is not done again; models and seeds may be added, other settings may not be mixed in.
find whole/runs -name result.json -exec touch -d 2001-01-01 {} +
ok -q compare $task $small --models $models,gru --match state --seeds 3 --steps 60 --jobs 2 --out whole
test "$(find whole/runs -name result.json ! -newermt 2002-01-01 | wc -l)" -eq 28 || fail "something was done again"
has '^gru '
refused 'other settings or data' -q compare $task $small --models nsm:s=8:heads=2 --steps 60 --out whole weight_decay=0.5
refused 'other keys of the task' -q compare --task mqar length=24 vocab=16 pairs=4 train=600 valid=50 test=50 $small --models gla --out whole

# Parameters, and several sizes of state.
ok -q compare $task $small lrs=0.01 explain=0 lengths=[] --models transformer,gru,mamba2 --match params --seeds 1 --steps 8 --out p
near "$(value parameters gru p)" "$(value parameters transformer p)" 0.02 "parameters of gru"
has "^mamba2 .*parameters .*even without feed-forward"
ok -q compare $task $small lrs=0.01 explain=0 lengths=[] --models nsm,gsa --match both state=8192,16384 --seeds 1 --steps 8 --out b
near "$(value state_bytes nsm@16384 b)" 16384 0.05 "state of nsm"
near "$(value state_bytes gsa@8192 b)" 8192 0.05 "state of gsa"
near "$(value parameters gsa@8192 b)" "$(value parameters nsm@8192 b)" 0.02 "parameters of gsa"

# A stream; a learning rate at which nothing holds is a result as well.
i=0
while test $i -lt 200; do
    echo "the cat sat on the mat, and so it said."
    i=$((i + 1))
done >text
ok -q import text text text.h5 test=0.2
ok -q compare --task lm --data text.h5 --models gru,nsm:heads=2 width=16 layers=1 context=24 batch_size=4 lrs=0.01 lengths=[] explain=4 --seeds 1 --steps 40 --out lm
has '^model *bits per token  '
ok -q import text text untested.h5 valid=0.2
ok -q compare --task lm --data untested.h5 --models gru width=16 layers=1 context=24 batch_size=4 lrs=0.01 lengths=[] explain=0 --seeds 1 --steps 8 --out u
has '^model *bits per token (validation)' && has '^gru *[0-9]'
ok -q compare --data text.h5 --models gru width=16 layers=1 context=24 batch_size=4 clip=0 lrs=0.01,1e30 lengths=[] explain=0 --seeds 1 --steps 40 --out bad
grep -q '"failed"' bad/runs/gru/lr-1e+30/result.json || fail "a learning rate of 1e30 is well"
test "$(value lr gru bad)" = 0.01 || test "$(value lr gru bad)" = 0.009999999776482582 || fail "the learning rate chosen is $(value lr gru bad)"

# Time against length: a state that does not grow, and one that does.
long="--task scaling lengths=512,1024,2048,4096 segment=128 width=16 layers=1 limit=30"
ok -q compare $long --models nsm:s=8:heads=2,transformer:heads=2 --out s --json
has '"way":"decode"' && has '"way":"train"' && has '"cpu_slope_error"'
awk -F, '$1 ~ /nsm/ { key = $2 " " $6 " " $7; if (!(key in seen)) { seen[key]; kinds++ } rows++ }
    $1 ~ /transformer/ && $2 == "decode" && $6 != 128 * $3 { bad = 1 } $1 ~ /transformer/ { others++ }
    END { exit !(rows == 8 && kinds == 2 && others == 8 && !bad) }' s/table.csv || fail "memory against length: $(cat s/table.csv)"
slope=$(sed 's/.*"nsm:s=8:heads=2","way":"decode","slope":[^,]*,"slope_error":[^,]*,"cpu_slope":\([0-9.]*\),.*/\1/' out)
awk "BEGIN { exit !($slope > 0.8 && $slope < 1.2) }" || fail "the slope of time over length is $slope"
find s/runs -name result.json -exec touch -d 2001-01-01 {} +
ok -q compare $long --models nsm:s=8:heads=2,transformer:heads=2 --out s && has '^nsm:s=8:heads=2 *decode *4096'
test "$(find s/runs -name result.json ! -newermt 2002-01-01 | wc -l)" -eq 4 || fail "a time was taken again"
refused 'match state alone' -q compare $long --match params

# Fusers, on a graph's nodes with texts: a class is a bit of the text and one of the partner's feature.
awk 'BEGIN { srand(5); print "id,f,kind,said" >"nodes.csv"; print "a,b" >"edges.csv"
    for (i = 0; i < 200; i += 2) {
        for (k = 0; k < 2; k++) { f[k] = rand() < 0.5; w[k] = rand() < 0.5 }
        for (k = 0; k < 2; k++)
            print i + k "," f[k] ",c" (2 * w[k] + f[1 - k]) "," (w[k] ? "the red one" : "the blue one") >"nodes.csv"
        print i "," i + 1 >"edges.csv" } }'
ok -q import csv edges.csv pairs.h5 nodes=nodes.csv label=kind text=said
ok -q split pairs.h5 default train=0.5 valid=0.2
fused="--task fused --data pairs.h5 --match params --seeds 2 --steps 8 lrs=0.01 explain=40 explain_k=2 width=16 bases=0 layers=1 fanouts=4 batch_size=25 dropout=0 warmup=0 text_options=heads=2"
ok -q compare $fused --models nsm:slots=6,cross,concat --out f && has '^nsm:slots=6 .*routing' && has '^concat .*nothing'
near "$(value parameters concat f)" "$(value parameters nsm:slots=6 f)" 0.01 "parameters of concat"
for column in test train_seconds explained_accuracy own_comprehensiveness random_comprehensiveness fall_without_text fall_without_state; do
    test -n "$(value $column nsm:slots=6 f)" || fail "no $column of nsm"
done
test -z "$(value own_sufficiency concat f)$(value fall_without_state cross f)" || fail "what cannot be measured was"
grep -q 'src="[^d]' f/index.html && fail "the page needs something beside itself"
find f/runs -name result.json -exec touch -d 2001-01-01 {} +
ok -q compare $fused --models nsm:slots=6,cross,concat,attention nsm.topk=2 --out f2 --json && has '"model":"attention"'
ok -q compare $fused --models nsm:slots=6,cross,concat --out f
test "$(find f/runs -name result.json ! -newermt 2002-01-01 | wc -l)" -eq 12 || fail "a fuser was trained again"
refused 'there is no fuser "percever"; the nearest is "perceiver"' -q compare $fused --models percever --out x
refused 'a fuser carries no state' -q compare $fused --match state --out x
refused 'nsm bench fuser' -q compare $fused lengths=64 --out x

refused 'nearest is "gsa"' -q compare $task --models gs --out x
refused 'nearest is "mqar"' -q compare --task mqr
refused 'which task' -q compare --models nsm
refused 'but must be params, state, both or none' -q compare $task --match states
refused 'whole number' -q compare $task --seeds 0
refused 'unknown key "widht"' -q compare $task widht=3 --out x
refused 'said by an option' -q compare $task steps=3 --out x
refused 'job.json' -q compare --work nowhere

test $failures -eq 0
