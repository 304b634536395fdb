// Puts the system contracts of a MetisVM chain into a test network that has none: Hardhat's, or anvil.
//
//   import { installMetis } from '@metisvm/contracts/testing';
//   const addresses = await installMetis(provider); // any EIP-1193 provider
//
// The precompile and the registry are stand-ins: `MockInference` and `MockRegistry` at the real addresses. The gateway and the
// shares are the real contracts, so priced calls pay as they do on a chain.
import fs from 'node:fs';

/** Where a MetisVM chain has its system contracts. */
export const ADDRESSES = Object.freeze({
  inference: '0x000000000000000000000000000000000000A100',
  registry: '0x000000000000000000000000000000000000A200',
  gateway: '0x000000000000000000000000000000000000a201',
  shares: '0x000000000000000000000000000000000000A202',
});

const CODE = {
  inference: 'MockInference',
  registry: 'MockRegistry',
  gateway: 'InferenceGateway',
  shares: 'DataAnchoringToken',
};

/** The compiled form of a contract of this package: `{abi, bytecode, deployedBytecode, …}`. */
export function artifact(name) {
  return JSON.parse(fs.readFileSync(new URL(`./artifacts/${name}.json`, import.meta.url), 'utf8'));
}

/** Deploys each contract and copies its code to its address. Returns the addresses. */
export async function installMetis(provider) {
  const request = (method, ...params) => provider.request({ method, params });
  const [from] = await request('eth_accounts');
  for (const [place, name] of Object.entries(CODE)) {
    const hash = await request('eth_sendTransaction', { from, data: artifact(name).bytecode });
    const receipt = await request('eth_getTransactionReceipt', hash);
    if (!receipt?.contractAddress) throw new Error(`${name} was not deployed: the network must mine each transaction at once`);
    const code = await request('eth_getCode', receipt.contractAddress, 'latest');
    await request('hardhat_setCode', ADDRESSES[place], code);
  }
  return ADDRESSES;
}
