#!/usr/bin/env bash
# Runs the tests of examples-test: what somebody who installs the package can do with its mocks, in Foundry and in Hardhat.
# The tools come from npm, pinned in each folder's package-lock.json; Hardhat 3 needs Node.js 22.10.
set -euo pipefail
cd "$(dirname "$0")"

# The compiler that both use.
node -e 'import("solc")' 2>/dev/null || npm ci --ignore-scripts --no-fund --no-audit

run() { # folder, command
    echo "== $1"
    (cd "examples-test/$1" && npm ci --ignore-scripts --no-fund --no-audit && npx --no-install $2)
}

run foundry "forge test"
if node -e 'const [major, minor] = process.versions.node.split("."); process.exit(major > 22 || (major == 22 && minor >= 10) ? 0 : 1)'; then
    run hardhat "hardhat test nodejs"
else
    echo "skipped: Hardhat's tests, which need Node.js 22.10 (this is $(node --version))"
fi
