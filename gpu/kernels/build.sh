#!/usr/bin/env bash
# Makes gpu/kernels/metis.ptx with clang 19, which needs no file of NVIDIA's. `--check` compares instead, and says so where there is no
# clang 19 (Debian's package is clang-19).
set -euo pipefail
cd "$(dirname "$0")"

clang="${CLANG:-clang-19}"
if ! command -v "$clang" >/dev/null; then
    if [ "${1:-}" = --check ]; then
        echo "skipped: $clang not found, the PTX is not compared with the kernels"
        exit 0
    fi
    echo "$clang not found; install Debian's clang-19 or set CLANG" >&2
    exit 1
fi
case "$("$clang" -dumpversion)" in
19.*) ;;
*)
    echo "skipped: $clang is version $("$clang" -dumpversion); the committed PTX is made by version 19"
    [ "${1:-}" = --check ] && exit 0 || exit 1
    ;;
esac

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
sed 's/.*/#include "&"/' order >"$work/metis.cu"
# sm_80 has everything the kernels use; PTX 7.0 is what drivers since CUDA 11.0 read.
"$clang" -x cuda -nocudainc -nocudalib --cuda-device-only --cuda-gpu-arch=sm_80 --cuda-feature=+ptx70 \
    -std=c++20 -O3 -Wall -Wextra -Werror -I. -include device.cuh "$work/metis.cu" -S -o "$work/metis.s"
# Without comments and empty lines, which are a third of it.
sed -e 's,[[:space:]]*//.*$,,' -e '/^[[:space:]]*$/d' "$work/metis.s" >"$work/metis.ptx"

if [ "${1:-}" = --check ]; then
    cmp "$work/metis.ptx" metis.ptx || {
        echo "gpu/kernels/metis.ptx is not what the kernels give: run gpu/kernels/build.sh" >&2
        exit 1
    }
else
    cp "$work/metis.ptx" metis.ptx
fi
