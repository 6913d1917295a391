//! Short texts in shared words, readable while they are being written.
//!
//! The owner makes the version odd, writes, and makes it even again; a reader
//! that finds it odd or changed has met a writer (or one that died writing), and
//! says so rather than showing half of two texts.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::layout::LABEL;
use crate::text::shows_as_itself;

type Words = [AtomicU64; LABEL / 8];

/// Writes as much of `text` as there is room for.
pub(super) fn write(words: &Words, version: &AtomicU32, text: &str) {
    let mut bytes = [0; LABEL];
    let mut length = text.len().min(LABEL);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    let before = version.load(Ordering::Relaxed);
    version.store(before | 1, Ordering::Relaxed);
    fence(Ordering::Release);
    for (word, eight) in words.iter().zip(bytes.chunks_exact(8)) {
        let mut value = [0; 8];
        value.copy_from_slice(eight);
        word.store(u64::from_le_bytes(value), Ordering::Relaxed);
    }
    version.store((before | 1).wrapping_add(1), Ordering::Release);
}

/// Reads it. Nothing in it can do harm on a terminal.
pub(super) fn read(words: &Words, version: &AtomicU32) -> String {
    let before = version.load(Ordering::Acquire);
    if before & 1 == 1 {
        return String::new();
    }
    let bytes: Vec<u8> = words
        .iter()
        .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
        .collect();
    fence(Ordering::Acquire);
    if version.load(Ordering::Relaxed) != before {
        return String::new();
    }
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(LABEL);
    String::from_utf8_lossy(&bytes[..end])
        .chars()
        .map(|c| if shows_as_itself(c) { c } else { '\u{fffd}' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(text: &str) -> String {
        let (words, version) = (Words::default(), AtomicU32::new(0));
        write(&words, &version, "what was there before, and is longer");
        write(&words, &version, text);
        read(&words, &version)
    }

    #[test]
    fn a_text_is_cut_at_a_character_and_shows_no_control_codes() {
        assert_eq!(there_and_back("orders"), "orders");
        assert_eq!(there_and_back(""), "");
        assert_eq!(there_and_back(&"ä".repeat(30)), "ä".repeat(20));
        assert_eq!(there_and_back(&"€".repeat(30)), "€".repeat(13));
        assert_eq!(there_and_back("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(there_and_back("a\u{202e}b"), "a\u{fffd}b");
    }

    #[test]
    fn a_text_that_is_being_written_is_not_shown() {
        let (words, version) = (Words::default(), AtomicU32::new(0));
        write(&words, &version, "whole");
        version.fetch_or(1, Ordering::Relaxed);
        assert_eq!(read(&words, &version), "");
        // The next writer mends it.
        write(&words, &version, "again");
        assert_eq!(read(&words, &version), "again");
    }
}
