// How to test a contract that asks models, without the VM. Gateway and shares are the real ones.
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { artifact, installMetis } from '@metisvm/contracts/testing';
import { network } from 'hardhat';

const MODEL = `0x${'42'.repeat(32)}`;

describe('a desk that asks models', () => {
  let ethers, inference, registry, shares, desk, owner, user;

  beforeEach(async () => {
    const connection = await network.create();
    ethers = connection.ethers;
    [, owner, user] = await ethers.getSigners();
    const addresses = await installMetis(connection.provider);
    inference = await ethers.getContractAt(artifact('MockInference').abi, addresses.inference);
    registry = await ethers.getContractAt(artifact('MockRegistry').abi, addresses.registry);
    shares = await ethers.getContractAt(artifact('DataAnchoringToken').abi, addresses.shares);
    desk = await ethers.deployContract('Desk');
  });

  const bytes = (text) => ethers.hexlify(ethers.toUtf8Bytes(text));

  /** The error that a call reverts with, read with the ABI of a contract. */
  async function errorOf(call, name) {
    try {
      await call;
    } catch (error) {
      return new ethers.Interface(artifact(name).abi).parseError(error.data ?? error.cause?.data);
    }
    return assert.fail('it did not revert');
  }

  it('gets the answer that was said', async () => {
    await inference.mockText(bytes('Topic of: the match'), bytes('sport'));
    assert.equal(ethers.toUtf8String(await desk.topic(bytes('the match'))), 'sport');
  });

  it('sees the errors of the precompile', async () => {
    const errors = new ethers.Interface(artifact('IMetisInference').abi);
    const { selector } = errors.getFunction('generateConstrained');
    await inference.mockCallRevert(selector, errors.encodeErrorResult('PromptTooLong', [300, 128]));
    const error = await errorOf(desk.topic(bytes('the match')), 'IMetisInference');
    assert.deepEqual([error.name, ...error.args], ['PromptTooLong', 300n, 128n]);
  });

  it('fails where nothing was said', async () => {
    const error = await errorOf(desk.topic(bytes('the match')), 'MockInference');
    assert.equal(error.name, 'NotMocked');
    assert.equal(ethers.toUtf8String(error.args.prompt), 'Topic of: the match');
  });

  it('pays a model with its caller\'s money and gives the rest back', async () => {
    await registry.mockModel(MODEL, owner.address, 500n, 0n);
    await inference.mockText(bytes('Sing!'), bytes('La la la.'));
    const before = await ethers.provider.getBalance(user.address);
    const sent = await desk.connect(user).note(MODEL, bytes('Sing!'), { value: 2_000n });
    const { gasUsed, gasPrice } = await sent.wait();
    assert.equal(ethers.toUtf8String(await desk.noted()), 'La la la.');
    assert.equal(await desk.spent(), 500n);
    assert.equal(await ethers.provider.getBalance(user.address), before - 500n - gasUsed * gasPrice);

    const { classId } = await registry.billingOf(MODEL);
    const token = (classId << 64n) | 1n;
    assert.equal(await shares.pendingRevenue(token, ethers.ZeroAddress), 500n);
    await shares.connect(owner).claim(token, ethers.ZeroAddress, owner.address);
    assert.equal(await shares.pendingRevenue(token, ethers.ZeroAddress), 0n);
  });

  it('cannot pay less than the price', async () => {
    await registry.mockModel(MODEL, owner.address, 500n, 0n);
    await inference.mockDefaultText(bytes('La la la.'));
    const call = desk.connect(user).note.staticCall(MODEL, bytes('Sing!'), { value: 499n });
    const error = await errorOf(call, 'InferenceGateway');
    assert.deepEqual([error.name, ...error.args], ['PriceExceeded', 500n, 499n]);
  });
});
