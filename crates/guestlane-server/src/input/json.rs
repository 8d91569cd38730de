//! Parser of one JSON object: the body of a request, or a row of a batch.

use serde::de::DeserializeOwned;

use guestlane_runtime::text::without_bom;

/// Largest nesting depth of objects and arrays.
pub const MAX_DEPTH: usize = 32;

/// Why a text could not be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unreadable {
    /// Path of the invalid member, such as `attributes.tier`. `None` if the text as a whole is
    /// invalid.
    pub field: Option<String>,
    /// What is wrong, including its subject.
    pub reason: String,
    /// What to write instead, if that is known.
    pub fix: Option<String>,
}

impl Unreadable {
    fn whole(reason: impl Into<String>) -> Self {
        Self {
            field: None,
            reason: reason.into(),
            fix: None,
        }
    }
}

/// Parses one JSON object from UTF-8, with or without a byte order mark. Only white space may
/// follow it.
///
/// # Errors
/// Returns an error if the text is not a JSON object, is nested deeper than [`MAX_DEPTH`], or does
/// not match `T`.
pub fn read_object<T: DeserializeOwned>(text: &[u8]) -> Result<T, Unreadable> {
    let text = without_bom(text);
    if depth(text) > MAX_DEPTH {
        return Err(Unreadable::whole(format!(
            "the JSON is deeper than {MAX_DEPTH} levels"
        )));
    }
    // serde would accept an array as an object whose members are in order.
    if is_array(text) {
        return Err(Unreadable::whole(
            "the text is a JSON array, not a JSON object",
        ));
    }
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Unreadable::whole("the text is not a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        // The path ends with `?` or `.` if the error occurred before a member was known.
        let path = path.trim_end_matches('?').trim_end_matches('.');
        unreadable(path, error.inner())
    })?;
    json.end()
        .map_err(|error| Unreadable::whole(error.to_string()))?;
    Ok(value)
}

/// Converts the error. A truncated text is invalid as a whole, wherever it ends. A member is named
/// if it is missing or its value is invalid.
fn unreadable(path: &str, error: &serde_json::Error) -> Unreadable {
    let reason = error.to_string();
    if error.is_eof() {
        return Unreadable::whole(reason);
    }
    if let Some((name, place)) = reason
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split_once('`'))
    {
        let field = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        return Unreadable {
            reason: format!("the member {field} is missing{place}"),
            field: Some(field),
            fix: None,
        };
    }
    let fix = text_of(&reason).map(|value| format!("write \"{value}\""));
    Unreadable {
        field: (!path.is_empty()).then(|| path.to_owned()),
        reason,
        fix,
    }
}

/// Returns the value that should have been a string, as serde_json repeats it: only a number or a
/// boolean.
fn text_of(reason: &str) -> Option<&str> {
    let (value, rest) = reason
        .strip_prefix("invalid type: ")?
        .split_once('`')?
        .1
        .split_once('`')?;
    rest.starts_with(", expected a string").then_some(value)
}

/// Whether the text begins as a JSON array.
pub fn is_array(text: &[u8]) -> bool {
    without_bom(text)
        .iter()
        .find(|byte| !byte.is_ascii_whitespace())
        == Some(&b'[')
}

/// The nesting depth of objects and arrays, whether or not the text is valid JSON.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn nesting_depth_is_bounded_before_parsing() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let read =
            |inner: &str| read_object::<Value>(format!("{{\"a\": {inner}}}").as_bytes()).is_ok();
        assert!(read(&nested(MAX_DEPTH - 1)));
        assert!(!read(&nested(MAX_DEPTH)));
        assert!(!read(&nested(1_000_000)), "and costs no stack");
        assert!(
            read(&format!("\"{}\"", "[".repeat(99))),
            "brackets in a string do not nest"
        );
        assert!(read(r#""\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[""#));
    }

    #[test]
    fn only_objects_are_accepted_and_byte_order_mark_is_ignored() {
        #[derive(serde::Deserialize)]
        struct Given {
            #[expect(dead_code, reason = "only read")]
            guest: String,
        }
        for text in [
            " {\"guest\": \"ann\"}",
            "\u{feff}{\"guest\": \"ann\"}",
            "{\"guest\": \"ann\"}\r\n",
        ] {
            assert!(read_object::<Given>(text.as_bytes()).is_ok(), "{text:?}");
        }
        for text in [
            r#"["ann"]"#,
            r#"{"guest": "ann"} {}"#,
            "\u{feff}\u{feff}{\"guest\": \"ann\"}",
            "",
        ] {
            assert!(read_object::<Given>(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn missing_member_is_named_and_truncated_text_names_none() {
        #[derive(Debug, serde::Deserialize)]
        struct Outer {
            #[expect(dead_code, reason = "only read")]
            inner: Inner,
        }
        #[derive(Debug, serde::Deserialize)]
        struct Inner {
            #[expect(dead_code, reason = "only read")]
            tier: String,
        }
        let refused = |text: &str| read_object::<Outer>(text.as_bytes()).unwrap_err();
        let field = |text: &str| refused(text).field;
        assert_eq!(field("{}").as_deref(), Some("inner"));
        assert_eq!(field(r#"{"inner": {}}"#).as_deref(), Some("inner.tier"));
        assert!(
            refused(r#"{"inner": {}}"#)
                .reason
                .starts_with("the member inner.tier is missing at line 1")
        );
        for broken in [
            r#"{"inner": {"tier": "go"#,
            r#"{"inner": {"tier":"#,
            r#"{"inner""#,
        ] {
            assert_eq!(field(broken), None, "{broken}");
        }
        for (value, fix) in [
            ("5", "write \"5\""),
            ("true", "write \"true\""),
            ("1.5", "write \"1.5\""),
        ] {
            let refused = refused(&format!(r#"{{"inner": {{"tier": {value}}}}}"#));
            assert_eq!(
                (refused.field.as_deref(), refused.fix.as_deref()),
                (Some("inner.tier"), Some(fix)),
                "{value}"
            );
        }
        assert_eq!(refused(r#"{"inner": {"tier": ["x"]}}"#).fix, None);
    }

    #[test]
    fn wrong_member_is_named_with_its_path() {
        #[derive(serde::Deserialize)]
        struct Inner {
            #[expect(dead_code, reason = "only read")]
            number: u8,
        }
        #[derive(serde::Deserialize)]
        struct Outer {
            #[expect(dead_code, reason = "only read")]
            inner: Vec<Inner>,
        }
        let refused = read_object::<Outer>(br#"{"inner": [{"number": 1}, {"number": "x"}]}"#)
            .err()
            .unwrap();
        assert_eq!(refused.field.as_deref(), Some("inner[1].number"));
    }
}
