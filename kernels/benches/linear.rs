//! Matrix products of each instruction set this processor has, at the shapes of well-known models.
//!
//! `cargo bench -p metis-kernels`; throughput is in multiply-accumulates per second.

#![allow(missing_docs, reason = "criterion's macros")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap in a benchmark is its report")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metis_kernels::{Backend, Cpu, CpuKind, LinearWeights, Scalar, Scale};

/// `[outputs, inputs]`: of SmolLM2-135M, Qwen2.5-0.5B and Llama-3.2-1B.
const SHAPES: [(usize, usize); 4] = [(1_536, 576), (4_864, 896), (896, 4_864), (2_048, 2_048)];
/// Decode, a batch, prefill.
const ROWS: [usize; 3] = [1, 8, 64];

fn products<B: Backend>(c: &mut Criterion, name: &str, backend: &B) {
    for (outputs, inputs) in SHAPES {
        let bytes: Vec<u8> = (0..outputs * inputs).map(|i| (i * 7 % 255 + 1) as u8).collect();
        let scales = vec![Scale::new(1 << 22, -40).unwrap(); outputs];
        let weights = LinearWeights { outputs, inputs, bytes: &bytes, scales: &scales, groups: None };
        let weights = backend.load_linear(weights).unwrap();
        let mut group = c.benchmark_group(format!("linear {outputs}x{inputs}"));
        for rows in ROWS {
            let values: Vec<i16> = (0..rows * inputs).map(|i| (i * 31 % 60_000) as i16 / 2).collect();
            let mut x = backend.activations(rows, inputs).unwrap();
            backend.write_activations(&values, &vec![-14; rows], &mut x).unwrap();
            let mut out = backend.residual(rows, outputs).unwrap();
            group.throughput(Throughput::Elements((rows * outputs * inputs) as u64));
            group.bench_function(BenchmarkId::new(name, rows), |b| {
                b.iter(|| backend.linear(&x, &weights, &mut out).unwrap());
            });
        }
    }
}

fn linear(c: &mut Criterion) {
    for kind in CpuKind::ALL {
        if let Ok(backend) = Cpu::with_kind(kind, 1) {
            products(c, kind.name(), &backend);
        }
    }
    products(c, "scalar", &Scalar::new());
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(200)).measurement_time(std::time::Duration::from_millis(600));
    targets = linear
}
criterion_main!(benches);
