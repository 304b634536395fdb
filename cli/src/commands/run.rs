//! `metisvm run`: execute contract code with an input.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alloy_dyn_abi::{DynSolType, DynSolValue, FunctionExt, JsonAbiExt};
use alloy_json_abi::Function;
use alloy_primitives::{Address, Bytes, U256, address, hex};
use anyhow::{Context, anyhow, ensure};
use clap::Args;
use metis_vm::{Account, Outcome, Recorder, State, Transaction};
use serde_json::json;

use crate::cli::Global;
use crate::code::read_code;
use crate::errors::{describe_revert, show};
use crate::node::Node;
use crate::report::Report;

/// Where the code is put unless `--to` says otherwise.
const CALLEE: Address = address!("0xCcCCccCcCcCcCCCCCCCCcCCCCcCcCcCcccccccCc");
/// Who calls unless `--from` says otherwise.
const CALLER: Address = address!("0x1111111111111111111111111111111111111111");

/// Executes contract code with an input, and prints what a receipt would say.
#[derive(Debug, Args)]
pub struct Run {
    /// Runtime code: hex, a file with hex, or a compiler artefact (`deployedBytecode`). Without it, `--to` names the callee.
    #[arg(long, value_name = "FILE|HEX", required_unless_present = "to")]
    code: Option<String>,
    /// Calldata in hex.
    #[arg(long, value_name = "HEX", conflicts_with = "sol_call")]
    input: Option<String>,
    /// A Solidity function and its arguments, for example: --sol-call 'ask(string)(string)' 'hello'
    #[arg(long, value_names = ["SIGNATURE", "ARGUMENT"], num_args = 1.., allow_negative_numbers = true)]
    sol_call: Option<Vec<String>>,
    /// State to start from: accounts as JSON (docs/evm.md).
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// The callee.
    #[arg(long, value_name = "ADDRESS")]
    to: Option<Address>,
    /// The caller.
    #[arg(long, value_name = "ADDRESS", default_value_t = CALLER)]
    from: Address,
    /// Wei that the caller sends along.
    #[arg(long, value_name = "WEI", default_value_t = U256::ZERO)]
    value: U256,
    /// Gas limit; by default as much as the chain allows.
    #[arg(long, value_name = "N")]
    gas: Option<u64>,
    /// Like `eth_call`: keep nothing of what it does.
    #[arg(long, conflicts_with = "record")]
    simulate: bool,
    /// Write everything that a re-execution needs to this file.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

impl Run {
    /// Runs the command.
    pub fn run(self, global: &Global, report: Report) -> anyhow::Result<ExitCode> {
        let function = self.sol_call.as_ref().map(|call| parse_function(&call[0])).transpose()?;
        let input = self.input(function.as_ref())?;
        let mut state = match &self.state {
            Some(path) => read_state(path)?,
            None => State::default(),
        };
        let callee = self.to.unwrap_or(CALLEE);
        if let Some(code) = &self.code {
            let account = state.accounts.entry(callee).or_insert_with(Account::default);
            ensure!(
                account.code.is_empty(),
                "the state already has code at {callee}: leave out --code, or put it elsewhere with --to"
            );
            account.code = read_code(code)?;
        }

        let node = Node::new(global)?;
        let mut recorder = Recorder::new(node.vm(state), node.chain()?);
        let mut tx = Transaction::call(self.from, callee, input).with_value(self.value);
        tx.gas = self.gas;
        let outcome = if self.simulate { recorder.simulate(&tx) } else { recorder.transact(&tx) }?;
        let (mut record, vm) = recorder.finish();
        if let Some(path) = &self.record {
            record.answers = node.take_answers()?;
            std::fs::write(path, record.to_json()?).with_context(|| format!("record {}", path.display()))?;
        }

        let decoded = function.as_ref().and_then(|function| decode_output(function, &outcome));
        let revert = describe_revert(&outcome);
        let value = json!({
            "outcome": outcome, "decoded": decoded, "revert": revert, "state_digest": vm.state().digest(),
            "record": self.record,
        });
        report.finish(&value, || {
            text(&outcome, decoded.as_deref(), revert.as_deref(), self.record.as_deref())
        })?;
        Ok(if outcome.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn input(&self, function: Option<&Function>) -> anyhow::Result<Bytes> {
        match (function, &self.sol_call, &self.input) {
            (Some(function), Some(call), _) => encode_call(function, &call[1..]),
            (_, _, Some(input)) => Ok(hex::decode(input).context("--input is not hex")?.into()),
            _ => Ok(Bytes::new()),
        }
    }
}

fn parse_function(signature: &str) -> anyhow::Result<Function> {
    Function::parse(signature).map_err(|error| {
        anyhow!("--sol-call {signature:?} is not a signature such as 'ask(string)' or 'ask(string)(string)': {error}")
    })
}

fn encode_call(function: &Function, arguments: &[String]) -> anyhow::Result<Bytes> {
    ensure!(
        function.inputs.len() == arguments.len(),
        "{} takes {} arguments, {} were given",
        function.signature(),
        function.inputs.len(),
        arguments.len()
    );
    let values = function
        .inputs
        .iter()
        .zip(arguments)
        .map(|(parameter, argument)| {
            let kind = DynSolType::parse(&parameter.selector_type())?;
            // Text stands for itself; everything else is read as Solidity would write it.
            if kind == DynSolType::String {
                return Ok(DynSolValue::String(argument.clone()));
            }
            kind.coerce_str(argument)
                .with_context(|| format!("argument {argument:?} is not a {}", parameter.ty))
        })
        .collect::<anyhow::Result<Vec<DynSolValue>>>()?;
    Ok(function.abi_encode_input(&values)?.into())
}

fn decode_output(function: &Function, outcome: &Outcome) -> Option<Vec<String>> {
    if !outcome.is_success() || function.outputs.is_empty() {
        return None;
    }
    let values = function.abi_decode_output(&outcome.output).ok()?;
    Some(values.iter().map(show).collect())
}

fn read_state(path: &Path) -> anyhow::Result<State> {
    let text = std::fs::read_to_string(path).with_context(|| format!("state {}", path.display()))?;
    State::from_json(&text).with_context(|| format!("state {}", path.display()))
}

fn text(
    outcome: &Outcome,
    decoded: Option<&[String]>,
    revert: Option<&str>,
    record: Option<&Path>,
) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<8} {value}");
    };
    line("status", outcome.status.to_string());
    if let Some(revert) = revert {
        line("reason", revert.to_owned());
    }
    line("gas", outcome.gas_used.to_string());
    line("output", outcome.output.to_string());
    for value in decoded.unwrap_or_default() {
        line("returns", value.clone());
    }
    for log in &outcome.logs {
        line("log", log.to_string());
    }
    if let Some(record) = record {
        line(
            "record",
            format!("{} (re-execute it with: metisvm verify {})", record.display(), record.display()),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_encoded_as_solidity_would() {
        let function = parse_function("f(string,uint256[])(bool)").unwrap();
        let input = encode_call(&function, &["a, b".into(), "[1,2]".into()]).unwrap();
        assert_eq!(&input[..4], function.selector().as_slice());
        assert!(encode_call(&function, &["a".into()]).unwrap_err().to_string().contains("takes 2 arguments"));
        assert!(encode_call(&function, &["a".into(), "x".into()]).is_err());
        assert!(parse_function("f(").is_err());
    }

    #[test]
    fn code_that_is_neither_hex_nor_a_file_is_named() {
        assert!(read_code("nowhere.hex").unwrap_err().to_string().contains("neither hex nor a file"));
        assert_eq!(read_code("0x6001").unwrap(), Bytes::from_static(&[0x60, 1]));
    }
}
