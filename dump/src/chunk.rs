//! Cuts tables into pieces that are dumped and loaded side by side. Pure.
//!
//! A table whose primary key begins with an integer is cut into ranges of it, of about the same width; any other is one piece.
//! Ranges are half open and the first and the last have no end, so that together they are all rows whatever the estimates say.

/// Bytes of a table, by the server's estimate, that one piece has.
pub const BYTES: u64 = 64 << 20;
/// Most pieces of one table.
const MOST: u64 = 10_000;

/// A range of the first column of the primary key: from `first` on, before `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// `None`: from the beginning.
    pub first: Option<i128>,
    /// `None`: to the end.
    pub end: Option<i128>,
}

impl Range {
    /// As a condition on a column, ready for SQL. Empty for all rows.
    pub fn condition(&self, column: &str) -> String {
        match (self.first, self.end) {
            (None, None) => String::new(),
            (Some(first), None) => format!(" WHERE {column} >= {first}"),
            (None, Some(end)) => format!(" WHERE {column} < {end}"),
            (Some(first), Some(end)) => format!(" WHERE {column} >= {first} AND {column} < {end}"),
        }
    }
}

/// Ranges for a table of about so many bytes whose key lies between `smallest` and `largest`.
pub fn ranges(bytes: u64, smallest: i128, largest: i128) -> Vec<Range> {
    let width = largest.saturating_sub(smallest).saturating_add(1).max(1);
    let count = i128::from(bytes.div_ceil(BYTES).clamp(1, MOST)).min(width);
    let bound = |number: i128| smallest.saturating_add(width.saturating_mul(number) / count);
    (0..count)
        .map(|number| Range {
            first: (number > 0).then(|| bound(number)),
            end: (number + 1 < count).then(|| bound(number + 1)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_small_table_is_one_piece() {
        assert_eq!(ranges(0, 1, 1_000_000), [Range::default()]);
        assert_eq!(ranges(BYTES, 1, 1_000_000), [Range::default()]);
        assert_eq!(Range::default().condition("`id`"), "");
    }

    #[test]
    fn a_large_table_is_cut_evenly() {
        let cut = ranges(4 * BYTES, 1, 400);
        let conditions: Vec<String> = cut.iter().map(|range| range.condition("`id`")).collect();
        let wanted = [
            " WHERE `id` < 101",
            " WHERE `id` >= 101 AND `id` < 201",
            " WHERE `id` >= 201 AND `id` < 301",
            " WHERE `id` >= 301",
        ];
        assert_eq!(conditions, wanted);
        assert_eq!(ranges(u64::MAX, 1, 3).len(), 3, "no piece without a key");
    }

    proptest! {
        #[test]
        fn each_key_is_in_one_piece(bytes in 0..u64::MAX, smallest in any::<i64>(), width in any::<u64>(), at in any::<u64>()) {
            let (smallest, width) = (i128::from(smallest), i128::from(width));
            let key = smallest + i128::from(at) % (width + 1);
            let cut = ranges(bytes, smallest, smallest + width);
            let holds = |range: &&Range| {
                range.first.is_none_or(|first| key >= first) && range.end.is_none_or(|end| key < end)
            };
            prop_assert_eq!(cut.iter().filter(holds).count(), 1);
            prop_assert!(cut[0].first.is_none() && cut.last().unwrap().end.is_none());
        }
    }
}
