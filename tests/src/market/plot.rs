//! The simulation as a picture.

use std::fmt::Write as _;

use metis_precompiles::Market;

use super::{BLOCKS, Block, GWEI, PHASES, Phase};

const WIDTH: u64 = 1_000;
const LEFT: u64 = 70;
const PANEL: u64 = 200;
const TOP: u64 = 40;
const GAP: u64 = 40;
/// Blocks of a point.
const STRIDE: usize = 20;
/// Powers of two of a gwei that the price's panel shows.
const OCTAVES: u64 = 24;

fn x(block: usize) -> u64 {
    LEFT + block as u64 * WIDTH / BLOCKS as u64
}

/// `log2` in 16ths, rounded down: enough for a picture, and the same everywhere.
fn log2_16(value: u64) -> u64 {
    let whole = u64::from(value.max(1).ilog2());
    // The next four bits of the value, as if the logarithm were straight between powers of two.
    let fraction = if whole >= 4 { value >> (whole - 4) & 15 } else { value << (4 - whole) & 15 };
    whole * 16 + fraction
}

/// Height of a price, from a quarter of a gwei on.
fn y_price(wei: u64) -> u64 {
    let above = log2_16(wei).saturating_sub(log2_16(GWEI) - 2 * 16);
    TOP + PANEL - (above * PANEL / (OCTAVES * 16)).min(PANEL)
}

fn y_used(market: &Market, gas: u64) -> u64 {
    let used = u128::from(gas) * u128::from(PANEL) / u128::from(market.limit_gas);
    TOP + PANEL + GAP + PANEL - used as u64
}

/// An SVG with the price and the usage of all blocks.
pub fn svg(market: &Market, blocks: &[Block]) -> String {
    let mut svg = String::new();
    let (width, height) = (LEFT + WIDTH + 20, TOP + 2 * PANEL + GAP + 40);
    let mut put = |text: std::fmt::Arguments<'_>| {
        let _ = writeln!(svg, "{text}");
    };
    put(format_args!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">"#
    ));
    put(format_args!(r#"<rect width="{width}" height="{height}" fill="white"/>"#));
    let ends = PHASES.iter().skip(1).map(|(first, _)| *first).chain([BLOCKS]);
    for ((first, phase), end) in PHASES.iter().zip(ends) {
        let (name, colour) = match phase {
            Phase::Ordinary => continue,
            Phase::Flood => ("flood", "#fde0dc"),
            Phase::Sawtooth => ("sawtooth", "#fff3cd"),
            Phase::Congested => ("high base fee", "#dbeafe"),
            Phase::Silence => ("silence", "#eeeeee"),
            Phase::Rush => ("rush", "#e6f4ea"),
            Phase::Stuffing => ("stuffing", "#f3e8fd"),
        };
        let (from, to, tall) = (x(*first), x(end), 2 * PANEL + GAP);
        let across = to - from;
        put(format_args!(r#"<rect x="{from}" y="{TOP}" width="{across}" height="{tall}" fill="{colour}"/>"#));
        let middle = from + across / 2;
        put(format_args!(r#"<text x="{middle}" y="{}" text-anchor="middle">{name}</text>"#, TOP - 6));
    }
    for octave in (0..=OCTAVES - 2).step_by(4) {
        let (gwei, y) = (1u64 << octave, y_price(GWEI << octave));
        let end = LEFT + WIDTH;
        put(format_args!(r##"<line x1="{LEFT}" y1="{y}" x2="{end}" y2="{y}" stroke="#cccccc"/>"##));
        put(format_args!(r#"<text x="{}" y="{}" text-anchor="end">{gwei}</text>"#, LEFT - 6, y + 4));
    }
    for (gas, name) in [(0, "0"), (market.target_gas, "target"), (market.limit_gas, "limit")] {
        let (y, end) = (y_used(market, gas), LEFT + WIDTH);
        put(format_args!(r##"<line x1="{LEFT}" y1="{y}" x2="{end}" y2="{y}" stroke="#888888"/>"##));
        put(format_args!(r#"<text x="{}" y="{}" text-anchor="end">{name}</text>"#, LEFT - 6, y + 4));
    }
    let line = |y: &dyn Fn(&[Block]) -> u64| {
        let points =
            blocks.chunks(STRIDE).enumerate().map(|(i, part)| format!("{},{}", x(i * STRIDE), y(part)));
        points.collect::<Vec<_>>().join(" ")
    };
    let mean = |part: &[Block], of: fn(&Block) -> u64| {
        part.iter().map(|block| u128::from(of(block))).sum::<u128>() as u64 / part.len() as u64
    };
    for (points, colour, thick) in [
        (line(&|part| y_price(part[0].base_fee)), "#9aa0a6", 1),
        (line(&|part| y_price(part[0].inference_fee)), "#c5221f", 2),
        (line(&|part| y_used(market, mean(part, |block| block.used))), "#1a73e8", 1),
        (line(&|part| y_used(market, mean(part, |block| block.attacked))), "#c5221f", 1),
    ] {
        put(format_args!(
            r#"<polyline fill="none" stroke="{colour}" stroke-width="{thick}" points="{points}"/>"#
        ));
    }
    let below = TOP + 2 * PANEL + GAP;
    for block in (0..=BLOCKS).step_by(1_000) {
        put(format_args!(r#"<text x="{}" y="{}" text-anchor="middle">{block}</text>"#, x(block), below + 16));
    }
    for (y, text) in [
        (
            TOP + PANEL + 14,
            "gwei per gas: inference (red) and the block's base fee (grey), at every twentieth block",
        ),
        (
            below + 32,
            "gas of inference per block, mean of twenty: all (blue), attackers (red); by block number",
        ),
    ] {
        put(format_args!(r#"<text x="{LEFT}" y="{y}">{text}</text>"#));
    }
    put(format_args!("</svg>"));
    svg
}
