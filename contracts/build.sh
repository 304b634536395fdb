#!/usr/bin/env bash
# Compiles contracts/src into contracts/artifacts. The artefacts are committed, so that nothing else needs a Solidity compiler.
#
#   contracts/build.sh           write the artefacts
#   contracts/build.sh --check   compile elsewhere and fail if the committed artefacts differ, or something is not documented
set -euo pipefail
cd "$(dirname "$0")"

case "${1-}" in
    "" | --check) ;;
    *) echo "usage: $0 [--check]" >&2; exit 2 ;;
esac

# The compiler is the one in package-lock.json, checked by its hash.
pinned=$(node -p 'require("./package.json").devDependencies.solc')
installed=$(node -p 'require("solc/package.json").version' 2>/dev/null || true)
if [ "$pinned" != "$installed" ]; then
    npm ci --ignore-scripts --no-fund --no-audit
fi

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
node compile.js "$fresh"

if [ "${1-}" = --check ]; then
    if ! diff -r -q artifacts "$fresh"; then
        echo "contracts/artifacts is not what contracts/src compiles to; run contracts/build.sh and commit the result" >&2
        exit 1
    fi
    node compile.js --input "$fresh/input"
    node natspec.js "$fresh/input"
    echo "artefacts are up to date, and everything in src is documented"
else
    rm -rf artifacts
    mkdir artifacts
    cp "$fresh"/*.json artifacts/
fi
