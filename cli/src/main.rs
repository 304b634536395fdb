//! The `metisvm` command.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use metisvm::cli::Cli;
use metisvm::errors::explained;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("METISVM_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();

    let json = cli.global.json;
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            let said = explained(&error);
            if json {
                let text = serde_json::json!({ "error": &said });
                let _ = writeln!(std::io::stdout(), "{text}");
            }
            eprintln!("error: {said}");
            ExitCode::FAILURE
        }
    }
}
