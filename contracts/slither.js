// Compares what Slither has found with what SLITHER.md explains. Run by slither.sh.
import fs from 'node:fs';

const { success, error, results } = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
if (!success) throw new Error(error);

/** `detector contract.function`, of the first thing that a finding is about. */
function nameOf({ check, elements: [{ name, type_specific_fields }] }) {
  // A variable is in a function, which is in a contract.
  const path = [name];
  for (let { parent } = type_specific_fields ?? {}; parent && parent.type !== 'file'; parent = parent.type_specific_fields?.parent) {
    path.unshift(parent.name);
  }
  return `${check} ${path.slice(0, 2).join('.')}`;
}

const found = new Set((results.detectors ?? []).map(nameOf));
const rows = fs.readFileSync(new URL('./SLITHER.md', import.meta.url), 'utf8').matchAll(/^\| (?:high|medium) \| `(.+?)` \| (.+?) \|/gm);
const explained = new Set([...rows].flatMap(([, detector, places]) => [...places.matchAll(/`(.+?)`/g)].map(([, place]) => `${detector} ${place}`)));

// A row may name a whole contract.
const contractOf = (name) => name.split('.')[0];
const missing = [...found].filter((name) => !explained.has(name) && !explained.has(contractOf(name)));
const contracts = new Set([...found].map(contractOf));
const stale = [...explained].filter((name) => !found.has(name) && !contracts.has(name));
for (const name of missing) console.error(`not explained in contracts/SLITHER.md: ${name}`);
for (const name of stale) console.error(`explained in contracts/SLITHER.md, but no finding: ${name}`);
if (missing.length + stale.length > 0) process.exit(1);
console.log(`${found.size} findings, all explained in contracts/SLITHER.md`);
