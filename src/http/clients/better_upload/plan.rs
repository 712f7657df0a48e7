//! The size of parts. Pure.

use crate::http::clients::MAX_BATCH;
use crate::s3::MAX_PUT_BYTES;

/// The size of parts, if that makes few enough of them.
const PART_BYTES: u64 = 16 * 1024 * 1024;
/// Larger files are uploaded in parts.
pub(super) const MAX_SINGLE_BYTES: u64 = 2 * PART_BYTES;

/// The smallest part size with which the parts of all these files fit into one answer:
/// [`PART_BYTES`], doubled as often as necessary.
pub(super) fn part_size(sizes: &[u64]) -> Option<u64> {
    let doubled = std::iter::successors(Some(PART_BYTES), |size| Some(size * 2));
    let mut candidates = doubled
        .take_while(|size| *size < MAX_PUT_BYTES)
        .chain([MAX_PUT_BYTES]);
    candidates.find(|size| {
        let parts: u64 = sizes.iter().map(|it| it.div_ceil(*size).max(1)).sum();
        usize::try_from(parts).is_ok_and(|parts| parts <= MAX_BATCH)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::clients::parts_of;

    const MIB: u64 = 1024 * 1024;
    const GIB: u64 = 1024 * MIB;

    #[test]
    fn parts_are_as_small_as_one_answer_allows() {
        assert_eq!(part_size(&[0]), Some(16 * MIB));
        assert_eq!(part_size(&[200 * 16 * MIB]), Some(16 * MIB));
        assert_eq!(part_size(&[200 * 16 * MIB + 1]), Some(32 * MIB));
        assert_eq!(part_size(&[100 * 16 * MIB; 2]), Some(16 * MIB));
        assert_eq!(part_size(&[1000 * GIB]), Some(5 * GIB));
        assert_eq!(part_size(&[1000 * GIB + 1]), None);
        assert_eq!(part_size(&[u64::MAX / 2; 2]), None);
    }

    proptest! {
        #[test]
        fn all_parts_together_are_the_files(sizes in prop::collection::vec(0..=8 * GIB, 1..=100)) {
            let part_size = part_size(&sizes).unwrap();
            let mut count = 0;
            for size in sizes {
                let parts: Vec<_> = parts_of(size, part_size).map(|(_, size)| size).collect();
                count += parts.len();
                let (last, others) = parts.split_last().unwrap();
                let last = last.unwrap();
                prop_assert!(others.iter().all(|it| *it == Some(part_size)));
                prop_assert!(last <= part_size);
                prop_assert_eq!(others.len() as u64 * part_size + last, size);
            }
            prop_assert!(count <= MAX_BATCH);
        }
    }
}
