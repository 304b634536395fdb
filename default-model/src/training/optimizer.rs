//! AdamW with a warm-up, a cosine decay and a clipped gradient norm.

use candle_core::{Result, Tensor, Var};

/// What the optimiser is told.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The highest learning rate.
    pub rate: f32,
    /// Steps over which the rate rises from zero.
    pub warmup: usize,
    /// Steps in all: at the last one the rate is a fiftieth of the highest.
    pub steps: usize,
    /// Decay of the matrices, per unit of learning rate.
    pub weight_decay: f32,
    /// The gradient is scaled down to this norm.
    pub clip: f32,
}

/// The moments of every parameter.
#[derive(Debug)]
pub struct AdamW {
    settings: Settings,
    step: usize,
    moments: Vec<(Vec<f32>, Vec<f32>)>,
}

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.98;
const EPSILON: f32 = 1e-8;

impl AdamW {
    /// An optimiser at step zero for parameters of these sizes.
    #[must_use]
    pub fn new(settings: Settings, parameters: &[&Var]) -> Self {
        let zeros = |var: &&Var| (vec![0.0; var.elem_count()], vec![0.0; var.elem_count()]);
        Self { settings, step: 0, moments: parameters.iter().map(zeros).collect() }
    }

    /// The learning rate of `step`.
    #[must_use]
    pub fn rate(&self, step: usize) -> f32 {
        let Settings { rate, warmup, steps, .. } = self.settings;
        if step < warmup {
            return rate * (step + 1) as f32 / warmup as f32;
        }
        let done = ((step - warmup) as f32 / (steps - warmup).max(1) as f32).min(1.0);
        rate * (0.02 + 0.98 * 0.5 * (1.0 + (std::f32::consts::PI * done).cos()))
    }

    /// One step along `gradients`, which stand in the order of `parameters`. Returns the gradient's norm.
    ///
    /// # Errors
    /// What candle reports.
    pub fn step(&mut self, parameters: &[&Var], gradients: &[Vec<f32>]) -> Result<f32> {
        let square = |grad: &Vec<f32>| grad.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>();
        let norm = gradients.iter().map(square).sum::<f64>().sqrt() as f32;
        let scale = if norm > self.settings.clip { self.settings.clip / norm } else { 1.0 };
        let rate = self.rate(self.step);
        self.step += 1;
        let power = self.step as i32;
        let (unbias1, unbias2) = (1.0 / (1.0 - BETA1.powi(power)), 1.0 / (1.0 - BETA2.powi(power)));
        for ((var, grad), (first, second)) in parameters.iter().zip(gradients).zip(&mut self.moments) {
            let mut values = var.flatten_all()?.to_vec1::<f32>()?;
            // Vectors are the gains of the norms: they are not decayed.
            let decay = if var.rank() > 1 { 1.0 - rate * self.settings.weight_decay } else { 1.0 };
            for (((value, grad), m), v) in values.iter_mut().zip(grad).zip(first).zip(second) {
                let grad = grad * scale;
                *m = BETA1 * *m + (1.0 - BETA1) * grad;
                *v = BETA2 * *v + (1.0 - BETA2) * grad * grad;
                *value = *value * decay - rate * (*m * unbias1) / ((*v * unbias2).sqrt() + EPSILON);
            }
            var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?;
        }
        Ok(norm)
    }
}
