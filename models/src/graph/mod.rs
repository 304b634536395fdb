//! Transformer graphs: one file per family, each reading like its forward pass.

mod llama;

pub use llama::{Llama, Workspace};
