//! How the rows of a step are shared out.

use super::lane::Lane;

/// Gives each lane its rows of a step of at most `budget`, which is at least the number of lanes.
///
/// A lane with one token to feed, which is every lane that decodes, gets its row. What is left is shared out evenly among the prompts, and what
/// a short one does not need goes to the longer ones. So every prompt moves in every step, and none, however long, takes a row from a decoding
/// lane or from another prompt's share. Of prompts whose next block is the same, one computes it, if blocks are kept: the others copy it.
pub(super) fn share_out<C>(lanes: &mut [Lane<C>], budget: usize, kept: bool, order: &mut Vec<usize>) {
    let mut left = budget;
    order.clear();
    for (i, lane) in lanes.iter_mut().enumerate() {
        lane.rows = usize::from(!lane.restoring && lane.pending().len() == 1);
        left = left.saturating_sub(lane.rows);
        if !lane.restoring && lane.rows == 0 {
            order.push(i);
        }
    }
    order.sort_unstable_by_key(|&i| (lanes[i].pending().len(), i));
    if kept {
        leave_followers_out(lanes, order);
    }
    for (done, &i) in order.iter().enumerate() {
        let share = left / (order.len() - done);
        lanes[i].rows = lanes[i].pending().len().min(share);
        left -= lanes[i].rows;
    }
}

fn leave_followers_out<C>(lanes: &[Lane<C>], order: &mut Vec<usize>) {
    let mut computing = 0;
    for i in 0..order.len() {
        let lane = order[i];
        if !order[..computing].iter().any(|&ahead| lanes[lane].follows(&lanes[ahead])) {
            order[computing] = lane;
            computing += 1;
        }
    }
    order.truncate(computing);
}

#[cfg(test)]
mod tests {
    use metis_kernels::{Sampling, TokenId};
    use proptest::prelude::*;

    use super::super::lane::Job;
    use super::*;
    use crate::engine::Request;
    use crate::engine::prefix::BLOCK;

    fn lane(prompt: Vec<u32>) -> Lane<()> {
        let prompt = prompt.into_iter().map(TokenId).collect();
        let request = Request { prompt, max_new: 1, sampling: Sampling::GREEDY, stop: Vec::new() };
        Lane::new(Job { call: 0, index: 0, request }, (), 0)
    }

    fn rows(prompts: Vec<Vec<u32>>, budget: usize, kept: bool) -> Vec<usize> {
        let mut lanes: Vec<_> = prompts.into_iter().map(lane).collect();
        share_out(&mut lanes, budget, kept, &mut Vec::new());
        lanes.iter().map(|lane| lane.rows).collect()
    }

    #[test]
    fn decoding_lanes_come_first_and_short_prompts_before_long_ones() {
        let of = |lengths: &[usize], budget| {
            rows(lengths.iter().enumerate().map(|(i, &n)| vec![i as u32; n]).collect(), budget, true)
        };
        assert_eq!(of(&[1_000, 1, 1], 8), [6, 1, 1]);
        assert_eq!(of(&[1_000, 3, 2_000], 128), [62, 3, 63]);
        assert_eq!(of(&[500, 500, 500], 128), [42, 43, 43]);
        assert_eq!(of(&[9, 9, 9], 3), [1, 1, 1]);
    }

    #[test]
    fn a_block_that_two_prompts_share_is_computed_by_one() {
        let long = vec![7; 4 * BLOCK];
        let short = vec![7; 2 * BLOCK];
        assert_eq!(rows(vec![long.clone(), short.clone()], 128, true), [0, 2 * BLOCK]);
        assert_eq!(rows(vec![long.clone(), short], 128, false), [4 * BLOCK, 2 * BLOCK]);
        // A prompt computes its last token itself.
        let only = vec![7; BLOCK];
        assert_eq!(rows(vec![only.clone(), only], 128, true), [BLOCK, BLOCK]);
        let other = vec![8; 4 * BLOCK];
        assert_eq!(rows(vec![long, other], 128, true), [4 * BLOCK, 4 * BLOCK]);
    }

    #[test]
    fn every_lane_moves_and_the_budget_holds() {
        let prompts = prop::collection::vec(1usize..300, 1..20);
        proptest!(|(lengths in prompts, more in 0usize..200)| {
            let budget = lengths.len() + more;
            let prompts: Vec<Vec<u32>> =
                lengths.iter().enumerate().map(|(i, &n)| vec![i as u32; n]).collect();
            let rows = rows(prompts, budget, true);
            prop_assert!(rows.iter().sum::<usize>() <= budget);
            prop_assert_eq!(rows.iter().sum::<usize>(), budget.min(lengths.iter().sum()));
            let most = rows.iter().copied().max().unwrap();
            for (&rows, &length) in rows.iter().zip(&lengths) {
                // Whoever does not get all that it wants gets as much as anybody, to a row.
                prop_assert!(rows >= 1 && (rows == length || rows + 1 >= most));
            }
        });
    }
}
