//! How a user names a device, and what may be wrong with it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The device that a user asked for: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceRequest {
    /// The fastest device that passes its self-test.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with this ordinal; `cuda` is the first.
    Cuda(u32),
}

/// A device that cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DeviceError {
    /// Not the name of a device.
    #[error("unknown device {0:?}; use auto, cpu, cuda or cuda:N")]
    Unknown(String),
    /// No CUDA device, or none of this ordinal.
    #[error("{0}")]
    NotFound(String),
    /// A device on which the kernels cannot be loaded.
    #[error("{device}: {reason}")]
    Unusable {
        /// The device.
        device: String,
        /// What it lacks, or what the driver said.
        reason: String,
    },
}

impl FromStr for DeviceRequest {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown(name.into());
        match name.split_once(':') {
            None if name == "auto" => Ok(Self::Auto),
            None if name == "cpu" => Ok(Self::Cpu),
            None if name == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", ordinal)) => ordinal.parse().map(Self::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["auto", "cpu", "cuda:0", "cuda:7"] {
            assert_eq!(name.parse::<DeviceRequest>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse(), Ok(DeviceRequest::Cuda(0)));
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["", "gpu", "cuda:", "cuda:-1", "cpu:0", "cuda:99999999999"] {
            assert_eq!(name.parse::<DeviceRequest>(), Err(DeviceError::Unknown(name.into())));
        }
    }
}
