# tests/tools/common.sh - What tests of the program begin with: $nsm, $src, a folder of their own to
# stand in, fail, and what a command of the program is asked for.
nsm=$(cd "${top_builddir:-.}" && pwd)/nsm
src=$(cd "${top_srcdir:-.}" && pwd)
dir=$(mktemp -d) || exit 99
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 99
failures=0
fail() { echo "FAIL: $*"; failures=$((failures + 1)); }

# ok ARGUMENT...: it must succeed; its output is in out.  With --json every line is an object.
ok() {
    "$nsm" "$@" >out 2>err || fail "nsm $*: $(cat err)"
    test -s out || fail "nsm $*: no result"
    case " $* " in *' --json '*) grep -v '^{.*}$' out >junk && fail "nsm $*: not JSON: $(head -1 junk)" ;; esac
    return 0
}
has() { grep -q -e "$1" "${2:-out}" || fail "no \"$1\" in: $(head -5 "${2:-out}")"; }
refused() { # TEXT ARGUMENT...
    text=$1
    shift
    "$nsm" "$@" >out 2>err && fail "nsm $*: was not refused"
    test "$(wc -l <err)" -eq 1 || fail "nsm $*: not one line: $(cat err)"
    has "$text" err
}
