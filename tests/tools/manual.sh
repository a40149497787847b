#!/bin/sh
# The manual: every command is in it, and its EXAMPLES run in their order.
. "${top_srcdir:-.}/tests/tools/common.sh"
page=$src/doc/nsm.1

for c in $("$nsm" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
    grep -q "nsm $c " "$page" || fail "nsm.1 does not tell of nsm $c"
done
if command -v man >/dev/null; then
    man --warnings -l "$page" 2>warnings >/dev/null
    test ! -s warnings || fail "man: $(cat warnings)"
fi

sed -n '/^\.SH EXAMPLES/,/^\.SH SEE/p' "$page" | sed -n '/^\.EX/,/^\.EE/{/^\./d;s/\\-/-/g;p}' >examples
grep -q '^nsm ' examples || fail "no examples"
charts=yes # the example is a graph: PLplot draws it, igraph places its nodes
for part in PLPLOT IGRAPH; do
    grep -q "#define HAVE_$part" "$(dirname "$nsm")/config.h" || charts=no
done
while read -r line; do
    case $line in 'nsm plot'*) test $charts = yes || continue ;; esac
    eval "\"\$nsm\" ${line#nsm }" >out 2>err || fail "$line: $(cat err)"
    test -s out || fail "$line: no result"
done <examples

test $failures -eq 0
