//! The methods of Ethereum's JSON-RPC that wallets and tools use.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use alloy_eips::BlockNumberOrTag;
use alloy_primitives::{Address, B256, Bytes, U64, U256};
use alloy_rpc_types_eth::{
    BlockId, FeeHistory, Filter, FilterBlockOption, FilteredParams, TransactionRequest,
};
use jsonrpsee::RpcModule;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use metis_vm::{Outcome, Status, Transaction, VmError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::oneshot;

use super::chain::{BASE_FEE, Block, Chain};
use super::{ACCOUNTS, answers, estimate};
use crate::errors::describe_revert;
use crate::node::Node;

/// What tools expect for a call that reverts.
const REVERTED: i32 = 3;
/// Arguments that make no sense.
const INVALID: i32 = -32_602;
/// Everything else.
const SERVER: i32 = -32_000;
/// Wei per gas that wallets are told to add for the block's maker.
const TIP: u64 = 1_000_000_000;

type Answer = Result<Value, ErrorObjectOwned>;

/// A chain on a thread of its own, which answers one question at a time: a machine stays on the thread that it was made on.
#[derive(Clone, Debug)]
pub struct Shared(Sender<Question>);

type Question = Box<dyn FnOnce(&mut Chain) + Send>;

impl Shared {
    /// Starts a chain at its genesis.
    ///
    /// What comes second arrives when the chain cannot go on: why, or nothing if its thread has panicked.
    pub fn start(node: Node, records: Option<PathBuf>) -> (Self, oneshot::Receiver<String>) {
        let (sender, questions) = mpsc::channel::<Question>();
        let (ending, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let mut chain = Chain::new(node, records);
            for question in questions {
                question(&mut chain);
                if let Some(reason) = chain.broken() {
                    // Whoever has gone before needs no reason.
                    drop(ending.send(reason.to_owned()));
                    return;
                }
            }
        });
        (Self(sender), ended)
    }

    /// Asks the chain, and waits for its answer; `None` if it is gone.
    pub fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Chain) -> R + Send + 'static,
    ) -> Option<R> {
        let (sender, answer) = mpsc::channel();
        let asked = self.0.send(Box::new(move |chain| drop(sender.send(question(chain)))));
        asked.ok().and_then(|()| answer.recv().ok())
    }
}

fn error(code: i32, message: impl Into<String>) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(code, message.into(), None::<()>)
}

fn answer(value: impl Serialize) -> Answer {
    serde_json::to_value(value).map_err(|e| error(SERVER, e.to_string()))
}

/// The argument at a place; `None` where there are fewer.
fn optional<T: DeserializeOwned>(params: &[Value], at: usize) -> Result<Option<T>, ErrorObjectOwned> {
    match params.get(at) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value.clone())
            .map(Some)
            .map_err(|e| error(INVALID, format!("argument {}: {e}", at + 1))),
    }
}

fn required<T: DeserializeOwned>(params: &[Value], at: usize) -> Result<T, ErrorObjectOwned> {
    optional(params, at)?.ok_or_else(|| error(INVALID, format!("argument {} is missing", at + 1)))
}

/// The methods. They take locks and may have a model work for seconds, so they run on threads of their own.
pub fn module(chain: Shared) -> anyhow::Result<RpcModule<Shared>> {
    type Method = fn(&mut Chain, &[Value]) -> Answer;
    const METHODS: [(&str, Method); 29] = [
        ("eth_chainId", |chain, _| answer(U64::from(chain.node().config().chain_id))),
        ("net_version", |chain, _| answer(chain.node().config().chain_id.to_string())),
        ("web3_clientVersion", |_, _| answer(concat!("metisvm/", env!("CARGO_PKG_VERSION")))),
        ("net_listening", |_, _| answer(true)),
        ("eth_syncing", |_, _| answer(false)),
        ("eth_accounts", |_, _| answer(ACCOUNTS)),
        ("eth_blockNumber", |chain, _| answer(U64::from(chain.latest().header.number))),
        ("eth_gasPrice", |chain, _| answer(U256::from(next_fee(chain)) + U256::from(TIP))),
        ("eth_maxPriorityFeePerGas", |_, _| answer(U256::from(TIP))),
        ("eth_feeHistory", fee_history),
        ("eth_getBlockByNumber", |chain, params| {
            let whole = optional(params, 1)?.unwrap_or(false);
            answer(at(chain, required(params, 0)?)?.map(|block| answers::block(block, whole)))
        }),
        ("eth_getBlockByHash", |chain, params| {
            let whole = optional(params, 1)?.unwrap_or(false);
            answer(chain.block_by_hash(required(params, 0)?).map(|block| answers::block(block, whole)))
        }),
        ("eth_getTransactionByHash", |chain, params| {
            answer(chain.block_of(required(params, 0)?).and_then(answers::transaction))
        }),
        ("eth_getTransactionReceipt", |chain, params| {
            answer(chain.block_of(required(params, 0)?).and_then(answers::transaction_receipt))
        }),
        ("eth_getBlockReceipts", |chain, params| {
            let receipts = |block| answers::transaction_receipt(block).into_iter().collect::<Vec<_>>();
            answer(at(chain, required(params, 0)?)?.map(receipts))
        }),
        ("eth_getLogs", logs),
        ("eth_getBalance", |chain, params| {
            present(chain, params, 1)?;
            answer(chain.vm().balance(required(params, 0)?))
        }),
        ("eth_getTransactionCount", |chain, params| {
            present(chain, params, 1)?;
            answer(U64::from(chain.vm().nonce(required(params, 0)?)))
        }),
        ("eth_getCode", |chain, params| {
            present(chain, params, 1)?;
            answer(chain.vm().account(required(params, 0)?).code)
        }),
        ("eth_getStorageAt", |chain, params| {
            present(chain, params, 2)?;
            let (address, slot): (Address, U256) = (required(params, 0)?, required(params, 1)?);
            let value = chain.vm().account(address).storage.get(&slot).copied().unwrap_or_default();
            answer(B256::from(value))
        }),
        ("eth_call", |chain, params| {
            present(chain, params, 1)?;
            let tx = request(chain, params)?;
            let outcome = chain.simulate(&tx).map_err(|e| refused(&e))?;
            if outcome.is_success() { answer(outcome.output) } else { Err(reverted(&outcome)) }
        }),
        ("eth_estimateGas", |chain, params| {
            present(chain, params, 1)?;
            let tx = request(chain, params)?;
            let estimated = estimate::gas(chain, &tx).map_err(|e| refused(&e))?;
            answer(U64::from(estimated.map_err(|outcome| reverted(&outcome))?))
        }),
        ("eth_sendRawTransaction", |chain, params| {
            let raw: Bytes = required(params, 0)?;
            answer(chain.send(&raw).map_err(|e| error(SERVER, e.to_string()))?)
        }),
        ("eth_sendTransaction", |chain, params| {
            let request: TransactionRequest = required(params, 0)?;
            let from = request.from.ok_or_else(|| error(INVALID, "argument 1: `from` is missing"))?;
            let sent = chain.send_as(from, request);
            answer(sent.map_err(|e| error(SERVER, e.to_string()))?)
        }),
        ("evm_mine", |chain, _| {
            chain.mine();
            answer(U64::from(chain.latest().header.number))
        }),
        ("evm_increaseTime", |chain, params| {
            let seconds = match required(params, 0)? {
                Value::Number(number) => number.as_u64(),
                Value::String(text) => text.parse::<U64>().ok().map(|seconds| seconds.to()),
                _ => None,
            };
            let seconds = seconds.ok_or_else(|| error(INVALID, "argument 1: not a number of seconds"))?;
            answer(chain.increase_time(seconds).map_err(|e| error(INVALID, e.to_string()))?)
        }),
        ("metis_inferenceBaseFee", |chain, _| answer(U256::from(chain.next_inference_fee()))),
        ("metis_chain", |chain, _| answer(chain.node().config())),
        ("metis_state", |chain, _| answer(chain.vm().state())),
    ];
    let mut module = RpcModule::new(chain);
    for (name, method) in METHODS {
        module.register_blocking_method(name, move |params: Params<'_>, chain: Arc<Shared>, _| {
            let params: Vec<Value> = match params.as_str() {
                None => Vec::new(),
                Some(_) => params.parse()?,
            };
            let answered = chain.ask(move |chain| method(chain, &params));
            answered.unwrap_or_else(|| Err(error(SERVER, "the chain has stopped; its log says why")))
        })?;
    }
    Ok(module)
}

/// What gas of any kind costs in the next block.
fn next_fee(chain: &Chain) -> u64 {
    BASE_FEE.max(chain.next_inference_fee())
}

fn at(chain: &Chain, number: BlockNumberOrTag) -> Result<Option<&Block>, ErrorObjectOwned> {
    Ok(match number {
        BlockNumberOrTag::Number(number) => chain.block(number),
        BlockNumberOrTag::Earliest => chain.block(0),
        // Nothing waits: a transaction is a block at once.
        _ => Some(chain.latest()),
    })
}

/// Refuses to answer for the past: only the last state is kept.
fn present(chain: &Chain, params: &[Value], index: usize) -> Result<(), ErrorObjectOwned> {
    let latest = &chain.latest().header;
    let is_latest = match optional::<BlockId>(params, index)? {
        None => true,
        Some(BlockId::Number(BlockNumberOrTag::Number(number))) => number == latest.number,
        Some(BlockId::Number(BlockNumberOrTag::Earliest)) => latest.number == 0,
        Some(BlockId::Number(_)) => true,
        Some(BlockId::Hash(hash)) => hash.block_hash == latest.hash(),
    };
    if is_latest {
        return Ok(());
    }
    let message = format!("this chain keeps the state of its last block only, which is {}", latest.number);
    Err(error(SERVER, message))
}

/// A call as the machine takes it, from a method's arguments.
fn request(chain: &Chain, params: &[Value]) -> Result<Transaction, ErrorObjectOwned> {
    let request: TransactionRequest = required(params, 0)?;
    for (at, what) in [(2, "the state"), (3, "the block")] {
        let overrides: Option<Value> = optional(params, at)?;
        if overrides.is_some_and(|overrides| overrides.as_object().is_none_or(|map| !map.is_empty())) {
            return Err(error(INVALID, format!("argument {}: {what} cannot be overridden here", at + 1)));
        }
    }
    let input = request.input.try_into_unique_input();
    let input = input.map_err(|e| error(INVALID, e.to_string()))?.unwrap_or_default();
    let from = request.from.unwrap_or_default();
    let tx = match request.to.and_then(|kind| kind.into_to()) {
        Some(to) => Transaction::call(from, to, input),
        None => Transaction::create(from, input),
    };
    let value = request.value.unwrap_or_default();
    // Without a price, gas is free.
    let price = request.max_fee_per_gas.or(request.gas_price).filter(|price| *price > 0);
    let affordable = price.map(|price| {
        let money = chain.vm().balance(from).saturating_sub(value);
        (money / U256::from(price)).saturating_to::<u64>().min(chain.most_gas())
    });
    Ok(Transaction {
        gas: request.gas.or(affordable),
        gas_price: price,
        max_priority_fee: request
            .max_priority_fee_per_gas
            .filter(|_| request.max_fee_per_gas.is_some() && price.is_some()),
        ..tx.with_value(value)
    })
}

fn refused(refusal: &VmError) -> ErrorObjectOwned {
    error(SERVER, refusal.to_string())
}

fn reverted(outcome: &Outcome) -> ErrorObjectOwned {
    if outcome.status != Status::Revert {
        return error(SERVER, outcome.status.to_string());
    }
    let message = match describe_revert(outcome) {
        Some(reason) => format!("execution reverted: {reason}"),
        None => "execution reverted".to_owned(),
    };
    ErrorObjectOwned::owned(REVERTED, message, Some(outcome.output.clone()))
}

fn fee_history(chain: &mut Chain, params: &[Value]) -> Answer {
    let count: U64 = required(params, 0)?;
    let newest = at(chain, required(params, 1)?)?;
    let newest = newest.ok_or_else(|| error(INVALID, "argument 2: no such block"))?.header.number;
    let percentiles: Option<Vec<f64>> = optional(params, 2)?;
    let is_wrong = |list: &Vec<f64>| list.len() > 100 || list.iter().any(|p| !(0.0..=100.0).contains(p));
    if percentiles.as_ref().is_some_and(is_wrong) {
        return Err(error(INVALID, "argument 3: not at most 100 percentiles from 0 to 100"));
    }
    let count = count.to::<u64>().clamp(1, 1_024).min(newest + 1);
    let oldest = newest + 1 - count;
    let blocks: Vec<&Block> = (oldest..=newest).filter_map(|number| chain.block(number)).collect();
    let mut base_fee_per_gas = vec![u128::from(BASE_FEE); blocks.len()];
    // Of the next block: what a transaction must offer, whatever it does.
    base_fee_per_gas.push(next_fee(chain).into());
    let ratio = |block: &&Block| block.header.gas_used as f64 / block.header.gas_limit as f64;
    answer(FeeHistory {
        oldest_block: oldest,
        gas_used_ratio: blocks.iter().map(ratio).collect(),
        reward: percentiles.map(|percentiles| vec![vec![u128::from(TIP); percentiles.len()]; blocks.len()]),
        base_fee_per_gas,
        ..FeeHistory::default()
    })
}

fn logs(chain: &mut Chain, params: &[Value]) -> Answer {
    let filter: Filter = required(params, 0)?;
    let blocks: Vec<&Block> = match filter.block_option {
        FilterBlockOption::AtBlockHash(hash) => chain.block_by_hash(hash).into_iter().collect(),
        FilterBlockOption::Range { from_block, to_block } => {
            let number = |tag: Option<BlockNumberOrTag>| {
                let tag = tag.unwrap_or(BlockNumberOrTag::Latest);
                match tag {
                    BlockNumberOrTag::Number(number) => number,
                    BlockNumberOrTag::Earliest => 0,
                    _ => chain.latest().header.number,
                }
            };
            let end = number(to_block).min(chain.latest().header.number);
            (number(from_block)..=end).filter_map(|number| chain.block(number)).collect()
        }
    };
    let filtered = FilteredParams::new(Some(filter));
    let wanted = |log: &alloy_rpc_types_eth::Log| {
        filtered.filter_address(&log.address()) && filtered.filter_topics(log.topics())
    };
    answer(blocks.into_iter().flat_map(answers::logs).filter(wanted).collect::<Vec<_>>())
}
