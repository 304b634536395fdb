//! How fast memory can be read: the bound of decoding, which reads every weight for every token.

use std::thread;
use std::time::Instant;

use metis_gpu::{Driver, Gpu};
use metis_kernels::BackendError;

/// Larger than any cache.
const BYTES: usize = 256 << 20;

/// Gigabytes per second that `threads` threads read together, the best of three passes.
pub(super) fn stream(threads: usize) -> f64 {
    let words = vec![1u64; BYTES / 8];
    let share = words.len().div_ceil(threads.max(1));
    (0..3)
        .map(|_| {
            let start = Instant::now();
            let sum: u64 = thread::scope(|scope| {
                let readers: Vec<_> = words.chunks(share).map(|words| scope.spawn(|| read(words))).collect();
                readers.into_iter().filter_map(|reader| reader.join().ok()).sum()
            });
            std::hint::black_box(sum);
            BYTES as f64 / 1e9 / start.elapsed().as_secs_f64()
        })
        .fold(0.0, f64::max)
}

/// Gigabytes per second that a device reads and writes together when it copies, the best of three passes.
pub(super) fn copy<D: Driver>(gpu: &Gpu<D>) -> Result<f64, BackendError> {
    /// Copies in a pass: their beginning and end weigh little.
    const TIMES: usize = 10;
    // Less where the device has less.
    let bytes = [BYTES, BYTES / 16].into_iter().find(|&bytes| gpu.copy(bytes, 1).is_ok()).unwrap_or(1 << 20);
    let mut best = 0.0;
    for _ in 0..3 {
        let start = Instant::now();
        gpu.copy(bytes, TIMES)?;
        best = f64::max(best, (2 * bytes * TIMES) as f64 / 1e9 / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Sums in four streams: several reach more of the bandwidth than one.
fn read(words: &[u64]) -> u64 {
    let quarter = words.len() / 4;
    let streams = [0, 1, 2, 3].map(|i| &words[i * quarter..(i + 1) * quarter]);
    let mut sums = [0u64; 32];
    let [a, b, c, d] = streams.map(|stream| stream.chunks_exact(8));
    for (((a, b), c), d) in a.zip(b).zip(c).zip(d) {
        for (i, words) in [a, b, c, d].into_iter().enumerate() {
            for (sum, word) in sums[8 * i..8 * i + 8].iter_mut().zip(words) {
                *sum = sum.wrapping_add(*word);
            }
        }
    }
    sums.iter().fold(0, |sum, part| sum.wrapping_add(*part))
}
