//! Rotary frequencies from a configuration: the base, and what stretches it to longer contexts.

use std::path::Path;

use metis_kernels::tables::rope_frequencies;
use serde_json::Value;

use super::{ImportError, numbers};

/// What rotary frequencies follow from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rope {
    pub(crate) theta: u64,
    /// The base of layers with a window, if it is another; it is not stretched.
    pub(crate) local_theta: Option<u64>,
    pub(crate) scaling: Option<RopeScaling>,
}

/// How frequencies are lowered for contexts longer than the one of pre-training. All numbers are Q32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RopeScaling {
    /// All by one factor.
    Linear { factor: u64 },
    /// Low ones by the factor, high ones not at all, and a ramp between them (Llama 3.1).
    Llama3 { factor: u64, low: u64, high: u64, original: u64 },
}

impl Rope {
    /// Turns per token, Q64, one for each pair of channels.
    pub(crate) fn frequencies(&self, head_dim: usize) -> Vec<u64> {
        let frequencies = rope_frequencies(self.theta, head_dim);
        match self.scaling {
            None => frequencies,
            Some(scaling) => frequencies.into_iter().map(|f| scaling.apply(f)).collect(),
        }
    }

    /// Those of layers with a window.
    pub(crate) fn local_frequencies(&self, head_dim: usize) -> Vec<u64> {
        rope_frequencies(self.local_theta.unwrap_or(self.theta), head_dim)
    }
}

impl RopeScaling {
    /// Reads `rope_scaling` or `rope_parameters`; anything but the known kinds is refused by its name.
    pub(super) fn read(path: &Path, value: &Value) -> Result<Option<Self>, ImportError> {
        let kind = value["rope_type"].as_str().or(value["type"].as_str()).unwrap_or("default");
        let known: &[&str] = match kind {
            "default" => &[],
            "linear" => &["factor"],
            "llama3" => {
                &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]
            }
            kind => return Err(ImportError::unsupported(format!("rope_scaling {kind}"))),
        };
        let fields = value.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
        let unknown = fields
            .filter(|field| !["rope_type", "type", "rope_theta"].contains(field))
            .find(|field| !known.contains(field));
        if let Some(field) = unknown {
            return Err(ImportError::unsupported(format!("{field} in rope_scaling {kind}")));
        }
        let number = |field: &str| {
            let number = value[field].as_f64().and_then(|number| numbers::fixed(number, 32));
            number.filter(|number| (1..1 << 56).contains(number)).map(i64::unsigned_abs).ok_or_else(|| {
                ImportError::format(path, format!("rope_scaling has no {field} between 2^-32 and 2^24"))
            })
        };
        let scaling = match kind {
            "linear" => Self::Linear { factor: number("factor")? },
            "llama3" => Self::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original: number("original_max_position_embeddings")?,
            },
            _ => return Ok(None),
        };
        match scaling {
            Self::Llama3 { low, high, .. } if low >= high => {
                Err(ImportError::format(path, "rope_scaling: low_freq_factor is not below high_freq_factor"))
            }
            scaling => Ok(Some(scaling)),
        }
    }

    fn apply(self, frequency: u64) -> u64 {
        let divided = |factor: u64| {
            let quotient = ((u128::from(frequency) << 32) + u128::from(factor / 2)) / u128::from(factor);
            quotient.min(u128::from(u64::MAX))
        };
        match self {
            Self::Linear { factor } => divided(factor) as u64,
            Self::Llama3 { factor, low, high, original } => {
                // Turns over the original context, Q32: a frequency below 2^62 and a context below 2^24.
                let turns = (u128::from(frequency) * u128::from(original >> 32)) >> 32;
                if turns < u128::from(low) {
                    return divided(factor) as u64;
                }
                if turns > u128::from(high) {
                    return frequency;
                }
                let ramp = ((turns - u128::from(low)) << 32) / u128::from(high - low);
                let mixed = ((1 << 32) - ramp) * divided(factor) + ramp * u128::from(frequency);
                (mixed >> 32) as u64
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_arithmetic, reason = "tests compare with the real functions")]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Option<RopeScaling>, String> {
        RopeScaling::read(Path::new("config.json"), &value).map_err(|error| error.to_string())
    }

    #[test]
    fn llama_3_lowers_only_the_low_frequencies() {
        let scaling = json!({
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
            "rope_type": "llama3"
        });
        let rope = Rope { theta: 500_000, local_theta: None, scaling: read(scaling).unwrap() };
        let plain = Rope { scaling: None, ..rope };
        let mut kinds = [0; 3];
        for (&scaled, &f) in rope.frequencies(128).iter().zip(&plain.frequencies(128)) {
            let turns = f as f64 / 2f64.powi(64);
            let wavelength = 1.0 / turns;
            let expected = if wavelength > 8192.0 / 1.0 {
                kinds[0] += 1;
                turns / 8.0
            } else if wavelength < 8192.0 / 4.0 {
                kinds[1] += 1;
                turns
            } else {
                kinds[2] += 1;
                let smooth = (8192.0 / wavelength - 1.0) / 3.0;
                (1.0 - smooth) * turns / 8.0 + smooth * turns
            };
            assert!((scaled as f64 / 2f64.powi(64) / expected - 1.0).abs() < 1e-8);
        }
        assert!(kinds.iter().all(|&count| count > 0), "{kinds:?}");
    }

    #[test]
    fn linear_scaling_divides() {
        let linear = read(json!({"type": "linear", "factor": 8.0})).unwrap();
        let rope = Rope { theta: 1_000_000, local_theta: Some(10_000), scaling: linear };
        let plain = Rope { scaling: None, ..rope };
        for (scaled, f) in rope.frequencies(64).iter().zip(plain.frequencies(64)) {
            assert!(scaled.abs_diff(f / 8) <= 1);
        }
        assert_eq!(rope.local_frequencies(64), rope_frequencies(10_000, 64));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        assert_eq!(read(json!({"rope_type": "default", "rope_theta": 1e4})), Ok(None));
        for (value, named) in [
            (json!({"rope_type": "yarn", "factor": 2.0}), "yarn"),
            (json!({"rope_type": "dynamic"}), "dynamic"),
            (json!({"type": "linear"}), "factor"),
            (json!({"type": "linear", "factor": 0.0}), "factor"),
            (json!({"type": "linear", "factor": 2.0, "beta": 1}), "beta"),
            (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
            (
                json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192}),
                "low_freq_factor",
            ),
        ] {
            assert!(read(value.clone()).is_err_and(|error| error.contains(named)), "{value}");
        }
    }
}
