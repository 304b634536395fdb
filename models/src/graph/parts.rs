//! What several families load in the same way.

use metis_kernels::{Backend, BackendError, NormWeights, Row, TokenId};

use crate::bundle::{Bundle, BundleError};
use crate::engine::LoadError;

/// A linear layer with or without a bias.
#[derive(Debug)]
pub(super) struct Linear<B: Backend> {
    weights: B::Linear,
    bias: Option<B::Bias>,
}

impl<B: Backend> Linear<B> {
    pub(super) fn forward(
        &self,
        backend: &B,
        x: &B::Activations,
        out: &mut B::Residual,
    ) -> Result<(), BackendError> {
        backend.linear(x, &self.weights, out)?;
        self.bias.as_ref().map_or(Ok(()), |bias| backend.add_bias(out, bias))
    }
}

/// Reads a bundle's tensors onto a backend.
pub(super) struct Loader<'a, B: Backend> {
    pub(super) bundle: &'a Bundle,
    pub(super) backend: &'a B,
}

impl<B: Backend> Loader<'_, B> {
    pub(super) fn matrix(&self, name: &str) -> Result<B::Linear, LoadError> {
        Ok(self.backend.load_linear(self.bundle.linear(name)?.weights())?)
    }

    pub(super) fn linear(&self, name: &str) -> Result<Linear<B>, LoadError> {
        Ok(Linear { weights: self.matrix(name)?, bias: None })
    }

    pub(super) fn biased(&self, name: &str) -> Result<Linear<B>, LoadError> {
        let bias = self.backend.load_bias(&self.bundle.bias(name)?)?;
        Ok(Linear { weights: self.matrix(name)?, bias: Some(bias) })
    }

    pub(super) fn rms_norm(&self, name: &str) -> Result<B::Norm, LoadError> {
        self.norm(&self.bundle.gains(name)?, None)
    }

    pub(super) fn layer_norm(&self, name: &str) -> Result<B::Norm, LoadError> {
        self.norm(&self.bundle.gains(name)?, Some(&self.bundle.bias(name)?))
    }

    fn norm(&self, gains_q20: &[i32], biases_q20: Option<&[i32]>) -> Result<B::Norm, LoadError> {
        let epsilon_q32 = self.bundle.manifest().norm_epsilon_q32;
        Ok(self.backend.load_norm(NormWeights { gains_q20, biases_q20, epsilon_q32 })?)
    }

    pub(super) fn rope(&self, name: &str) -> Result<B::Rope, LoadError> {
        let frequencies: Result<Vec<u64>, BundleError> = self.bundle.frequencies(name);
        Ok(self.backend.load_rope(&frequencies?, self.bundle.manifest().context)?)
    }
}

/// The positions of rows as rows of a table of learned positions.
pub(super) fn positions(rows: &[Row], out: &mut Vec<TokenId>) {
    out.clear();
    out.extend(rows.iter().map(|row| TokenId(row.position as u32)));
}
