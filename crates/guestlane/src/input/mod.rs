//! Rules that files, standard input and HTTP bodies share: byte order mark, line breaks and rows.
//! All inputs use these functions, so that the same bytes mean the same in each.

pub mod csv;
pub mod json;
pub mod lines;

/// The longest row of a batch, in bytes: a line of JSON or a row of CSV. It is also the longest
/// JSON body of the service.
pub const MAX_ROW_BYTES: usize = 64 * 1024;

/// Returns the text without a UTF-8 byte order mark at its start. The mark has no meaning in UTF-8
/// (RFC 3629, section 6); editors and PowerShell write it.
pub fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Like [`without_bom`], for a text that is known to be UTF-8.
pub fn without_bom_str(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Whether the byte is a line break or the first byte of one. LF, CR and CRLF are each one line
/// break.
pub(crate) fn is_line_break(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}
