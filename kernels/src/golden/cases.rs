//! Inputs of the golden vectors, and of the larger synthetic cases that the self-test digests.

use super::vectors::Case;
use crate::formats::{ACTIVATION_LIMIT, GROUP_INPUTS, MANTISSA_BITS};
use crate::tables::rope_frequencies;

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a fixed stream of test inputs.
#[derive(Clone, Debug)]
pub(super) struct Stream(u64);

impl Stream {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn symmetric(&mut self, limit: i64) -> i64 {
        self.below(2 * limit as u64 + 1) as i64 - limit
    }

    /// Values with a magnitude of up to `bits` bits; a few are much larger than the rest, as in real models.
    pub(super) fn values(&mut self, count: usize, bits: u32) -> Vec<i64> {
        (0..count)
            .map(|_| {
                let bits = if self.below(16) == 0 { bits } else { bits.saturating_sub(4).max(1) };
                self.symmetric((1 << bits) - 1)
            })
            .collect()
    }

    pub(super) fn scales(&mut self, count: usize) -> (Vec<i64>, Vec<i64>) {
        let half = 1i64 << (MANTISSA_BITS - 1);
        let mantissas = (0..count).map(|_| half + self.below(half as u64) as i64).collect();
        let exponents = (0..count).map(|_| -30 - self.below(6) as i64).collect();
        (mantissas, exponents)
    }
}

/// Cases of a file about a kernel, at a given size.
pub(super) fn kernel(file: &str, s: &mut Stream, name: String, size: usize) -> Case {
    let case = Case::new(name);
    match file {
        "embed" => {
            let (m, e) = s.scales(1);
            let weights: Vec<i64> = (0..size).map(|_| s.symmetric(127)).collect();
            let case = case.with("weights", &weights).with("mantissa", &m).with("exponent", &e);
            // Every third: the factor sqrt(size).
            if size.is_multiple_of(3) {
                case.with("factor", &[(1i64 << 22) + 1_000 * size as i64, -20])
            } else {
                case
            }
        }
        "layernorm" | "normalise" => {
            let bits = 4 + s.below(27) as u32;
            let gains: Vec<i64> = (0..size).map(|_| s.symmetric(1 << (18 + size % 8))).collect();
            let case = case.with("epsilon", &[42_950i64]).with("gains", &gains);
            let biases: Vec<i64> = (0..size).map(|_| s.symmetric(1 << 22)).collect();
            let plain = file == "normalise" && size.is_multiple_of(2);
            let case = if plain { case } else { case.with("biases", &biases) };
            let runs = if file == "normalise" { 1 + size % 3 } else { 1 };
            case.with("x", &s.values(runs * size, bits))
        }
        "rmsnorm" => {
            let bits = 4 + s.below(27) as u32;
            let gains: Vec<i64> = (0..size).map(|_| s.symmetric(1 << (18 + size % 8))).collect();
            case.with("epsilon", &[42_950i64]).with("gains", &gains).with("x", &s.values(size, bits))
        }
        "linear" => {
            let outputs = 1 + size / 7 % 24;
            let (m, e) = s.scales(outputs);
            let weights: Vec<i64> = (0..outputs * size).map(|_| s.symmetric(127)).collect();
            let activations: Vec<i64> = (0..size).map(|_| s.symmetric(ACTIVATION_LIMIT)).collect();
            case.with("inputs", &[size as i64])
                .with("exponent", &[-(s.below(20) as i64)])
                .with("activations", &activations)
                .with("weights", &weights)
                .with("mantissas", &m)
                .with("exponents", &e)
        }
        "grouped_embed" | "grouped_linear" => {
            let (rows, plain) = match file {
                "grouped_embed" => (1, "embed"),
                _ => (1 + size / 7 % 24, "linear"),
            };
            let multipliers: Vec<u64> =
                (0..rows * size.div_ceil(GROUP_INPUTS)).map(|_| 1 + s.below(255)).collect();
            kernel(plain, s, case.name, size).with("multipliers", &multipliers)
        }
        "rope" => {
            let pairs = (size / 2).clamp(1, 128);
            case.with("frequencies", &rope_frequencies(10_000, 2 * pairs))
                .with("position", &[s.below(4_096)])
                .with("head", &s.values(2 * pairs, 24))
        }
        "attention" => {
            let (kv_heads, group) = (1 + size % 3, 1 + size % 2);
            let (heads, head_dim) = (kv_heads * group, 2 * (1 + size % 32));
            let positions = 1 + size / 4;
            let case = case.with("shape", &[heads as i64, kv_heads as i64, head_dim as i64]);
            let case = match size % 4 {
                1 => case.with("view", &[1i64, 1 + size as i64 / 7, 0, head_dim as i64]),
                2 => case.with("view", &[0i64, 0, 0, head_dim as i64]),
                3 => case.with("view", &[1i64, 5, 50 << 16, 24]),
                _ => case,
            };
            case.with("q", &s.values(positions * heads * head_dim, 19))
                .with("k", &s.values(positions * kv_heads * head_dim, 18))
                .with("v", &s.values(positions * kv_heads * head_dim, 17))
        }
        "bias" => case.with("bias", &s.values(size, 28)).with("x", &s.values(size, 31)),
        "soft_cap" => case.with("cap", &[(1 + size as i64) << 16]).with("x", &s.values(size, 26)),
        _ => {
            let gate = s.values(size, 20);
            let up = if file != "silu_gate" && size.is_multiple_of(2) { vec![] } else { s.values(size, 19) };
            case.with("gate", &gate).with("up", &up)
        }
    }
}

/// The files about kernels, in the order of a forward pass.
pub(super) const KERNELS: [&str; 14] = [
    "embed",
    "grouped_embed",
    "rmsnorm",
    "layernorm",
    "normalise",
    "linear",
    "grouped_linear",
    "bias",
    "rope",
    "attention",
    "silu_gate",
    "gelu_tanh",
    "gelu_erf",
    "soft_cap",
];

/// Seeded cases, larger than the golden files: what the self-test digests.
pub(super) fn synthetic(file: &'static str) -> impl Iterator<Item = Case> {
    let mut s = Stream::new(0x6d65_7469_7300 + file.len() as u64);
    let sizes = [1, 2, 3, 8, 15, 16, 17, 31, 33, 63, 64, 65, 96, 127, 128, 129, 192, 255, 256, 257, 352, 511];
    sizes.into_iter().map(move |size| kernel(file, &mut s, format!("{file}_{size}"), size))
}

#[cfg(test)]
mod bless {
    //! `METISVM_BLESS=1 cargo test -p metis-kernels golden` rewrites the answers of the golden files from their inputs. A change
    //! of them is a hard fork.

    use std::fs;
    use std::path::Path;

    use super::super::vectors::{Case, parse};
    use super::super::{FILES, answers};
    use crate::Scalar;

    /// The file with every answer computed again.
    fn answered(file: &str, committed: &str) -> String {
        let mut text =
            format!("# Golden vectors of `{file}`; the format is section 10 of docs/numerics.md.\n");
        for case in parse(committed).unwrap() {
            let inputs = case.lines.into_iter().filter(|(name, _)| !name.starts_with("out")).collect();
            let mut case = Case { name: case.name, lines: inputs };
            let answers = match answers::function(file, &case) {
                Some(answers) => answers.unwrap(),
                None => answers::kernel(&Scalar::new(), file, &case).unwrap().unwrap(),
            };
            for (name, values) in answers {
                case = case.with(name, &values);
            }
            text.push('\n');
            case.write(&mut text);
        }
        text
    }

    #[test]
    fn golden_files_are_what_the_reference_computes() {
        for (file, committed) in FILES {
            let text = answered(file, committed);
            if std::env::var_os("METISVM_BLESS").is_some() {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{file}.txt"));
                fs::write(path, &text).unwrap();
            } else {
                assert!(text == committed, "{file}: the answers changed; that is a hard fork");
            }
        }
    }
}
