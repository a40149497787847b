#!/bin/sh
# tests/examples.sh - The examples as a user builds them: against the installed library, through
# pkg-config, as C and as C++; then run.
set -eu
src=$(cd "${top_srcdir:-.}" && pwd)
build=$(cd "${top_builddir:-.}" && pwd)
: "${CC:=cc}" "${CXX:=c++}"
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
make -C "$build" -s install DESTDIR="$place/root" >"$place/install.log" 2>&1 || { cat "$place/install.log"; exit 1; }

igraph=$(pkg-config --cflags igraph 2>/dev/null || true) # before the sysroot: it is the system's own
pc=$(find "$place/root" -name nsm.pc)
libdir=$(dirname "$(dirname "$pc")")
PKG_CONFIG_PATH=$(dirname "$pc")
PKG_CONFIG_SYSROOT_DIR=$place/root
LD_LIBRARY_PATH=$libdir
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR LD_LIBRARY_PATH
flags=$(pkg-config --cflags --libs nsm)
extra=${NSM_EXAMPLE_FLAGS-}

# shellcheck disable=SC2086 # flags are words
try() {
    compiler=$1 name=$2 as=$3
    $compiler $as -Wall -Wextra "$src/examples/$name.c" $extra $flags -lm -o "$place/$name"
    "$place/$name" || { echo "$name failed"; exit 1; }
}
try "$CC" train_gcn "-std=c11"
try "$CXX" train_gcn "-x c++ -std=c++11"
try "$CC" custom_op "-std=c11"

# every installed header stands alone, as C and as C++
for header in $(cd "$place/root" && find . -path '*/include/*' -name '*.h'); do
    name=${header##*include/}
    printf '#include <%s>\nint main(void) { return 0; }\n' "${name#nsm/}" >"$place/h.c"
    # shellcheck disable=SC2046,SC2086
    "$CC" -std=c11 -Wall -Wextra -pedantic -fsyntax-only $flags $igraph "$place/h.c"
    # shellcheck disable=SC2046,SC2086
    "$CXX" -x c++ -std=c++11 -Wall -Wextra -fsyntax-only $flags $igraph "$place/h.c"
done

# only nsm_* leaves the library
if nm -D --defined-only "$libdir/libnsm.so" | awk '$2 ~ /[TDBRVW]/ {print $3}' | grep -v '^nsm_'; then
    echo "names that do not begin with nsm_ are exported"
    exit 1
fi
