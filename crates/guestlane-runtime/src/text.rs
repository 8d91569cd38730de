//! Text from outside, made safe for a log line or a terminal, and errors as text.

use std::{error::Error, fmt::Write as _};

/// Maximum length of a line, in characters.
const MAX_LINE: usize = 300;

/// Returns text from outside on one line, without control or invisible formatting characters,
/// truncated to `most` characters.
pub fn clean(text: &str, most: usize) -> String {
    let mut line: String = text
        .chars()
        .take(most)
        .map(|c| if is_hidden(c) { ' ' } else { c })
        .collect();
    if text.chars().nth(most).is_some() {
        line.pop();
        line.push('…');
    }
    line
}

/// Returns text from outside in a form that is safe for a log line or a terminal: one line, at most
/// 300 characters.
pub fn one_line(text: &str) -> String {
    clean(text, MAX_LINE)
}

/// Whether a character is a control character, or one that invisibly reorders, hides or breaks a
/// line (Unicode categories Cf, Zl and Zp).
fn is_hidden(c: char) -> bool {
    let invisible = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    c.is_control() || invisible
}

/// The messages of an error and its sources, on one line.
pub fn display_chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            let _ = write!(line, ": {text}");
        }
        cause = error.source();
    }
    line
}

/// Returns the text without a UTF-8 byte order mark at its start. The mark has no meaning in UTF-8
/// (RFC 3629, section 6); editors and PowerShell write it.
pub fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Like [`without_bom`], for a text that is known to be UTF-8.
pub fn without_bom_str(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cleaned_text_cannot_break_or_reorder_a_line() {
        assert_eq!(
            one_line("a\nb\u{1b}[31m\u{202e}c\u{2028}d\u{200b}"),
            "a b [31m c d "
        );
        let cut = one_line(&"x".repeat(400));
        assert!(cut.chars().count() == 300 && cut.ends_with('…'), "{cut}");
    }

    proptest! {
        #[test]
        fn cleaned_text_is_bounded(text in any::<String>()) {
            prop_assert!(clean(&text, 10).chars().count() <= 10);
        }
    }
}
