// Compiles every source under src/ and writes one JSON file per contract into the folder named on the command line.
// Run by build.sh. The output is a function of the sources and of the pinned compiler, byte for byte.
//
// With `--input <file>` it writes what a compiler would have to be given instead, with all sources in it. Run by slither.sh and for natspec.js.
import fs from 'node:fs';
import path from 'node:path';
import solc from 'solc';

const HERE = import.meta.dirname;

const SETTINGS = {
  optimizer: { enabled: true, runs: 200 },
  evmVersion: 'cancun',
  // No hash of sources or comments in the code: equal code for equal meaning.
  metadata: { bytecodeHash: 'none', appendCBOR: false },
};

/** What a source imports from a package: `{contents}` or `{error}`, as the compiler asks. */
function imported(file) {
  const found = path.join(HERE, 'node_modules', file);
  return fs.existsSync(found) ? { contents: fs.readFileSync(found, 'utf8') } : { error: `${file} is not installed: npm ci` };
}

/** Paths of all Solidity files under `dir`, sorted. */
function sources(dir) {
  return fs
    .readdirSync(dir, { withFileTypes: true })
    .flatMap((entry) => {
      const file = `${dir}/${entry.name}`;
      return entry.isDirectory() ? sources(file) : file.endsWith('.sol') ? [file] : [];
    })
    .sort();
}

/** What the compiler is given: sources, settings, and what is wanted of each contract and of each source. */
function inputOf(files, ofContracts, ofSources = []) {
  return {
    language: 'Solidity',
    sources: Object.fromEntries(files.map((file) => [file, { content: fs.readFileSync(file, 'utf8') }])),
    settings: { ...SETTINGS, outputSelection: { '*': { '*': ofContracts, '': ofSources } } },
  };
}

function compile(files) {
  const input = inputOf(files, ['abi', 'evm.bytecode.object', 'evm.deployedBytecode.object']);
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: imported }));
  // Warnings too, but not those about packages.
  const problems = (output.errors ?? []).filter(
    ({ severity, sourceLocation }) => severity === 'error' || sourceLocation?.file.startsWith('src/') !== false,
  );
  for (const problem of problems) console.error(problem.formattedMessage);
  if (problems.length) process.exit(1);
  return output.contracts;
}

function writeInput(files, target) {
  const ofContracts = ['abi', 'metadata', 'devdoc', 'userdoc', 'evm.bytecode', 'evm.deployedBytecode', 'evm.methodIdentifiers'];
  const input = inputOf(files, ofContracts, ['ast']);
  // The compiler finds out what is imported.
  const collect = (file) => {
    const found = imported(file);
    if (found.contents) input.sources[file] = { content: found.contents };
    return found;
  };
  solc.compile(JSON.stringify(inputOf(files, [])), { import: collect });
  fs.writeFileSync(target, JSON.stringify(input));
}

function writeArtifacts(files, target) {
  fs.mkdirSync(target, { recursive: true });
  const seen = new Set();
  for (const [source, contracts] of Object.entries(compile(files))) {
    if (!source.startsWith('src/')) continue; // of a package
    for (const [contractName, { abi, evm }] of Object.entries(contracts)) {
      if (seen.has(contractName)) throw new Error(`two contracts are called ${contractName}`);
      seen.add(contractName);
      const artifact = {
        contractName,
        source,
        abi,
        bytecode: `0x${evm.bytecode.object}`,
        deployedBytecode: `0x${evm.deployedBytecode.object}`,
        compiler: solc.version(),
        settings: SETTINGS,
      };
      fs.writeFileSync(path.join(target, `${contractName}.json`), `${JSON.stringify(artifact, null, 2)}\n`);
    }
  }
  console.log(`${seen.size} contracts in ${target}`);
}

const [first, second] = process.argv.slice(2).map((argument) => (argument.startsWith('--') ? argument : path.resolve(argument)));
process.chdir(HERE);
if (first === '--input' && second) writeInput(sources('src'), second);
else if (first && !first.startsWith('--')) writeArtifacts(sources('src'), first);
else throw new Error('usage: node compile.js <folder> | --input <file>');
