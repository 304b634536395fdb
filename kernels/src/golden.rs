//! Known-answer vectors per kernel, and the self-test that any backend must pass before it is used for consensus.
//!
//! The vectors are text (`kernels/golden/*.txt`, format in `docs/numerics.md` section 10), so that an implementation in another language can
//! read them without this crate.

mod answers;
mod attention;
mod batches;
mod cases;
mod layer;
mod reuse;
mod selftest;
mod vectors;

pub use answers::{FunctionMismatch, check_functions};
pub use selftest::{KernelMismatch, SelfTestError, SelfTestReport, selftest};
pub use vectors::{Case, VectorError, parse};

/// Every golden file: name and text.
pub const FILES: [(&str, &str); 20] = [
    ("tables", include_str!("../golden/tables.txt")),
    ("quantise", include_str!("../golden/quantise.txt")),
    ("embed", include_str!("../golden/embed.txt")),
    ("grouped_embed", include_str!("../golden/grouped_embed.txt")),
    ("rmsnorm", include_str!("../golden/rmsnorm.txt")),
    ("layernorm", include_str!("../golden/layernorm.txt")),
    ("normalise", include_str!("../golden/normalise.txt")),
    ("linear", include_str!("../golden/linear.txt")),
    ("grouped_linear", include_str!("../golden/grouped_linear.txt")),
    ("bias", include_str!("../golden/bias.txt")),
    ("rope", include_str!("../golden/rope.txt")),
    ("attention", include_str!("../golden/attention.txt")),
    ("silu_gate", include_str!("../golden/silu_gate.txt")),
    ("gelu_tanh", include_str!("../golden/gelu_tanh.txt")),
    ("gelu_erf", include_str!("../golden/gelu_erf.txt")),
    ("soft_cap", include_str!("../golden/soft_cap.txt")),
    ("sampling", include_str!("../golden/sampling.txt")),
    ("log_probability", include_str!("../golden/log_probability.txt")),
    ("weights", include_str!("../golden/weights.txt")),
    ("grouped_weights", include_str!("../golden/grouped_weights.txt")),
];
