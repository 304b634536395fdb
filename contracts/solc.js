#!/usr/bin/env node
// The compiler that package-lock.json pins, as a command: what Foundry and Slither need of `solc`. Sources come with the input, so paths
// are ignored.
import fs from 'node:fs';
import solc from 'solc';

if (process.argv.includes('--version')) {
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${solc.version()}`);
} else if (process.argv.includes('--standard-json')) {
  // Synchronous: a pipe must be empty before the process ends.
  fs.writeSync(1, solc.compile(fs.readFileSync(0, 'utf8')));
} else {
  console.error('usage: solc.js --version | --standard-json');
  process.exit(2);
}
