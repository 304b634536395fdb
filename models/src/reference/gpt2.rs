//! GPT-2 in floats, on candle's tensors: candle has no model of it.

use candle_core::{Device, Tensor};
use candle_nn::{LayerNorm, Module, VarBuilder, ops::softmax_last_dim};

use super::ReferenceError;
use crate::bundle::ActivationName;
use crate::import::Hyperparameters;

/// GPT-2 (Radford et al., 2019).
#[derive(Debug)]
pub(super) struct Gpt2 {
    variables: Vars,
    shape: Hyperparameters,
}

/// The tensors by the names of the checkpoint.
struct Vars(VarBuilder<'static>);

impl std::fmt::Debug for Vars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vars")
    }
}

impl Gpt2 {
    pub(super) fn new(shape: &Hyperparameters, variables: VarBuilder<'static>) -> Self {
        let prefixed = variables.contains_tensor("transformer.wte.weight");
        let variables = if prefixed { variables.pp("transformer") } else { variables };
        Self { variables: Vars(variables), shape: shape.clone() }
    }

    /// The logits `[tokens, vocabulary]` after each token of `[1, tokens]`.
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, ReferenceError> {
        let (vb, hidden) = (&self.variables.0, self.shape.hidden);
        let tokens = input.dim(1)?;
        let embedding = vb.get((self.shape.vocabulary, hidden), "wte.weight")?;
        let positions = vb.get((self.shape.context, hidden), "wpe.weight")?;
        let mut x = (embedding.index_select(&input.squeeze(0)?, 0)? + positions.narrow(0, 0, tokens)?)?;
        for layer in 0..self.shape.layers {
            let vb = vb.pp(format!("h.{layer}"));
            x = (&x + self.attention(&vb, &self.norm(&vb, "ln_1")?.forward(&x)?)?)?;
            let up = self.conv(
                &vb,
                "mlp.c_fc",
                hidden,
                self.shape.intermediate,
                &self.norm(&vb, "ln_2")?.forward(&x)?,
            )?;
            let up = if self.shape.variant.activation == ActivationName::GeluErf {
                up.gelu_erf()?
            } else {
                up.gelu()?
            };
            x = (&x + self.conv(&vb, "mlp.c_proj", self.shape.intermediate, hidden, &up)?)?;
        }
        let x = self.norm(vb, "ln_f")?.forward(&x)?;
        Ok(x.matmul(&embedding.t()?)?)
    }

    fn attention(&self, vb: &VarBuilder<'_>, x: &Tensor) -> Result<Tensor, ReferenceError> {
        let (hidden, heads, tokens) = (self.shape.hidden, self.shape.heads, x.dim(0)?);
        let qkv = self.conv(vb, "attn.c_attn", hidden, 3 * hidden, x)?;
        let part = |i: usize| {
            let part = qkv.narrow(1, i * hidden, hidden)?;
            part.reshape((tokens, heads, hidden / heads))?.transpose(0, 1)?.contiguous()
        };
        let scores = (part(0)?.matmul(&part(1)?.t()?)? / ((hidden / heads) as f64).sqrt())?;
        let hidden_from = |i: usize| (0..tokens).map(move |j| if j > i { f32::NEG_INFINITY } else { 0.0 });
        let mask: Vec<f32> = (0..tokens).flat_map(hidden_from).collect();
        let scores = scores.broadcast_add(&Tensor::from_vec(mask, (tokens, tokens), &Device::Cpu)?)?;
        let mixed =
            softmax_last_dim(&scores)?.matmul(&part(2)?)?.transpose(0, 1)?.reshape((tokens, hidden))?;
        self.conv(vb, "attn.c_proj", hidden, hidden, &mixed)
    }

    /// GPT-2 stores matrices as `[inputs, outputs]`.
    fn conv(
        &self,
        vb: &VarBuilder<'_>,
        name: &str,
        inputs: usize,
        outputs: usize,
        x: &Tensor,
    ) -> Result<Tensor, ReferenceError> {
        let weight = vb.get((inputs, outputs), &format!("{name}.weight"))?;
        Ok(x.matmul(&weight)?.broadcast_add(&vb.get(outputs, &format!("{name}.bias"))?)?)
    }

    fn norm(&self, vb: &VarBuilder<'_>, name: &str) -> Result<LayerNorm, ReferenceError> {
        let vector = |kind: &str| vb.get(self.shape.hidden, &format!("{name}.{kind}"));
        let epsilon = self.shape.norm_epsilon_q32 as f64 / (1u64 << 32) as f64;
        Ok(LayerNorm::new(vector("weight")?, vector("bias")?, epsilon))
    }
}
