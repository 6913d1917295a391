//! Text that others chose, made fit to be shown: names of files and of processes,
//! labels that another process wrote.
//!
//! Guarantees: what is shown stands where it is printed. It moves no cursor, sets no
//! colour or title, and turns the order of no line about
//! (<https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>).

/// Whether a character shows as itself: neither a control character, nor one that is
/// not seen, nor one that reorders the line it stands in.
pub fn shows_as_itself(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
}

/// The text in one line, with `?` for each character that does not
/// [show as itself](shows_as_itself).
///
/// ```
/// assert_eq!(onepen_lock::text::in_one_line("a\u{1b}[31m\nb.db"), "a?[31m?b.db");
/// ```
pub fn in_one_line(text: &str) -> String {
    text.chars()
        .map(|c| if shows_as_itself(c) { c } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_cursor_or_turns_a_line_about_is_not_shown() {
        for hostile in [
            "\u{1b}", "\u{7}", "\r", "\n", "\u{9b}", "\u{85}", "\u{202e}", "\u{2066}", "\u{200b}",
            "\u{feff}", "\u{61c}",
        ] {
            assert_eq!(in_one_line(hostile), "?", "{hostile:?}");
        }
        for fine in ["größe.db", "データ.db", "a b'c\"", "שלום", "😀"] {
            assert_eq!(in_one_line(fine), fine);
        }
    }
}
