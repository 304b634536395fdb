//! Where scale can move between what writes a channel and what reads it, without changing the model.

use std::fmt;

use serde::Serialize;

use crate::bundle::{Architecture, Manifest};

/// The inputs of which linear layers a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Inputs {
    /// Of queries, keys and values; the norm before them writes.
    Attention,
    /// Of the output projection; the values write.
    Output,
    /// Of the MLP; the norm before it writes.
    Mlp,
    /// Of a gated MLP's last matrix; `up` writes.
    Down,
}

impl Inputs {
    /// All of them, in the order of the forward pass.
    pub const ALL: [Self; 4] = [Self::Attention, Self::Output, Self::Mlp, Self::Down];

    /// Why scale cannot move there without changing the model; `None` where it can.
    pub const fn obstacle(self, architecture: Architecture) -> Option<&'static str> {
        match (architecture, self) {
            (Architecture::Bert, Self::Attention | Self::Mlp) => {
                Some("the norm before it also feeds the residual stream")
            }
            (Architecture::Bert | Architecture::Gpt2, Self::Down) => {
                Some("the activation before it is not linear, and there is no gate")
            }
            _ => None,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Output => "output",
            Self::Mlp => "mlp",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A place of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) layer: usize,
    pub(super) inputs: Inputs,
    /// The tensors whose columns it scales.
    pub(super) readers: Vec<String>,
    /// The tensors whose rows or elements it scales the other way.
    pub(super) writers: Vec<String>,
    /// Channels that have a scale of their own.
    pub(super) channels: usize,
    /// Of the output projection: query heads that read one value head, and the channels of a head.
    heads: Option<(usize, usize)>,
}

impl Place {
    /// The places of a model, in the order of its layers.
    pub(super) fn all(m: &Manifest) -> Vec<Self> {
        let possible = |inputs: &Inputs| inputs.obstacle(m.architecture).is_none();
        (0..m.layers)
            .flat_map(|layer| {
                Inputs::ALL.into_iter().filter(possible).map(move |inputs| Self::new(m, layer, inputs))
            })
            .collect()
    }

    /// The channel whose scale a column of its readers has.
    pub(super) const fn channel(&self, column: usize) -> usize {
        match self.heads {
            Some((group, head_dim)) => column / (group * head_dim) * head_dim + column % head_dim,
            None => column,
        }
    }

    /// Channels of a value head, in the place where values write.
    pub(super) fn value_head(&self) -> Option<usize> {
        self.heads.map(|(_, head_dim)| head_dim)
    }

    fn new(m: &Manifest, layer: usize, inputs: Inputs) -> Self {
        let is_llama = m.architecture == Architecture::Llama;
        // RMSNorm has gains, LayerNorm also biases.
        let norm = |name: &str| match is_llama {
            true => vec![format!("{name}.gain")],
            false => vec![format!("{name}.gain"), format!("{name}.bias")],
        };
        let (readers, writers, channels): (&[&str], _, _) = match inputs {
            Inputs::Attention => (&["query", "key", "value"], norm("attention_norm"), m.hidden),
            Inputs::Mlp if is_llama => (&["gate", "up"], norm("mlp_norm"), m.hidden),
            Inputs::Mlp => (&["up"], norm("mlp_norm"), m.hidden),
            Inputs::Down => (&["down"], vec!["up.weight".to_owned()], m.intermediate),
            Inputs::Output => {
                let mut writers = vec!["value.weight".to_owned()];
                writers.extend((!is_llama || m.variant.qkv_bias).then(|| "value.bias".to_owned()));
                (&["output"], writers, m.kv_heads * m.head_dim)
            }
        };
        let full = |name: String| format!("layers.{layer}.{name}");
        Self {
            layer,
            inputs,
            readers: readers.iter().map(|name| full(format!("{name}.weight"))).collect(),
            writers: writers.into_iter().map(full).collect(),
            channels,
            heads: (inputs == Inputs::Output).then(|| (m.heads / m.kv_heads, m.head_dim)),
        }
    }
}
