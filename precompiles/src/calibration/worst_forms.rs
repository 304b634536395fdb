//! Constraints that take the most time for their gas to read and to build, under the default caps. No model runs.

use alloy_primitives::{B256, Bytes};
use alloy_sol_types::SolCall;

use super::worst_inputs::{GREEDY, Input};
use crate::abi::{self, generateConstrainedCall};

pub(super) fn all() -> Vec<Input> {
    let named = |name: &str| format!("`generateConstrained`, {name}");
    let refused = |name, pattern| Input::refused(named(name), matching(pattern, 0, GREEDY));
    let answered = |name, pattern| Input::answered(named(name), matching(pattern, 0, GREEDY));
    // What comes after `*a` doubles the states with each byte: the construction stops at the largest automaton.
    let each = each_byte();
    let c = abi::Constraint { pattern: Bytes::new(), options: options() };
    vec![
        refused("a pattern of classes, wrong at its end", [&classes()[..], b"("].concat()),
        refused("too many states, few classes", b"[ab]*a[ab]{200}".to_vec()),
        refused("too many states, many positions", b"(a?){800}[ab]*a[ab]{200}".to_vec()),
        refused("too many states, many classes", [b"(", &each[..], b")*a.{200}"].concat()),
        refused("too many of all", [b"(.?){600}(", &each[..], b")*a.{200}"].concat()),
        answered("nested repetitions", ["(".repeat(30), "(x?){30})+".repeat(30)].concat().into_bytes()),
        Input::answered(named("the largest options"), constrained(c, 0, GREEDY)),
    ]
}

pub(super) fn matching(pattern: Vec<u8>, max_new: u32, s: abi::Sampling) -> Vec<u8> {
    constrained(abi::Constraint { pattern: pattern.into(), options: vec![] }, max_new, s)
}

fn constrained(c: abi::Constraint, max_new: u32, s: abi::Sampling) -> Vec<u8> {
    generateConstrainedCall { model: B256::ZERO, prompt: "a".into(), maxNew: max_new, s, c }.abi_encode()
}

/// 200 classes, no two the same.
fn classes() -> Vec<u8> {
    (0..200).flat_map(|i| [b'[', b'0' + i / 20, b'-', b'a' + i % 20, b']']).collect()
}

/// Each of 190 bytes as an alternative.
fn each_byte() -> Vec<u8> {
    let letters = (b'0'..=b'z').filter(u8::is_ascii_alphanumeric);
    letters.chain(0x80..=0xff).flat_map(|byte| [b'|', byte]).skip(1).collect()
}

/// 64 options of 15 bytes, which share no beginnings and use all bytes.
fn options() -> Vec<Bytes> {
    let byte = |n: u8, i: u8| n.wrapping_mul(4).wrapping_add(i.wrapping_mul(17));
    (0..64).map(|n| (0..15).map(|i| byte(n, i)).collect::<Vec<u8>>().into()).collect()
}
