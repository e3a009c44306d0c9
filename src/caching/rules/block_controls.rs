//! Controls for ProfilingDiT: lists with as many blocks as a profile's list, so with equal FLOPs,
//! but chosen without attention. The paper's list must beat these to show that attention tells
//! which blocks to cache. All lists ascend.

/// `count` of `blocks` blocks (at most all), drawn by a seed.
pub fn random(count: usize, blocks: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..blocks).collect();
    order.sort_by_key(|block| draw(seed, *block));
    first(count, order)
}

/// As many blocks of each third of the depth as `list` has, of a model with `blocks` blocks, drawn
/// by a seed. Blocks that `list` lacks come first. This control shows whether depth alone tells.
pub fn depth_matched(list: &[usize], blocks: usize, seed: u64) -> Vec<usize> {
    const PARTS: usize = 3;
    let part = |i: usize| i * blocks / PARTS..(i + 1) * blocks / PARTS;
    (0..PARTS)
        .flat_map(|i| {
            let mut order: Vec<usize> = part(i).collect();
            order.sort_by_key(|block| (list.contains(block), draw(seed, *block)));
            first(list.iter().filter(|block| part(i).contains(block)).count(), order)
        })
        .collect()
}

/// The first `count` of the blocks in an order, for example of how little their deltas change.
pub fn stable(order: &[usize], count: usize) -> Vec<usize> {
    first(count, order.to_vec())
}

fn first(count: usize, mut order: Vec<usize>) -> Vec<usize> {
    order.truncate(count);
    order.sort_unstable();
    order
}

/// The output of SplitMix64 for a seed, counted by block. Every machine draws the same numbers.
fn draw(seed: u64, block: usize) -> u64 {
    let mut state = seed.wrapping_add((block as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The outputs that are published for the seed 1234567.
    #[test]
    fn draws_are_those_of_split_mix() {
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!([0, 1, 2, 3, 4].map(|block| draw(1_234_567, block)), published);
    }

    proptest! {
        #[test]
        fn controls_have_as_many_blocks(bits in proptest::collection::vec(any::<bool>(), 0..60), seed in any::<u64>()) {
            let (blocks, list) = (bits.len(), (0..bits.len()).filter(|i| bits[*i]).collect::<Vec<_>>());
            let matched = depth_matched(&list, blocks, seed);
            for control in [&matched, &random(list.len(), blocks, seed)] {
                prop_assert_eq!(control.len(), list.len());
                prop_assert!(control.windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert!(control.iter().all(|block| *block < blocks));
            }
            for part in 0..3 {
                let within = |list: &[usize]| list.iter().filter(|b| (part * blocks / 3..(part + 1) * blocks / 3).contains(*b)).count();
                prop_assert_eq!(within(&matched), within(&list));
            }
        }
    }

    /// The list has one block of the middle third {4, 5, 6, 7}, so its control has one of the
    /// others.
    #[test]
    fn depth_matched_lists_share_no_more_than_they_must() {
        let list = [0, 1, 2, 3, 5, 9, 10, 11];
        let draws: Vec<_> = (0..20).map(|seed| depth_matched(&list, 12, seed)).collect();
        assert!(draws.iter().all(|control| control[..4] == [0, 1, 2, 3] && control[5] == 8 && !control.contains(&5)));
        assert!([4, 6, 7].iter().all(|block| draws.iter().any(|control| control[4] == *block)));
    }

    #[test]
    fn seeds_draw_other_lists() {
        let mut lists: Vec<_> = (0..8).map(|seed| random(6, 30, seed)).collect();
        lists.sort();
        lists.dedup();
        assert_eq!(lists.len(), 8);
        assert_eq!(random(9, 4, 1), [0, 1, 2, 3]);
    }
}
