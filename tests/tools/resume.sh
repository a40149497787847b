#!/bin/sh
# A training run is killed, stopped, damaged and resumed: the files at its end equal, bit for bit,
# those of a run that nothing happened to; and those of any number of threads.
# NSM_KILLS says how often a run is killed (8), NSM_KILL_SEED from which seed the moments are drawn.
. "${top_srcdir:-.}/tests/tools/common.sh"

epochs=120
kills=${NSM_KILLS:-8}
seed=${NSM_KILL_SEED:-$$}
run= # exec: the shell becomes the program, so that its process id is the program's

# train FOLDER EVERY [ARGUMENT...]: dropout draws random numbers, and what is kept depends on validation
train() {
    folder=$1 every=$2
    shift 2
    $run "$nsm" train gat --data small.h5 --out "$folder" --resume --json -q charts=false epochs=$epochs \
        checkpoint_every="$every" patience=0 hidden=4 heads=2 "$@"
}
final() { echo "$1/checkpoint-$epochs.h5"; }
same() { # FOLDER REFERENCE WHAT
    cmp -s "$(final "$1")" "$(final "$2")" || fail "$3: another final checkpoint"
    cmp -s "$1/best.h5" "$2/best.h5" || fail "$3: another best.h5"
    cut -d, -f1-7 "$1/log.csv" >log1 # the last column is time
    cut -d, -f1-7 "$2/log.csv" | cmp -s - log1 || fail "$3: another log"
}
reference() { # EVERY: the run that nothing happens to, once
    test -d "whole-$1" || train "whole-$1" "$1" >"whole-$1.json" || fail "the whole run fails"
}

"$nsm" -q generate csbm small.h5 nodes=300 features=8 --json >/dev/null || exit 1

# ---- no checkpoint: afresh; a finished run: its result again ----
began=$(date +%s%N)
reference 1
whole=$((($(date +%s%N) - began) / 1000000))
test -s whole-1/best.h5 && test -s "$(final whole-1)" || fail "no checkpoint at the end"
cp -r whole-1 again
train again 1 >again.json || fail "--resume of a finished run: exit code $?"
same again whole-1 'a finished run resumed'
for key in test valid epoch epochs; do
    want=$(grep -o "\"$key\":[^,}]*" whole-1.json) have=$(grep -o "\"$key\":[^,}]*" again.json)
    test "$have" = "$want" || fail "a finished run resumed says $have, it was $want"
done

# ---- a damaged newest checkpoint: the one before ----
test "$(ls again/checkpoint-*.h5 | wc -l)" -eq 2 || fail "not two checkpoints are kept"
printf 'damage' | dd of="$(final again)" bs=1 seek=3000 conv=notrunc 2>/dev/null
train again 1 >/dev/null || fail "a damaged newest checkpoint: exit code $?"
same again whole-1 'a damaged newest checkpoint'
head -c 2000 "$(final whole-1)" >"$(final again)"
train again 1 >/dev/null || fail "a cut newest checkpoint: exit code $?"
same again whole-1 'a cut newest checkpoint'

# ---- Ctrl-C and the like: a checkpoint, 128 + the signal, and on ----
stopped() { # SIGNAL NUMBER: stop a run once it has a checkpoint
    (run=exec && train "stop-$1" 20 >stop.json 2>/dev/null) &
    pid=$!
    while kill -0 $pid 2>/dev/null && test ! -e "stop-$1/checkpoint-20.h5"; do sleep 0.01; done
    kill -"$1" $pid
    wait $pid
    code=$?
    test $code -eq $((128 + $2)) || fail "SIG$1: exit code $code"
    grep -q '"interrupted":true' stop.json || fail "SIG$1: the result does not say so"
    test ! -e "$(final "stop-$1")" || fail "SIG$1 came too late: the run is too short"
    train "stop-$1" 20 >/dev/null || fail "SIG$1: cannot be resumed"
    same "stop-$1" whole-20 "SIG$1"
}
short=$epochs epochs=1500
reference 20
stopped INT 2
stopped TERM 15
epochs=$short

# ---- killed at random moments ----
# The moments are drawn from the whole length of a run, its start and end included.
done=0 every=1
while test $done -lt "$kills"; do
    every=$((done % 5 + 1))
    reference $every
    rm -rf killed
    finished=no
    while test $finished = no; do
        (run=exec && train killed $every >/dev/null 2>killed.err) &
        pid=$!
        seed=$(((seed * 69069 + 12345) % 65536))
        if test $done -lt "$kills"; then
            sleep "$(awk "BEGIN { print $seed / 65536 * $whole / 1000 }")"
            if kill -9 $pid 2>/dev/null; then done=$((done + 1)); fi
        fi
        wait $pid
        code=$?
        test $code -eq 0 && finished=yes
        if test $code -ne 0 && test $code -ne 137; then
            fail "after $done kills: exit code $code: $(cat killed.err)"
            finished=yes
        fi
    done
    same killed whole-$every "killed $done times, checkpoint_every=$every"
done 2>/dev/null
echo "$done kills"

# ---- any number of threads ----
"$nsm" -q generate sbm large.h5 nodes=3000 features=40 --json >/dev/null || exit 1
threads() { # NAME ARGUMENT...
    name=$1
    shift
    for n in 1 2 3 5; do
        "$nsm" train "$@" --data large.h5 --out "$name-$n" --threads $n -q --json epochs=6 hidden=32 \
            charts=false >/dev/null || fail "$name with $n threads"
        cmp -s "$name-1/checkpoint-6.h5" "$name-$n/checkpoint-6.h5" || fail "$name: $n threads give other weights"
    done
}
threads gcn gcn
threads gat gat dropout=0.6 attn_dropout=0.6
threads sage sage
threads norm gcn norm=batch optimizer=adamw residual=true

test $failures -eq 0
