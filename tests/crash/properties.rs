//! Whatever stands in a file that others could have written, the program reads it and goes on. What must hold is written
//! down once, in `tests/fuzz/checks.rs`, for what libFuzzer makes up as well; here it is asked of the corpus, and of what
//! proptest makes of it.

use crate::checks;
use proptest::prelude::*;
use std::fs;
use std::path::Path;

/// The inputs that are kept for one format.
fn corpus(format: &str) -> Vec<Vec<u8>> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(format);
    let mut paths: Vec<_> = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// One thing that is done to an input.
#[derive(Clone, Debug)]
enum Change {
    /// A bit of the byte there is turned.
    Bend(prop::sample::Index, u8),
    /// The byte there becomes another.
    Put(prop::sample::Index, u8),
    /// It ends there.
    Cut(prop::sample::Index),
    /// What lies between the two is left out.
    Drop(prop::sample::Index, prop::sample::Index),
    /// What lies between the two comes twice.
    Repeat(prop::sample::Index, prop::sample::Index),
    /// These bytes come in between.
    Insert(prop::sample::Index, Vec<u8>),
    /// Another input of the corpus follows from there on.
    Graft(prop::sample::Index, prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    use prop::sample::Index;
    let word = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::sample::select(vec![
            "\n",
            "\r\n",
            "\0",
            "..",
            "/",
            "é",
            "\u{1f}",
            " ; ",
            "#####",
            "forever",
            "99999999999999999999",
            "-1",
            "\"",
            "[[",
            "{}",
            "../../outside",
            "2026-02-30_99.99",
        ])
        .prop_map(|word| word.as_bytes().to_vec()),
    ];
    prop_oneof![
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Change::Bend(at, bit)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Put(at, byte)),
        any::<Index>().prop_map(Change::Cut),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Drop(from, to)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Repeat(from, to)),
        (any::<Index>(), word).prop_map(|(at, word)| Change::Insert(at, word)),
        (any::<Index>(), any::<Index>()).prop_map(|(at, other)| Change::Graft(at, other)),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change], corpus: &[Vec<u8>]) -> Vec<u8> {
    for change in changes {
        let length = bytes.len();
        let between = |a: &prop::sample::Index, b: &prop::sample::Index| {
            let (a, b) = (a.index(length + 1), b.index(length + 1));
            (a.min(b), a.max(b))
        };
        match change {
            Change::Bend(at, bit) if length > 0 => bytes[at.index(length)] ^= 1 << bit,
            Change::Put(at, byte) if length > 0 => bytes[at.index(length)] = *byte,
            Change::Bend(..) | Change::Put(..) => {}
            Change::Cut(at) => bytes.truncate(at.index(length + 1)),
            Change::Drop(from, to) => {
                let (from, to) = between(from, to);
                bytes.drain(from..to);
            }
            Change::Repeat(from, to) => {
                let (from, to) = between(from, to);
                let again = bytes[from..to].to_vec();
                bytes.splice(to..to, again);
            }
            Change::Insert(at, word) => {
                let at = at.index(length + 1);
                bytes.splice(at..at, word.iter().copied());
            }
            Change::Graft(at, other) => {
                bytes.truncate(at.index(length + 1));
                bytes.extend_from_slice(&corpus[other.index(corpus.len())]);
            }
        }
    }
    bytes
}

/// Asks it of the corpus, of any bytes, and of `cases` changes of the corpus.
fn holds(format: &str, check: fn(&[u8]), cases: u32) {
    let corpus = corpus(format);
    assert!(corpus.len() >= 4, "{format}: {} inputs", corpus.len());
    corpus.iter().for_each(|bytes| check(bytes));
    let cases = if crate::trace::full() { cases * 50 } else { cases };
    let config = || ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    let inputs = (0..corpus.len(), prop::collection::vec(change(), 1..5));
    proptest!(config(), |((of, changes) in inputs)| check(&changed(corpus[of].clone(), &changes, &corpus)));
    proptest!(config(), |(bytes in prop::collection::vec(any::<u8>(), 0..600))| check(&bytes));
}

#[test]
fn p03_a_journal_of_any_bytes_keeps_its_good_lines() {
    holds("journal", checks::journal, 300);
}

#[test]
fn p01_a_manifest_of_any_bytes_is_never_taken_for_another() {
    holds("manifest", checks::manifest, 300);
}

#[test]
fn p08_any_name_is_a_pin_that_protects_or_no_pin() {
    holds("pin", checks::pin, 2000);
}

#[test]
fn a_recipe_of_any_text_is_read_or_its_fault_has_a_line() {
    holds("recipe", checks::recipe, 500);
}

#[test]
fn any_file_of_supervisords_is_edited_without_a_trace() {
    holds("supervisor", checks::supervisor, 1000);
}

#[test]
fn p17_a_tar_of_any_bytes_writes_nothing_outside_its_release() {
    holds("tar", checks::tar, 300);
}
