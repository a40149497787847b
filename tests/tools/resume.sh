#!/bin/sh
# A training run is killed, stopped, damaged and resumed: the files at its end equal, bit for bit,
# those of a run that nothing happened to; and those of any number of threads.
# NSM_KILLS says how often a run is killed (8), NSM_KILL_SEED from which seed the moments are drawn.
. "${top_srcdir:-.}/tests/tools/common.sh"

epochs=120 steps=1 key=checkpoint_every # steps: of an epoch; key: what EVERY below says
model="gat --data small.h5 patience=0 hidden=4 heads=2"
kills=${NSM_KILLS:-8}
seed=${NSM_KILL_SEED:-$$}
run= # exec: the shell becomes the program, so that its process id is the program's

# train FOLDER EVERY [ARGUMENT...]: dropout draws random numbers, and what is kept depends on validation
train() {
    folder=$1 every=$2
    shift 2
    # shellcheck disable=SC2086
    $run "$nsm" train $model --out "$folder" --resume --json -q charts=false epochs=$epochs $key="$every" "$@"
}
final() { echo "$1/checkpoint-$((epochs * steps)).h5"; }
same() { # FOLDER REFERENCE WHAT
    cmp -s "$(final "$1")" "$(final "$2")" || fail "$3: another final checkpoint"
    cmp -s "$1/best.h5" "$2/best.h5" || fail "$3: another best.h5"
    cut -d, -f1-7 "$1/log.csv" >log1 # the last column is time
    cut -d, -f1-7 "$2/log.csv" | cmp -s - log1 || fail "$3: another log"
}
reference() { # EVERY: the run that nothing happens to, once
    test -d "whole-$1" && return
    began=$(date +%s%N)
    train "whole-$1" "$1" >"whole-$1.json" || fail "the whole run fails"
    whole=$((($(date +%s%N) - began) / 1000000))
}

"$nsm" -q generate csbm small.h5 nodes=300 features=8 --json >/dev/null || exit 1

# ---- no checkpoint: afresh; a finished run: its result again ----
reference 1
test -s whole-1/best.h5 && test -s "$(final whole-1)" || fail "no checkpoint at the end"
cp -r whole-1 again
train again 1 >again.json || fail "--resume of a finished run: exit code $?"
same again whole-1 'a finished run resumed'
for field in test valid epoch epochs; do
    want=$(grep -o "\"$field\":[^,}]*" whole-1.json) have=$(grep -o "\"$field\":[^,}]*" again.json)
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
has_checkpoint() { for file in "$1"/checkpoint-*.h5; do test -e "$file" && return; done; return 1; }
signalled() { # SIGNAL EVERY: send it to a run that has a checkpoint; code is the run's
    rm -rf "stop-$1"
    (run=exec && train "stop-$1" "$2" >stop.json 2>/dev/null) &
    pid=$!
    while kill -0 $pid 2>/dev/null && ! has_checkpoint "stop-$1"; do sleep 0.01; done
    kill -"$1" $pid 2>/dev/null
    wait $pid
    code=$?
}
stopped() { # SIGNAL NUMBER EVERY
    for try in 1 2 3 4 5; do # on a busy machine a run may be over before the signal is sent
        signalled "$1" "$3"
        test $code -eq 0 || break
    done
    test $code -eq $((128 + $2)) || fail "SIG$1: exit code $code, the ${try}th time"
    grep -q '"interrupted":true' stop.json || fail "SIG$1: the result does not say so"
    train "stop-$1" "$3" >/dev/null || fail "SIG$1: cannot be resumed"
    same "stop-$1" "whole-$3" "SIG$1"
}
short=$epochs epochs=1500
reference 20
stopped INT 2 20
stopped TERM 15 20
epochs=$short

# ---- killed at random moments ----
# kill KILLS STRIDE: the moments are drawn from the whole length of a run, its start and end included;
# checkpoints come every STRIDE, 2 * STRIDE, ...
kill_runs() {
    done=0
    while test $done -lt "$1"; do
        every=$(((done % 5 + 1) * $2))
        reference $every
        rm -rf killed
        finished=no
        while test $finished = no; do
            (run=exec && train killed $every >/dev/null 2>killed.err) &
            pid=$!
            seed=$(((seed * 69069 + 12345) % 65536))
            if test $done -lt "$1"; then
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
        same killed whole-$every "killed $done times, $key=$every"
    done 2>/dev/null
    echo "$done kills"
}
kill_runs "$kills" 1

# ---- within an epoch of sampled batches: stopped and killed there ----
rm -rf whole-* stop-* killed
"$nsm" -q generate sbm batches.h5 nodes=16000 features=8 train=0.5 --json >/dev/null || exit 1
model="sage --data batches.h5 hidden=4 batch_size=2 fanouts=3,2 norm=batch ema=0.99 whole_mib=0 eval_nodes=100 keep=best"
epochs=2 key=checkpoint_steps steps=4000
reference 100
test -s "$(final whole-100)" || fail "an epoch has not $steps steps"
stopped INT 2 100
grep -q '"epochs":0,' stop.json || fail "the signal waited for the end of the epoch: $(cat stop.json)"
stopped TERM 15 100
kill_runs $(((kills + 1) / 2)) 67

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
