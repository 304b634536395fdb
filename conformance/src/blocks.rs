//! Recorded mainnet blocks: every transaction executed again, and compared with what the header says.
//!
//! | module | what it holds |
//! |---|---|
//! | [`recording`](self::Recording) | a folder of blocks with the state that they read |
//! | [`json`] | block, transaction and account as JSON-RPC writes them |
//! | [`schedule`] | which fork a mainnet block is under |
//! | [`pre_state`](self::PreState) | the recorded state as a database that refuses to guess |
//! | [`replay`](self::RecordedBlock::replay) | system calls, then the transactions in order |
//! | [`receipt`] | receipts, their trie root and the logs bloom |
//! | [`digest`] | everything that a transaction did, as 32 bytes |
//!
//! The way through: [`Recording::open`], [`Recording::block`], [`RecordedBlock::replay`] with a cache that names the
//! interpreter, and a [`BlockReport`] that says what matched the header and carries the digests by which two
//! interpreters are compared.
//!
//! # What is checked, and what cannot be
//! Gas and logs bloom of the header; from Byzantium on the receipts root too. Before Byzantium (EIP-658) a receipt holds
//! the state root after its transaction, and no root can be computed from the part of the state that a block reads. For
//! the same reason the header's state root is never checked, so neither withdrawals nor block rewards are applied: no
//! transaction of the same block can see them. Senders are taken from the recording, not recovered from signatures.

pub mod digest;
pub mod json;
mod pre_state;
pub mod receipt;
mod recording;
mod replay;
pub mod schedule;

pub use pre_state::{PreState, Unrecorded};
pub use recording::{RecordedBlock, Recording};
pub use replay::{BlockReport, Executed};

use alloy_primitives::B256;
use revm::context::result::{EVMError, InvalidTransaction};
use std::{io, path::PathBuf};

/// Why a recorded block was not replayed. A block that was, but differs from its header, is no error.
#[derive(Debug, thiserror::Error)]
pub enum BlocksError {
    /// There is no folder.
    #[error(
        "{} is no folder with recorded blocks: blocks/N/block.json, blocks/N/pre_state.json, bytecodes.json and \
         block_hashes.json",
        path.display()
    )]
    NoRecording {
        /// What is there instead, if anything.
        path: PathBuf,
    },
    /// A folder beside those of the blocks.
    #[error("{}: the folder's name is no block number", path.display())]
    NoBlock {
        /// Which.
        path: PathBuf,
    },
    /// A file or folder cannot be read.
    #[error("{}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}", path.display())]
    Json {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A code does not have the hash under which it is recorded.
    #[error("the code recorded as {hash} is another one, or no code at all")]
    WrongCode {
        /// The hash.
        hash: B256,
    },
    /// An account's code is not in the recording.
    #[error("block {block}: code {hash} is not in the recording")]
    MissingCode {
        /// The block.
        block: u64,
        /// The code's hash.
        hash: B256,
    },
    /// The file of one block holds another.
    #[error("the file of block {expected} holds block {found}")]
    WrongBlock {
        /// The block that was asked for.
        expected: u64,
        /// The block in the file.
        found: u64,
    },
    /// The block is of a fork whose mainnet parameters are not known here.
    #[error("block {block}: its fork is later than {}", metis_vm::fork::name(schedule::LAST))]
    UnknownFork {
        /// The block.
        block: u64,
    },
    /// The header lacks what its fork requires.
    #[error("block {block}: the header has no usable {field}")]
    Header {
        /// The block.
        block: u64,
        /// The field.
        field: &'static str,
    },
    /// A transaction lacks what its type requires, or the type is unknown.
    #[error("block {block}, transaction {index}: {problem}")]
    Transaction {
        /// The block.
        block: u64,
        /// The position in the block.
        index: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// A transaction cannot be in this block, or reads what was not recorded.
    #[error("block {block}, transaction {index}")]
    Execution {
        /// The block.
        block: u64,
        /// The position in the block.
        index: usize,
        /// Why.
        source: Box<EVMError<Unrecorded, InvalidTransaction>>,
    },
    /// A system call before the first transaction failed.
    #[error("block {block}: system call")]
    SystemCall {
        /// The block.
        block: u64,
        /// Why.
        source: Box<EVMError<Unrecorded, InvalidTransaction>>,
    },
}
