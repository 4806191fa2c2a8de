//! The laws of the algebra, against sets of plain numbers, and the text form.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const A: &str = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";
const B: &str = "bbbbbbbb-aaaa-aaaa-aaaa-aaaaaaaaaaaa";

fn set(text: &str) -> GtidSet {
    text.parse().unwrap()
}

/// Few UUIDs, tags and numbers, so that sets meet often.
fn gtids() -> impl Strategy<Value = BTreeSet<Gtid>> {
    let gtid =
        (0..2_usize, prop_oneof![Just(""), Just("a"), Just("b_9")], 1..24_i64).prop_map(|(uuid, tag, number)| {
            let tsid = Tsid { uuid: [A, B][uuid].parse().unwrap(), tag: Tag::new(tag).unwrap() };
            Gtid::new(tsid, number).unwrap()
        });
    prop::collection::btree_set(gtid, 0..60)
}

fn built(gtids: &BTreeSet<Gtid>) -> GtidSet {
    gtids.iter().cloned().collect()
}

proptest! {
    #[test]
    fn behaves_like_a_set_of_gtids(a in gtids(), b in gtids()) {
        let (x, y) = (built(&a), built(&b));
        prop_assert_eq!(x.union(&y), built(&(&a | &b)));
        prop_assert_eq!(x.subtract(&y), built(&(&a - &b)));
        prop_assert_eq!(x.intersect(&y), built(&(&a & &b)));
        prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
        prop_assert_eq!(x.is_superset(&y), a.is_superset(&b));
        prop_assert_eq!(x.count(), a.len() as u64);
        prop_assert_eq!(x.is_empty(), a.is_empty());
        prop_assert!(x.iter().eq(a.iter().cloned()));
        prop_assert!(b.iter().all(|gtid| x.contains(gtid) == a.contains(gtid)));
    }

    #[test]
    fn laws_hold(a in gtids(), b in gtids(), c in gtids()) {
        let (a, b, c) = (built(&a), built(&b), built(&c));
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.intersect(&b), b.intersect(&a));
        prop_assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
        prop_assert_eq!(a.intersect(&b.union(&c)), a.intersect(&b).union(&a.intersect(&c)));
        prop_assert_eq!(a.subtract(&b.union(&c)), a.subtract(&b).subtract(&c));
        prop_assert_eq!(a.subtract(&b).union(&a.intersect(&b)), a.clone());
        prop_assert!(a.subtract(&b).intersect(&b).is_empty());
        prop_assert_eq!(a.is_subset(&b), a.subtract(&b).is_empty());
        prop_assert!(a.is_subset(&a) && GtidSet::new().is_subset(&a));
    }

    #[test]
    fn printed_and_parsed_is_the_same(a in gtids()) {
        let a = built(&a);
        prop_assert_eq!(&set(&a.to_string()), &a);
        let json = serde_json::to_string(&a).unwrap();
        prop_assert_eq!(serde_json::from_str::<GtidSet>(&json).unwrap(), a);
    }

    #[test]
    fn any_order_gives_the_canonical_form(a in gtids(), seed in any::<u64>()) {
        let mut pieces: Vec<String> = a.iter().map(ToString::to_string).collect();
        let mut state = seed;
        pieces.sort_by_cached_key(|piece| { state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(piece.len() as u64); state });
        prop_assert_eq!(set(&pieces.join(" ,\n")).to_string(), built(&a).to_string());
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = text.parse::<GtidSet>();
        let _ = text.parse::<Gtid>();
    }

    #[test]
    fn no_gtid_like_text_panics(text in "(aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa|[-,:0-9a-z_ {}\\n]|9223372036854775807){0,12}") {
        if let Ok(parsed) = text.parse::<GtidSet>() {
            prop_assert_eq!(set(&parsed.to_string()), parsed);
        }
    }

    #[test]
    fn wide_intervals_do_not_overflow(a in any::<i64>(), b in any::<i64>(), c in any::<i64>(), d in any::<i64>()) {
        let sets: Vec<GtidSet> = [(a, b), (c, d)]
            .iter()
            .map(|(first, last)| {
                let mut set = GtidSet::new();
                if let Some(interval) = Interval::new(*first, *last) {
                    set.insert_interval(&Tsid::untagged(A.parse().unwrap()), interval);
                }
                set
            })
            .collect();
        let (x, y) = (&sets[0], &sets[1]);
        prop_assert_eq!(x.subtract(y).count() + x.intersect(y).count(), x.count());
        prop_assert_eq!(x.union(y).count() + x.intersect(y).count(), x.count() + y.count());
    }
}

#[test]
fn takes_what_the_server_takes() {
    for (text, canonical) in [
        (String::new(), String::new()),
        (" , \n,".to_owned(), String::new()),
        (A.to_owned(), String::new()),
        (format!("{A}:5-3"), String::new()),
        (format!("{A}:tag"), String::new()),
        (format!(" {A} : 1 - 3 : Tag : 4 , "), format!("{A}:1-3:tag:4")),
        (format!("{A}:tag:1:2-3:b:1:a:2:1"), format!("{A}:a:1-2:b:1:tag:1-3")),
        (format!("{A}:_a1:2,{A}:7:tag:3"), format!("{A}:7:_a1:2:tag:3")),
        (format!("{{{A}}}:1"), format!("{A}:1")),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA:01".to_owned(), format!("{A}:1")),
        (format!("{B}:4,\n{A}:1-9223372036854775806"), format!("{A}:1-9223372036854775806,{B}:4")),
        (format!("{A}:1:2-3:4:6"), format!("{A}:1-4:6")),
        (format!("{A}:{}:1", "T".repeat(32)), format!("{A}:{}:1", "t".repeat(32))),
    ] {
        assert_eq!(set(&text).to_string(), canonical, "{text:?}");
    }
}

#[test]
fn errors_name_the_offending_part() {
    for (text, error) in [
        ("nonsense".to_owned(), ParseError::Uuid("nonsense".into())),
        (format!("urn:uuid:{A}:1"), ParseError::Uuid("urn".into())),
        (format!("{A}:"), ParseError::Item(String::new())),
        (format!("{A}:1::2"), ParseError::Item(String::new())),
        (format!("{A}:1-"), ParseError::Item(String::new())),
        (format!("{A}:1-2-3"), ParseError::Item("2-3".into())),
        (format!("{A}:1 2"), ParseError::Item("1 2".into())),
        (format!("{A}:-3"), ParseError::Item("-3".into())),
        (format!("{A}:0"), ParseError::Range("0".into())),
        (format!("{A}:9223372036854775807"), ParseError::Range("9223372036854775807".into())),
        (format!("{A}:a a:1"), ParseError::Tag("a a".into())),
        (format!("{A}:{}:1", "t".repeat(33)), ParseError::Tag("t".repeat(33))),
    ] {
        assert_eq!(text.parse::<GtidSet>(), Err(error), "{text:?}");
    }
    assert_eq!("x".repeat(500).parse::<GtidSet>(), Err(ParseError::Uuid("x".repeat(64))));
}

#[test]
fn one_gtid_is_one_gtid() {
    let tagged: Gtid = format!("{A}:Tag:7").parse().unwrap();
    assert_eq!(tagged.to_string(), format!("{A}:tag:7"));
    assert_eq!((tagged.number(), tagged.tsid().tag.as_str()), (7, "tag"));
    assert_eq!(format!("{A}:1-2").parse::<Gtid>(), Err(ParseError::NotOne(format!("{A}:1-2"))));
    assert!("".parse::<Gtid>().is_err());
    assert!(Gtid::new(Tsid::untagged(A.parse().unwrap()), 0).is_none());
    assert!(Gtid::new(Tsid::untagged(A.parse().unwrap()), i64::MAX).is_none());
}

#[test]
fn tags_differ_from_no_tag() {
    let (plain, tagged) = (set(&format!("{A}:1-5")), set(&format!("{A}:t:1-5")));
    assert!(!plain.is_subset(&tagged) && !tagged.is_subset(&plain));
    assert_eq!(plain.union(&tagged).to_string(), format!("{A}:1-5:t:1-5"));
    assert_eq!(plain.union(&tagged).count(), 10);
}
