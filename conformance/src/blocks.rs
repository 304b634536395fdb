//! Recorded mainnet blocks.
