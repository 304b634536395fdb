//! What an engine may use of its machine. No answer depends on it.

/// Bounds of an engine's memory and of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Requests under way at a time, at least one; the others queue in the order in which they came. Each has a key-value cache of up to
    /// the model's context.
    pub lanes: usize,
    /// Rows of a step: as many as there are lanes, or more.
    pub rows: usize,
    /// Bytes of the key-value caches of recent prompts; zero keeps none.
    pub prefix_cache_bytes: usize,
}

impl EngineOptions {
    /// The defaults without a prefix cache, to measure with: every call does all of its work.
    pub const UNCACHED: Self = Self { prefix_cache_bytes: 0, ..Self::DEFAULT };

    pub(super) const DEFAULT: Self = Self { lanes: 16, rows: 128, prefix_cache_bytes: 256 << 20 };

    /// The same for a device that is not busy with fewer rows.
    #[must_use]
    pub const fn for_devices(self) -> Self {
        Self { rows: 512, lanes: 64, ..self }
    }

    /// Lanes and rows as they can be.
    pub(super) fn limits(self) -> (usize, usize) {
        let lanes = self.lanes.max(1);
        (lanes, self.rows.max(lanes))
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}
