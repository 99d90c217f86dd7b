//! What becomes of good input: some of its bytes, or of its words, are changed, taken out, put in or moved.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// What becomes of some bytes.
pub(crate) fn mutated(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..4) {
        let length = bytes.len().max(1);
        let at = random.random_range(0..length).min(bytes.len());
        mutate_at(&mut bytes, at, random);
    }
    bytes
}

/// The same, mostly within a part of them.
pub(super) fn mutated_within(bytes: &[u8], part: std::ops::Range<usize>, random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..6) {
        let part = if random.random_bool(0.8) { part.clone() } else { 0..bytes.len() };
        let at = random.random_range(part.start..part.end.max(part.start + 1)).min(bytes.len());
        mutate_at(&mut bytes, at, random);
    }
    bytes
}

fn mutate_at(bytes: &mut Vec<u8>, at: usize, random: &mut ChaCha8Rng) {
    let length = bytes.len().max(1);
    let end = (at + random.random_range(0..20)).min(bytes.len());
    match random.random_range(0..8) {
        0 if !bytes.is_empty() => bytes[at.min(length - 1)] ^= 1 << random.random_range(0..8),
        1 if !bytes.is_empty() => {
            bytes[at.min(length - 1)] = *b"\0\xff\x7f\x80,\"'\n\\{}[]()*-.;09eE".choose(random).unwrap();
        }
        2 => _ = bytes.drain(at..end),
        3 if random.random_bool(0.3) => bytes.truncate(at),
        4 => {
            let part = bytes[at..end].to_vec();
            let to = random.random_range(0..length).min(bytes.len());
            bytes.splice(to..to, part);
        }
        5 => {
            let more: Vec<u8> = (0..random.random_range(1..9)).map(|_| random.random()).collect();
            bytes.splice(at..at, more);
        }
        6 if end > at => bytes[at..end].fill(random.random()),
        _ => bytes[at..end].reverse(),
    }
}

/// The words of a text: names, numbers, quoted texts, signs. Put side by side they are the text again.
pub(super) fn words(text: &str) -> Vec<String> {
    let (mut words, mut rest) = (vec![], text);
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let end = match first {
            '\'' | '"' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
            c if c.is_whitespace() => rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len()),
            c if is_name(c) => rest.find(|c: char| !is_name(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        words.push(rest[..end].to_string());
        rest = &rest[end..];
    }
    words
}

/// What becomes of words, with some of other texts or of their kind in their places.
pub(super) fn mutated_words(words: &[String], others: &[Vec<String>], random: &mut ChaCha8Rng) -> Vec<String> {
    let mut words = words.to_vec();
    for _ in 0..random.random_range(1..5) {
        let length = words.len().max(1);
        let at = random.random_range(0..length).min(words.len());
        let end = (at + random.random_range(1..8)).min(words.len());
        let other = others.choose(random).map_or(&[][..], Vec::as_slice);
        let from = random.random_range(0..other.len().max(1)).min(other.len());
        let to = (from + random.random_range(1..12)).min(other.len());
        match random.random_range(0..8) {
            0 => _ = words.drain(at..end),
            1 => {
                let part = words[at..end].to_vec();
                words.splice(at..at, part);
            }
            2 => _ = words.splice(at..end, other[from..to].to_vec()),
            3 => _ = words.splice(at..at, other[from..to].to_vec()),
            4 => _ = words.splice(at.., other[from..].to_vec()),
            5 | 6 if at < words.len() => words[at] = odd(&words[at], random),
            _ => words[at..end].reverse(),
        }
    }
    words
}

const NUMBERS: [&str; 14] = [
    "0",
    "1",
    "-1",
    "2",
    "NULL",
    "1e308",
    "0.1",
    "127",
    "255",
    "65536",
    "2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "99999999999999999999999999999999999999",
];

const TEXTS: [&str; 14] = [
    "''",
    "'x'",
    "'1 nanosecond'",
    "'-1 hour'",
    "'0 seconds'",
    "'1 month'",
    "'1 month 1 second'",
    "'178000000 years'",
    "'9999-12-31T23:59:59'",
    "'0001-01-01'",
    "'1677-09-21T00:12:43'",
    "'Europe/Berlin'",
    "'%'",
    "'\u{1F642}\u{0}'",
];

/// Something of a word's kind that people do not write.
fn odd(word: &str, random: &mut ChaCha8Rng) -> String {
    let choice = match word.chars().next() {
        Some('\'') => TEXTS.choose(random),
        Some(c) if c.is_ascii_digit() => NUMBERS.choose(random),
        _ => ["*", "(", ")", ",", "NULL", "DISTINCT", "''", "1", "SELECT", "OVER", "tumble", "\"\""].choose(random),
    };
    choice.map_or(String::new(), ToString::to_string)
}
