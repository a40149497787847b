#!/bin/sh
# Training on sampled neighbours: it learns, the same bits for any number of threads and after a resume.
. "${top_srcdir:-.}/tests/tools/common.sh"
number() { sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p" out; }
above() { # NAME LEAST
    awk -v x="$(number "$1")" -v least="$2" 'BEGIN { exit !(x > least) }' || fail "$1 is $(number "$1"), want more than $2"
}
last() { ls -v "$1"/checkpoint-*.h5 | tail -1; } # the final state
train() { # FOLDER ARGUMENT...
    to=$1
    shift
    "$nsm" -q train sage --data a.h5 --out "$to" hidden=16 batch_size=64 fanouts=5,3 epochs=8 checkpoint_every=1 \
        row_normalize=false charts=false --json "$@" >out 2>err || fail "train $to $*: $(cat err)"
}

"$nsm" -q generate sbm a.h5 nodes=2000 classes=4 features=16 train=0.5 seed=3 >/dev/null || fail "generate"

# chance is 0.25
train one --threads 1
above test 0.6
above sampled_edges_per_s 1
for threads in 2 3; do
    train "of$threads" --threads $threads
    cmp "$(last one)" "$(last "of$threads")" || fail "$threads threads: other bits"
done
rm "$(last of2)"
train of2 --resume --seed 5
cmp "$(last one)" "$(last of2)" || fail "resumed: other bits"

# evaluation on sampled neighbours, of some of the nodes; features in the file
train small whole_mib=0 eval_nodes=300 in_file=true
above test 0.6
cmp -s "$(last one)" "$(last small)" && fail "settings are not in the checkpoint"
"$nsm" eval small --json >out 2>err && above test 0.6 || fail "eval: $(cat err)"
"$nsm" predict small --out p.csv >out 2>err || fail "predict: $(cat err)"
test "$(wc -l <p.csv)" -eq 2001 || fail "predict: not one line a node"
"$nsm" export small g.graphml >out 2>err && fail "export: drew edges that are sampled"
train attention model=gat heads=2
above test 0.6
train both symmetric=true row_normalize=true
train whole fanouts=-1,-1
above test 0.6
"$nsm" train sage --data a.h5 --out dry hidden=16 batch_size=64 --dry-run --json >out 2>err || fail "dry run: $(cat err)"
above parameters 100

for wrong in model=gcn fanouts=5 fanouts=5,1.5 fanouts=5,-2; do
    "$nsm" train sage --data a.h5 --out wrong batch_size=64 "$wrong" >out 2>err && fail "$wrong was not refused"
    test "$(wc -l <err)" -eq 1 || fail "$wrong: not one line: $(cat err)"
done

test $failures -eq 0
