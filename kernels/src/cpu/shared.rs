//! A row-major buffer of which tasks write different columns.

use core::marker::PhantomData;

use rayon::prelude::*;

use super::packed::LANES;
use crate::pool::Pool;

/// Tasks for each thread, so that a thread that was delayed leaves its share to others.
const TASKS_PER_THREAD: usize = 4;

/// The columns `first .. end` of `[rows, width]` values: nobody else has them.
#[derive(Debug)]
pub(super) struct Columns<'a> {
    values: *mut i32,
    rows: usize,
    width: usize,
    first: usize,
    end: usize,
    buffer: PhantomData<&'a mut [i32]>,
}

impl Columns<'_> {
    /// Writes as many of `values` as there are columns from `column` on.
    #[inline(always)]
    pub(super) fn write(&mut self, row: usize, column: usize, values: &[i32; LANES]) {
        assert!(row < self.rows && self.first <= column && column <= self.end);
        let count = LANES.min(self.end - column);
        // SAFETY: the row and the columns are in bounds, and the columns are this value's own.
        unsafe {
            let out = self.values.add(row * self.width + column);
            if count == LANES {
                // A length that the compiler knows: no call.
                out.cast::<[i32; LANES]>().write_unaligned(*values);
            } else {
                core::ptr::copy_nonoverlapping(values.as_ptr(), out, count);
            }
        }
    }
}

/// A pointer that tasks share.
#[derive(Clone, Copy)]
struct Shared(*mut i32);

// SAFETY: only used to make `Columns` that do not overlap, in `for_each_group`.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn pointer(self) -> *mut i32 {
        self.0
    }
}

/// Calls `f(first column, columns)` for each group of `group` neighbouring columns of `[rows, width]` values; in parallel if `share`.
pub(super) fn for_each_group(
    pool: &Pool,
    share: bool,
    values: &mut [i32],
    width: usize,
    group: usize,
    f: impl Fn(usize, &mut Columns<'_>) + Sync,
) {
    let rows = values.len() / width;
    let shared = Shared(values.as_mut_ptr());
    let one = |i: usize| {
        let (first, end) = (i * group, width.min((i + 1) * group));
        let mut columns = Columns { values: shared.pointer(), rows, width, first, end, buffer: PhantomData };
        f(first, &mut columns);
    };
    let groups = width.div_ceil(group);
    if !share || pool.threads() == 1 {
        return (0..groups).for_each(one);
    }
    let task = groups.div_ceil(pool.threads() * TASKS_PER_THREAD).max(1);
    pool.run(|| (0..groups).into_par_iter().with_min_len(task).for_each(one));
}
