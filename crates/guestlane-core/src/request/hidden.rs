//! Rejection of invisible characters. Two identifiers that differ only in one look the same, but
//! would be two guests.

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use super::ValidationError;

/// Letters without a glyph that Unicode does not count as format characters: the grapheme joiner
/// and the Hangul fillers.
const FILLERS: [char; 5] = ['\u{34f}', '\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}'];

/// Whether the character is invisible: a control, format or private-use character, a line or
/// paragraph separator, or a filler.
fn is_hidden(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    let hidden = matches!(
        character.general_category(),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
            | GeneralCategory::PrivateUse
    );
    hidden || FILLERS.contains(&character)
}

/// Whether the character is the zero-width joiner or non-joiner, which the spelling of Persian and
/// Indic names needs.
fn is_joiner(character: char) -> bool {
    matches!(character, '\u{200c}' | '\u{200d}')
}

fn is_letter_or_mark(character: char) -> bool {
    matches!(
        character.general_category_group(),
        GeneralCategoryGroup::Letter | GeneralCategoryGroup::Mark
    )
}

/// Checks that an identifier has no invisible character.
///
/// # Errors
/// The error names the first such character and its position, in characters from 1.
pub(crate) fn check_identifier(field: &str, text: &str) -> Result<(), ValidationError> {
    match text
        .chars()
        .zip(1..)
        .find(|(character, _)| is_hidden(*character))
    {
        Some((character, position)) => Err(refusal(field, character, position)),
        None => Ok(()),
    }
}

/// Like [`check_identifier`], but allows joiners between letters.
///
/// # Errors
/// The error names the first such character and its position, in characters from 1.
pub(crate) fn check_name(field: &str, text: &str) -> Result<(), ValidationError> {
    let characters: Vec<_> = text.chars().collect();
    let joins = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| characters.get(before));
        let after = characters.get(at + 1);
        is_joiner(characters[at])
            && before.copied().is_some_and(is_letter_or_mark)
            && after.copied().is_some_and(is_letter_or_mark)
    };
    match (0..characters.len()).find(|at| is_hidden(characters[*at]) && !joins(*at)) {
        Some(at) => Err(refusal(field, characters[at], at + 1)),
        None => Ok(()),
    }
}

fn refusal(field: &str, character: char, position: usize) -> ValidationError {
    let kind = if character.is_control() {
        "a control character"
    } else {
        "an invisible character"
    };
    let reason = format!(
        "has {kind} (U+{:04X}) at position {position}",
        u32::from(character)
    );
    ValidationError::new(
        field,
        reason,
        "remove it; such characters often come with text copied from a page or a document",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_character_is_named_with_its_position() {
        for (text, character, position) in [
            ("zw-bob\u{200b}", "U+200B", 7),
            ("\u{feff}cy", "U+FEFF", 1),
            ("a\u{ad}b", "U+00AD", 2),
            ("a\u{202e}b", "U+202E", 2),
            ("é\u{2028}", "U+2028", 2),
            ("\u{2029}", "U+2029", 1),
            ("a\u{2060}", "U+2060", 2),
            ("a\u{e000}", "U+E000", 2),
            ("ab\u{f0000}", "U+F0000", 3),
            ("a\u{e0041}", "U+E0041", 2),
            ("a\u{200d}b", "U+200D", 2),
            ("a\u{3164}", "U+3164", 2),
        ] {
            let refused = check_identifier("guestId", text).unwrap_err();
            assert_eq!(refused.field, "guestId");
            assert_eq!(
                refused.reason,
                format!("has an invisible character ({character}) at position {position}"),
                "{text:?}"
            );
        }
        for control in ["\u{7}", "\u{7f}", "\u{85}", "\n"] {
            let reason = check_identifier("guestId", &format!("a{control}"))
                .unwrap_err()
                .reason;
            assert!(
                reason.starts_with("has a control character (U+")
                    && reason.ends_with(" at position 2"),
                "{reason}"
            );
        }
        for good in ["José-日本-😀", "a b", "Ω\u{301}", "ann+1@x"] {
            assert!(check_identifier("guestId", good).is_ok(), "{good}");
        }
    }

    #[test]
    fn joiner_is_allowed_only_between_letters() {
        for good in ["علی\u{200c}رضا", "क्\u{200d}ष", "Ann", ""] {
            assert!(check_name("firstName", good).is_ok(), "{good}");
        }
        for bad in [
            "\u{200c}Ann",
            "Ann\u{200d}",
            "Ann\u{200c} Lee",
            "A\u{200c}\u{200c}b",
            "A\u{200b}b",
            "A\u{ad}b",
            "a\nb",
        ] {
            assert!(check_name("firstName", bad).is_err(), "{bad:?}");
        }
    }
}
