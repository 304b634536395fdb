//! One file for each command.

pub mod bench;
pub mod demo;
pub mod devnet;
pub mod fuse;
pub mod model;
pub mod replay;
pub mod run;
pub mod selftest;
pub mod statetest;
pub mod verify;
