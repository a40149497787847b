# tests/tools/common.sh - What tests of the program begin with: $nsm, $src, a folder of their own to
# stand in, and fail.
nsm=$(cd "${top_builddir:-.}" && pwd)/nsm
src=$(cd "${top_srcdir:-.}" && pwd)
dir=$(mktemp -d) || exit 99
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 99
failures=0
fail() { echo "FAIL: $*"; failures=$((failures + 1)); }
