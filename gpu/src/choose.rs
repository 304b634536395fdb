//! Choosing tokens on the device: only their ids come back.

use std::sync::PoisonError;

use metis_kernels::sampling::random;
use metis_kernels::{BackendError, SampleRequest, TokenId, TokenMask};

use crate::backend::{Gpu, grow};
use crate::buffers::{Activations, Linear, Residual, le_bytes};
use crate::driver::{Arguments, Driver, Launch};
use crate::queue::{Buffer, STAGING_BYTES};

/// Bytes of logits that are kept at a time where only the largest are wanted.
const LOGIT_BYTES: usize = 128 << 20;
/// What a kernel answers where nothing may be chosen.
const NO_TOKEN: u32 = u32::MAX;
/// Bytes of a request: as in `gpu/kernels/choose.cu`.
const REQUEST_BYTES: usize = 40;

/// Memory for choices, kept from one call to the next.
#[derive(Debug)]
pub(crate) struct Scratch<D: Driver> {
    logits: Option<Buffer<D>>,
    weights: Option<Buffer<D>>,
    tokens: Option<Buffer<D>>,
}

impl<D: Driver> Default for Scratch<D> {
    fn default() -> Self {
        Self { logits: None, weights: None, tokens: None }
    }
}

pub(crate) fn sample<D: Driver>(
    gpu: &Gpu<D>,
    logits: &Residual<D>,
    requests: &[SampleRequest],
    out: &mut Vec<TokenId>,
) -> Result<(), BackendError> {
    out.clear();
    requests.iter().try_for_each(|request| logits.extent.expect_row("sample", request.row))?;
    let width = logits.extent.width();
    let mut scratch = gpu.choices.lock().unwrap_or_else(PoisonError::into_inner);
    // As many at a time as have room for their masks.
    let most = STAGING_BYTES / 2 / (width.div_ceil(64) * size_of::<u64>() + REQUEST_BYTES);
    for requests in requests.chunks(most.max(1)) {
        choose(gpu, &mut scratch, logits.values.address(), width, requests, out)?;
    }
    Ok(())
}

pub(crate) fn argmax<D: Driver>(
    gpu: &Gpu<D>,
    x: &Activations<D>,
    weights: &Linear<D>,
    out: &mut Vec<TokenId>,
) -> Result<(), BackendError> {
    out.clear();
    let mut scratch = gpu.choices.lock().unwrap_or_else(PoisonError::into_inner);
    let row_bytes = weights.outputs * size_of::<i32>();
    let most = (LOGIT_BYTES / row_bytes).clamp(1, x.extent.rows().max(1));
    grow(&gpu.queue, &mut scratch.logits, most * row_bytes)?;
    let logits = address(&scratch.logits);
    let rows = x.extent.rows();
    for first in (0..rows).step_by(most) {
        let tile = first..rows.min(first + most);
        let product = gpu.product(x, tile.clone(), weights, logits);
        gpu.queue.add(|op| {
            op.add(product);
            Ok(())
        })?;
        let greedy = |row| SampleRequest { row, sampling: Default::default(), position: 0, mask: None };
        let requests: Vec<SampleRequest> = (0..tile.len()).map(greedy).collect();
        choose(gpu, &mut scratch, logits, weights.outputs, &requests, out)?;
    }
    Ok(())
}

fn address<D: Driver>(buffer: &Option<Buffer<D>>) -> u64 {
    buffer.as_ref().map_or(0, Buffer::address)
}

/// Chooses from rows of logits at an address, all of which are in use.
fn choose<D: Driver>(
    gpu: &Gpu<D>,
    scratch: &mut Scratch<D>,
    logits: u64,
    width: usize,
    requests: &[SampleRequest],
    out: &mut Vec<TokenId>,
) -> Result<(), BackendError> {
    if requests.is_empty() {
        return Ok(());
    }
    let drawn = requests.iter().any(|request| request.sampling.temperature_q16 > 0);
    grow(&gpu.queue, &mut scratch.tokens, requests.len() * size_of::<u32>())?;
    if drawn {
        grow(&gpu.queue, &mut scratch.weights, requests.len() * width * size_of::<u32>())?;
    }
    let masks: Vec<Option<Vec<u8>>> =
        requests.iter().map(|request| request.mask.as_deref().map(|mask| mask_bytes(mask, width))).collect();
    let mut lengths: Vec<usize> = masks.iter().flatten().map(Vec::len).collect();
    lengths.push(requests.len() * REQUEST_BYTES);
    gpu.queue.add(|op| {
        op.reserve(&lengths)?;
        let masks: Vec<u64> =
            masks.iter().map(|mask| mask.as_ref().map_or(0, |mask| op.place(mask))).collect();
        let words = requests.iter().zip(masks).flat_map(|(request, mask)| words(request, mask));
        let requests_at = op.place(&le_bytes(words.map(u64::to_le_bytes)));
        let arguments = Arguments::default()
            .with(logits)
            .with(width)
            .with(requests_at)
            .with(address(&scratch.weights))
            .with(gpu.tables())
            .with(address(&scratch.tokens));
        let threads = width.next_power_of_two().clamp(32, 1024) as u32;
        let grid = [requests.len() as u32, 1, 1];
        op.launch(Launch { kernel: "choose", grid, threads, shared: 0, arguments });
        Ok(())
    })?;
    let mut bytes = vec![0; requests.len() * size_of::<u32>()];
    if let Some(tokens) = &scratch.tokens {
        gpu.queue.download(tokens, 0, &mut bytes)?;
    }
    for &token in bytes.as_chunks().0 {
        let token = u32::from_le_bytes(token);
        if token == NO_TOKEN {
            let (expected, actual) = ("an allowed token".into(), "none".into());
            return Err(BackendError::Shape { kernel: "sample", expected, actual });
        }
        out.push(TokenId(token));
    }
    Ok(())
}

/// A request as the kernel takes it.
fn words(request: &SampleRequest, mask: u64) -> [u64; REQUEST_BYTES / 8] {
    let sampling = request.sampling;
    let inverse = if sampling.temperature_q16 == 0 { 0 } else { sampling.inverse_temperature_q32() };
    [
        inverse,
        random(sampling.seed, request.position),
        mask,
        request.row as u64 | u64::from(sampling.top_p_q16) << 32,
        sampling.top_k.into(),
    ]
}

/// A bit for each logit of a row.
fn mask_bytes(mask: &TokenMask, width: usize) -> Vec<u8> {
    let mut words = mask.words().to_vec();
    words.resize(width.div_ceil(64), 0);
    le_bytes(words.into_iter().map(u64::to_le_bytes))
}
