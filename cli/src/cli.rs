//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand};
use metis_gpu::DeviceRequest;
use metis_models::engine::{BackendChoice, EngineOptions, Processor};

use crate::commands::{bench, demo, devnet, fuse, model, replay, run, selftest, statetest, verify};
use crate::machine::{self, Machine};
use crate::report::Report;

/// An EVM whose contracts ask an LLM inside a transaction, recomputed bit for bit by every validator.
#[derive(Debug, Parser)]
#[command(name = "metisvm", version, propagate_version = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Print one JSON document instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// Threads that inference uses; the results do not depend on it.
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Instructions that inference on the CPU uses: auto, scalar, avx512, avxvnni, avx512vl, avx2, neon or portable; the results do
    /// not depend on it.
    #[arg(long, global = true, default_value_t)]
    pub backend: BackendChoice,
    /// Device that inference runs on: auto, cpu, cuda or cuda:N.
    #[arg(long, global = true, default_value = "auto")]
    pub device: DeviceRequest,
    /// Mebibytes that models and their caches may take of a GPU's memory; without it, what is free when the program starts. What does not fit runs
    /// on the CPU, with the same results.
    #[arg(long, global = true, value_name = "N")]
    pub device_memory_mib: Option<u32>,
    /// Mebibytes of memory for prefixes that prompts of a block share, for each model; 0 computes them every time. The results do not
    /// depend on it.
    #[arg(long, global = true, value_name = "N", default_value_t = 256)]
    pub prefix_cache_mib: u16,
    /// Chain configuration; without it, a chain with the embedded model. Refused by commands that execute on no chain.
    #[arg(long, global = true, value_name = "FILE")]
    pub chain: Option<PathBuf>,
}

impl Global {
    /// The CPU backend that was asked for.
    pub(crate) fn processor(&self) -> anyhow::Result<Processor> {
        Processor::new(self.backend, self.threads.into())
            .with_context(|| format!("--backend {}", self.backend))
    }

    /// The devices that were asked for.
    pub(crate) fn machine(&self) -> anyhow::Result<Machine> {
        Machine::new(self.device, self.backend, self.threads.into(), self.device_memory())
    }

    /// Bytes that may be taken of a GPU's memory.
    pub(crate) fn device_memory(&self) -> Option<usize> {
        self.device_memory_mib.map(|mebibytes| (mebibytes as usize) << 20)
    }

    /// What inference may use of this machine.
    pub(crate) fn engine_options(&self) -> EngineOptions {
        EngineOptions {
            prefix_cache_bytes: usize::from(self.prefix_cache_mib) << 20,
            ..EngineOptions::default()
        }
    }

    /// Refuses `--chain` for a command that would ignore it.
    pub(crate) fn without_chain(&self, command: &str) -> anyhow::Result<()> {
        ensure!(self.chain.is_none(), "{command} executes without a chain configuration: leave out --chain");
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Deploy a wallet that understands English, tell it three things, and re-execute it all from genesis.
    Demo(demo::Demo),
    /// Execute contract code with an input.
    Run(run::Run),
    /// Re-execute a record and compare every bit.
    Verify(verify::Verify),
    /// Execute recorded mainnet blocks again and compare each with its header.
    Replay(replay::Replay),
    /// Print the fused program of contract code.
    Fuse(fuse::Fuse),
    /// Run a chain on this machine, for those who make models and contracts.
    Devnet(devnet::Devnet),
    /// Make, check, try and pass on model bundles; register them and earn from them.
    #[command(subcommand)]
    Model(model::Model),
    /// Compare each backend with the golden vectors.
    Selftest(selftest::Selftest),
    /// Execute Ethereum's state tests.
    #[command(name = "statetest")]
    StateTest(statetest::StateTest),
    /// Measure.
    #[command(subcommand)]
    Bench(bench::Bench),
}

impl Cli {
    /// Executes the command. The exit code is 0, or 1 where a comparison failed.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        machine::find(self.global.device)?;
        let report = Report::new(self.global.json);
        match self.command {
            Command::Demo(command) => command.run(&self.global, report),
            Command::Run(command) => command.run(&self.global, report),
            Command::Verify(command) => command.run(&self.global, report),
            Command::Replay(command) => {
                self.global.without_chain("replay")?;
                command.run(report)
            }
            Command::Fuse(command) => {
                self.global.without_chain("fuse")?;
                command.run(report)
            }
            Command::Devnet(command) => command.run(&self.global, report),
            Command::Model(command) => command.run(&self.global, report),
            Command::Selftest(command) => command.run(&self.global, report),
            Command::StateTest(command) => {
                self.global.without_chain("statetest")?;
                command.run(report)
            }
            Command::Bench(command) => command.run(&self.global, report),
        }
    }
}
