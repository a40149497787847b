#!/bin/sh
# The command line of nsm: exit codes, help on every command, names in errors, stdout for results only.
nsm=${top_builddir:-.}/nsm
dir=$(mktemp -d) || exit 99
trap 'rm -rf "$dir"' EXIT
failures=0

fail() { echo "FAIL: $*"; failures=$((failures + 1)); }

# expect CODE TEXT ARGUMENT...: the exit code, and TEXT on stderr (or "-": nothing on stdout is asked)
expect() {
    code=$1 text=$2
    shift 2
    "$nsm" "$@" >"$dir/out" 2>"$dir/err"
    got=$?
    test $got -eq "$code" || fail "nsm $*: exit code $got, want $code: $(cat "$dir/err")"
    test -z "$text" || grep -q -e "$text" "$dir/err" || fail "nsm $*: no \"$text\" on stderr: $(cat "$dir/err")"
    test "$code" -eq 0 || test ! -s "$dir/out" || fail "nsm $*: a failure wrote on stdout"
}

expect 2 'no command'
expect 2 'nearest known one is "import"' imprt
expect 2 'nearest known one is --json' import --jsn
expect 2 'nearest known one is --threads' --thread5 info x
expect 2 'threads' info x --threads 0
expect 2 'threads' info x --threads=two
expect 2 'seed' info x --seed -1
expect 2 'device' info x --device tpu
expect 2 'must be float32, tf32 or bf16' info x --precision half
expect 2 'wants --device=cuda: the CPU computes in float32 alone' info x --precision bf16
expect 2 'requires an argument' info x --seed
expect 2 'nearest known one is "plot"' help plto

commands=$("$nsm" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
test -n "$commands" || fail "nsm --help lists no commands"
"$nsm" help | grep -q '^Commands:' || fail "nsm help"
for c in $commands; do
    for option in --help --usage --version -h; do
        expect 0 '' "$c" $option
        test -s "$dir/out" || fail "nsm $c $option: nothing on stdout"
        test ! -s "$dir/err" || fail "nsm $c $option: stderr: $(cat "$dir/err")"
    done
    "$nsm" help "$c" >"$dir/help" || fail "nsm help $c"
    "$nsm" "$c" --help | cmp -s - "$dir/help" || fail "nsm help $c differs from nsm $c --help"
    for option in --json --threads --seed --device --precision --quiet --help --version; do
        grep -q -e "$option" "$dir/help" || fail "nsm $c --help does not name $option"
    done
    LC_ALL=C grep -q '[^ -~]' "$dir/help" && fail "nsm $c --help: a character that is not ASCII"
    expect 2 'nearest known' "$c" --no-such-option
    awk 'length > 100 { exit 1 }' "$dir/help" || fail "nsm $c --help: a line of more than 100 letters"
done

expect 1 'no/such' info "$dir/no/such"
expect 1 'no/such' info "$dir/no/such" --json
echo text >"$dir/text"
expect 1 "$dir/text" info "$dir/text"
if test -c /dev/full; then
    "$nsm" --help >/dev/full 2>/dev/null && fail "a full disk went unnoticed"
fi

test $failures -eq 0
