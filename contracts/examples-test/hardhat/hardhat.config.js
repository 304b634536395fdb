import hardhatEthers from '@nomicfoundation/hardhat-ethers';
import hardhatNodeTestRunner from '@nomicfoundation/hardhat-node-test-runner';
import { fileURLToPath } from 'node:url';

export default {
  plugins: [hardhatEthers, hardhatNodeTestRunner],
  solidity: {
    version: '0.8.30',
    // The compiler from npm. Without this line Hardhat downloads the same.
    path: fileURLToPath(import.meta.resolve('solc/soljson.js')),
    settings: { optimizer: { enabled: true, runs: 200 }, evmVersion: 'cancun' },
  },
};
