//! Sets of transaction numbers as sorted intervals that neither overlap nor touch.

use std::cmp::{max, min};
use std::fmt;

/// Largest number a transaction can have (`2^63 - 2`), so that one past the end of an interval is still an `i64`.
pub const NUMBER_MAX: i64 = i64::MAX - 1;

/// Numbers `first..=last`, never empty, within `1..=`[`NUMBER_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    first: i64,
    last: i64,
}

impl Interval {
    /// Nothing when the bounds are out of range or the interval would be empty.
    pub fn new(first: i64, last: i64) -> Option<Self> {
        (1 <= first && first <= last && last <= NUMBER_MAX).then_some(Self { first, last })
    }

    /// First number.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// Last number.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// How many numbers there are.
    pub fn count(&self) -> u64 {
        self.last.abs_diff(self.first).saturating_add(1)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// Set of transaction numbers in canonical form.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntervalSet(Vec<Interval>);

impl IntervalSet {
    /// From intervals in any order, overlapping or not.
    pub fn from_unsorted(mut intervals: Vec<Interval>) -> Self {
        intervals.sort_unstable();
        let mut set = Self(Vec::with_capacity(intervals.len()));
        for interval in intervals {
            set.push(interval);
        }
        set
    }

    /// Adds an interval that starts no earlier than all before it did.
    fn push(&mut self, next: Interval) {
        match self.0.last_mut() {
            Some(end) if next.first <= end.last + 1 => end.last = max(end.last, next.last),
            _ => self.0.push(next),
        }
    }

    /// Adds one interval.
    pub fn insert(&mut self, interval: Interval) {
        if self.0.last().is_none_or(|end| end.first <= interval.first) {
            self.push(interval);
        } else {
            *self = self.union(&Self(vec![interval]));
        }
    }

    /// Whether there are no numbers.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are; the numbers of one set always fit.
    pub fn count(&self) -> u64 {
        self.0.iter().map(Interval::count).sum()
    }

    /// The intervals, ascending.
    pub fn iter(&self) -> std::slice::Iter<'_, Interval> {
        self.0.iter()
    }

    /// The interval that ends last.
    pub fn last(&self) -> Option<&Interval> {
        self.0.last()
    }

    /// Whether a number is in the set.
    pub fn contains(&self, number: i64) -> bool {
        self.0.get(self.0.partition_point(|i| i.last < number)).is_some_and(|i| i.first <= number)
    }

    /// Whether every number here is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        let mut theirs = other.0.iter().peekable();
        self.0.iter().all(|ours| {
            while theirs.next_if(|i| i.last < ours.first).is_some() {}
            theirs.peek().is_some_and(|i| i.first <= ours.first && ours.last <= i.last)
        })
    }

    /// Numbers in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut out = Self(Vec::with_capacity(self.0.len() + other.0.len()));
        let mut theirs = other.0.iter().peekable();
        for ours in &self.0 {
            while let Some(interval) = theirs.next_if(|i| i.first <= ours.first) {
                out.push(*interval);
            }
            out.push(*ours);
        }
        for interval in theirs {
            out.push(*interval);
        }
        out
    }

    /// Numbers here that are not in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let mut out = Vec::with_capacity(self.0.len());
        let mut theirs = other.0.iter().peekable();
        for ours in &self.0 {
            let mut first = ours.first;
            while theirs.next_if(|i| i.last < ours.first).is_some() {}
            // The last interval that reaches into `ours` may reach into the next one too, so it is only looked at.
            while let Some(hole) = theirs.peek().filter(|i| i.first <= ours.last) {
                out.extend(Interval::new(first, hole.first - 1));
                first = hole.last + 1;
                if first > ours.last {
                    break;
                }
                theirs.next();
            }
            out.extend(Interval::new(first, ours.last));
        }
        Self(out)
    }

    /// Numbers in both sets.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut out = Vec::new();
        while let (Some(a), Some(b)) = (ours.peek(), theirs.peek()) {
            out.extend(Interval::new(max(a.first, b.first), min(a.last, b.last)));
            if a.last < b.last {
                ours.next()
            } else {
                theirs.next()
            };
        }
        Self(out)
    }
}

impl<'a> IntoIterator for &'a IntervalSet {
    type Item = &'a Interval;
    type IntoIter = std::slice::Iter<'a, Interval>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
