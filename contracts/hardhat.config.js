// For work on these contracts with Hardhat 3 (`npm install --no-save hardhat`). Tests are in examples-test/hardhat.
import { fileURLToPath } from 'node:url';

export default {
  // `artifacts` is what compile.js makes.
  paths: { sources: './src', artifacts: './out/hardhat', cache: './cache/hardhat' },
  solidity: {
    version: '0.8.30',
    // The compiler that package-lock.json pins: nothing is downloaded.
    path: fileURLToPath(import.meta.resolve('solc/soljson.js')),
    // As compile.js has them.
    settings: {
      optimizer: { enabled: true, runs: 200 },
      evmVersion: 'cancun',
      metadata: { bytecodeHash: 'none', appendCBOR: false },
    },
  },
};
