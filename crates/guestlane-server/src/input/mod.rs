//! Rules that files, standard input and HTTP bodies share: byte order mark, line breaks and rows.
//! All inputs use these functions, so that the same bytes mean the same in each.

pub mod csv;
pub mod json;
pub mod lines;

/// The longest row of a batch, in bytes: a line of JSON or a row of CSV. It is also the longest
/// JSON body of the service.
pub const MAX_ROW_BYTES: usize = 64 * 1024;

/// Whether the byte is a line break or the first byte of one. LF, CR and CRLF are each one line
/// break.
pub(crate) fn is_line_break(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}
