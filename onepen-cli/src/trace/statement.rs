//! What of a statement is shown: no literal, because those hold what nobody else
//! is to read; no comment; and of alike statements the same.

/// As much as is shown.
const LONGEST: usize = 90;

/// The statement without its literals: each is a `?`.
pub fn shown(sql: &str) -> String {
    let mut out = String::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        rest = if rest.starts_with("--") {
            rest.find('\n').map_or("", |end| &rest[end..])
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or("", |end| &rest[end + 2..])
        } else if first.is_whitespace() {
            if !out.is_empty() && !out.ends_with(' ') {
                out.push(' ');
            }
            after
        } else if first == '\'' {
            // The `x` of a blob goes with it.
            let word = out
                .trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '_')
                .len();
            if matches!(&out[word..], "x" | "X") {
                out.truncate(word);
            }
            out.push('?');
            quoted(after, '\'')
        } else if matches!(first, '"' | '`') {
            let end = quoted(after, first);
            out.push_str(&rest[..rest.len() - end.len()]);
            end
        } else if first.is_ascii_digit()
            || (first == '.' && after.starts_with(|c: char| c.is_ascii_digit()))
        {
            out.push('?');
            number(rest)
        } else {
            // A word, or one sign.
            let word =
                |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '@' | ':' | '?' | '#');
            let end = rest
                .find(|c: char| !word(c))
                .unwrap_or(rest.len())
                .max(first.len_utf8());
            let this = &rest[..end];
            out.push_str(if this.starts_with('?') { "?" } else { this });
            &rest[end..]
        };
    }
    // Lists are alike, however long.
    const LIST: &str = "\u{1}";
    out = out.replace(LIST, "");
    out = out.replace(", ?", ",?").replace("?,?", LIST);
    let shorter = |text: &str| {
        let text = text.replace(&format!("{LIST},?"), LIST);
        text.replace(&format!("{LIST},{LIST}"), LIST)
    };
    while shorter(&out) != out {
        out = shorter(&out);
    }
    let out = out.replace(LIST, "?…").replace(",?", ", ?");
    let out = out.trim().trim_end_matches(';').trim_end();
    match out.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &out[..end]),
        None => out.to_owned(),
    }
}

/// What follows the end of a quotation; a doubled quote does not end it.
fn quoted(mut rest: &str, quote: char) -> &str {
    loop {
        let Some(end) = rest.find(quote) else {
            return "";
        };
        rest = &rest[end + quote.len_utf8()..];
        match rest.strip_prefix(quote) {
            Some(more) => rest = more,
            None => return rest,
        }
    }
}

fn number(text: &str) -> &str {
    let mut before = ' ';
    let end = text.find(|c: char| {
        let goes_on = c.is_ascii_alphanumeric()
            || c == '.'
            || c == '_'
            || (matches!(c, '+' | '-') && matches!(before, 'e' | 'E'));
        before = c;
        !goes_on
    });
    &text[end.unwrap_or(text.len())..]
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn no_literal_is_shown_and_names_are() {
        for (sql, is) in [
            (
                "UPDATE t SET n = 42 WHERE k='it''s' -- why\n",
                "UPDATE t SET n = ? WHERE k=?",
            ),
            (
                "INSERT INTO t2 VALUES (1, 'a', x'00ff', ?3, -1.5e-3)",
                "INSERT INTO t2 VALUES (?…, -?)",
            ),
            (
                "select  /* id=7 */ \"user name\",`b` from [t]",
                "select \"user name\",`b` from [t]",
            ),
            ("SELECT 'never ended", "SELECT ?"),
            ("a IN (1,2, 3,4,5)", "a IN (?…)"),
            (
                "UPDATE t SET a=:value, b=@c, d=$e;",
                "UPDATE t SET a=:value, b=@c, d=$e",
            ),
            ("SELECT é, 0x1F", "SELECT é, ?"),
            ("", ""),
        ] {
            assert_eq!(shown(sql), is, "{sql}");
        }
        assert_eq!(shown(&"é".repeat(300)).chars().count(), 91);
    }

    #[test]
    fn any_text_is_taken() {
        for text in [
            "\"", "'", "x'", "--", "/*", "?", "?,?,?,?", "1", ".", "`a", "é'é'",
        ] {
            let _ = shown(text);
        }
    }
}
