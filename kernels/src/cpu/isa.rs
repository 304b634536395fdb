//! Which instructions this processor has, found at run time.

use core::fmt;

#[cfg(target_arch = "aarch64")]
use super::simd::neon::Neon;
use super::simd::{Simd, portable::Portable};
#[cfg(target_arch = "x86_64")]
use super::simd::{
    avx2::Avx2,
    avx512::Avx512,
    avxvnni::{Avx512Vl, AvxVnni},
};

/// A set of instructions that this processor has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx512Vl(Avx512Vl),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    Portable(Portable),
}

/// Calls `$call` with `$simd` bound to the instruction set's token.
macro_rules! with_simd {
    ($isa:expr, $simd:ident => $call:expr) => {
        match $isa {
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::isa::Isa::Avx512($simd) => $call,
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::isa::Isa::Avx512Vl($simd) => $call,
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::isa::Isa::AvxVnni($simd) => $call,
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::isa::Isa::Avx2($simd) => $call,
            #[cfg(target_arch = "aarch64")]
            $crate::cpu::isa::Isa::Neon($simd) => $call,
            $crate::cpu::isa::Isa::Portable($simd) => $call,
        }
    };
}
pub(super) use with_simd;

/// The name of an instruction set, as `--backend` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuKind {
    /// AVX-512 F, BW, DQ, VL and VNNI (x86-64).
    Avx512,
    /// AVX-512 VL and VNNI on 256-bit registers (x86-64).
    Avx512Vl,
    /// AVX2 and AVX-VNNI (x86-64).
    AvxVnni,
    /// AVX2 (x86-64).
    Avx2,
    /// NEON with dot products (AArch64).
    Neon,
    /// Plain loops on the packed layout, everywhere.
    Portable,
}

impl CpuKind {
    /// All of them, the fastest first.
    pub const ALL: [Self; 6] =
        [Self::Avx512, Self::AvxVnni, Self::Avx512Vl, Self::Avx2, Self::Neon, Self::Portable];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx512Vl => "avx512vl",
            Self::AvxVnni => "avxvnni",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        self.detect().is_some()
    }

    pub(super) fn detect(self) -> Option<Isa> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::detect().map(Isa::Avx512),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vl => Avx512Vl::detect().map(Isa::Avx512Vl),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => AvxVnni::detect().map(Isa::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::detect().map(Isa::Avx2),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => Neon::detect().map(Isa::Neon),
            Self::Portable => Some(Isa::Portable(Portable)),
            #[cfg(target_arch = "x86_64")]
            Self::Neon => None,
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx512Vl | Self::AvxVnni | Self::Avx2 => None,
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            Self::Neon => None,
        }
    }
}

impl fmt::Display for CpuKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Isa {
    /// Calls `f` compiled with the instructions.
    #[inline(always)]
    pub(super) fn run<R>(self, f: impl FnOnce() -> R) -> R {
        with_simd!(self, simd => simd.run(f))
    }
}
