//! One file for each command.

pub mod bench;
pub mod demo;
pub mod model;
pub mod run;
pub mod selftest;
pub mod verify;
