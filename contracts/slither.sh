#!/usr/bin/env bash
# Runs Slither on contracts/src: every finding of high or medium severity must be explained in SLITHER.md, and nothing else may be.
# Needs Node.js, and Slither on the path: pip install slither-analyzer==0.11.6. The compiler is the one that package-lock.json pins.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD

node -e 'import("solc")' 2>/dev/null || npm ci --ignore-scripts --no-fund --no-audit

# Elsewhere: beside foundry.toml, Slither would want Foundry.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
node compile.js --input "$work/input.json"
ln -s "$here/src" "$work/src"
ln -s "$here/node_modules/@openzeppelin" "$work/@openzeppelin"
cd "$work"
# Its exit status says how much it found; SLITHER.md says whether that is right.
slither input.json --compile-force-framework Solc-json --solc "$here/solc.js" \
    --config-file "$here/slither.config.json" --json findings.json --fail-none
node "$here/slither.js" findings.json
