//! The price of blob gas, for headers that nobody has checked.

use revm::context_interface::block::BlobExcessGasAndPrice;

/// Blob gas may stand this many update fractions above target. At e^40 wei nobody could pay for blobs any more.
const MOST_FRACTIONS: u64 = 40;

/// The largest update fraction. Mainnet's are below 2^24. The price's series (EIP-4844) multiplies a term below
/// fraction * e^40 by the excess, at most 40 fractions: with 32 bits that is below 2^128.
const MAX_FRACTION: u64 = u32::MAX as u64;

/// The excess of blob gas with its price (EIP-4844). `None` where the 128-bit series would overflow or not end: a fraction
/// of 0 or of more than 32 bits, or an excess of more than 40 fractions.
pub(crate) fn of(excess: u64, fraction: u64) -> Option<BlobExcessGasAndPrice> {
    let usable = (1..=MAX_FRACTION).contains(&fraction) && excess <= MOST_FRACTIONS * fraction;
    usable.then(|| BlobExcessGasAndPrice::new(excess, fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_price_is_found_or_refused_at_once() {
        let price = |excess, fraction| of(excess, fraction).map(|blob| blob.blob_gasprice);
        assert_eq!(price(0, 3_338_477), Some(1));
        assert_eq!(price(3_338_477, 3_338_477), Some(2));
        assert_eq!(price(40, 1).map(u128::ilog2), Some(57));
        // The largest: an overflow would panic here.
        assert_eq!(price(MOST_FRACTIONS * MAX_FRACTION, MAX_FRACTION).map(u128::ilog2), Some(57));
        for (excess, fraction) in
            [(0, 0), (41, 1), (0x7fff_ffff, 1), (u64::MAX, 3_338_477), (0, u64::MAX), (u64::MAX, u64::MAX)]
        {
            assert_eq!(price(excess, fraction), None, "{excess} over {fraction}");
        }
    }
}
