//! Telephone numbers in the forms that the platform documents for its import and for
//! `contacts/enrich` (docs/platform.md#contacts).

/// Number of digits of an international number, including its country code. E.164 allows 15; the
/// shortest in use have 5.
const DIGITS: std::ops::RangeInclusive<usize> = 5..=15;

/// Longest extension, in digits.
const MAX_EXTENSION: usize = 9;

/// Converts a number to E.164: a plus sign and digits, without an extension. Returns `None` if the
/// number is not international: the platform would read a number without a country code as an
/// American one.
pub(super) fn e164(text: &str) -> Option<String> {
    let number = without_extension(text)?;
    let international = number
        .strip_prefix('+')
        .or_else(|| number.strip_prefix("00"));
    let (code, rest) = match international {
        Some(rest) => ("", rest),
        None => number
            .strip_prefix("(+")?
            .split_once(')')
            .filter(|(code, _)| is_code(code))?,
    };
    let dialled = rest
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, ' ' | '-' | '.' | '(' | ')' | '/'));
    let digits: String = code
        .chars()
        .chain(rest.chars())
        .filter(char::is_ascii_digit)
        .collect();
    // The digit in (0) is dialled only inside the country, and no country code begins with 0.
    let good = dialled
        && !rest.contains("(0)")
        && DIGITS.contains(&digits.len())
        && !digits.starts_with('0');
    good.then(|| format!("+{digits}"))
}

fn is_code(text: &str) -> bool {
    (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the number in front of an extension such as `x 123` or `ext. 123`. Returns `None` if the
/// extension has characters other than digits.
fn without_extension(text: &str) -> Option<&str> {
    let Some(at) = text.find(|c: char| c.is_ascii_alphabetic()) else {
        return Some(text);
    };
    let (number, extension) = text.split_at(at);
    let lower = extension.to_ascii_lowercase();
    let digits = ["ext.", "ext", "x"]
        .into_iter()
        .find_map(|word| lower.strip_prefix(word))?
        .trim_start();
    let good = (1..=MAX_EXTENSION).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    good.then(|| number.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_phone_formats_are_accepted() {
        for (text, number) in [
            ("+441213315000", "+441213315000"),
            ("+1 2325554316", "+12325554316"),
            ("+2923455532432", "+2923455532432"),
            ("+1 321 555 5554", "+13215555554"),
            ("+591 7433925553", "+5917433925553"),
            ("+1 321 555 9872 x 123", "+13215559872"),
            ("(+44)121.555.5251", "+441215555251"),
            ("+1 415-555-2629", "+14155552629"),
            ("0044 121 555 5251", "+441215555251"),
            ("0013215559872", "+13215559872"),
            ("+1 (415) 555-2629", "+14155552629"),
            ("+13215559872x123", "+13215559872"),
            ("+1 321 555 9872 ext. 123", "+13215559872"),
        ] {
            assert_eq!(e164(text).as_deref(), Some(number), "{text}");
        }
    }

    #[test]
    fn non_international_phone_numbers_are_rejected() {
        for text in [
            "5550100",
            "+",
            "+1234",
            "+31 20 555 x",
            "+1234567890123456",
            "+31 (0)20 555 0100",
            "0031 (0)20 555 0100",
            "(+31)(0)20 555 0100",
            "+0441215555251",
            "000441215555251",
            "0441215555251",
            "(44)1215555251",
            "(+)441215555251",
            "(+4 4)1215555251",
            "(+441215555251",
            "+1 321 555 9872 x 123 x 4",
            "+1 321 555 9872 x 1234567890",
            "+1 321 555 9872 fax 123",
            "+1 321 555 9872 x",
            "++13215559872",
            "+1+3215559872",
        ] {
            assert_eq!(e164(text), None, "{text}");
        }
    }
}
