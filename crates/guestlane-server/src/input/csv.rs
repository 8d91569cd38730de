//! Strict CSV parser (RFC 4180). A row that does not follow the format is rejected; nothing is
//! repaired.
//!
//! Three rules go beyond the RFC. A line break is LF, CR or CRLF. A cell has no line break, because
//! an open quotation mark would silently join rows. ASCII white space at both ends of a cell is
//! removed. The crate `csv` has no strict mode: it keeps stray quotation marks as text.

mod draft;

use std::{
    fmt,
    io::{self, BufRead},
};

use draft::{Draft, State};

use super::{MAX_ROW_BYTES, is_line_break};

/// One row of an input, valid or rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Number of its first line, from 1.
    pub line: u64,
    /// Offset of the row in the input, in bytes.
    pub start: u64,
    /// The cells, or why the row is rejected.
    pub cells: Result<Vec<String>, Malformed>,
}

/// Why a row is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong.
    pub fault: Fault,
    /// Column of the fault, from 1.
    pub column: usize,
    /// First line that is not used.
    pub first_line: u64,
    /// Last line that is not used.
    pub last_line: u64,
    /// Whether the end of the row is ambiguous, so that no later row is used.
    pub rest: bool,
}

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// White space stands between the comma and the quotation mark.
    SpaceBeforeQuote,
    /// A cell that does not begin with a quotation mark contains one.
    QuoteInCell,
    /// Text follows the closing quotation mark.
    TextAfterQuote,
    /// A quotation mark is escaped with a backslash, as MySQL writes it.
    Backslash,
    /// The input ends inside quotation marks.
    OpenQuote,
    /// A cell in quotation marks has a line break.
    LineBreak,
    /// The row has more than [`MAX_ROW_BYTES`] bytes.
    TooLong,
    /// The row is not UTF-8.
    NotUtf8,
}

impl Fault {
    /// What to do about the fault.
    pub fn fix(self) -> &'static str {
        match self {
            Self::SpaceBeforeQuote => "remove the white space before the quotation mark",
            Self::QuoteInCell | Self::TextAfterQuote | Self::Backslash => {
                "enclose the whole cell in quotation marks, and double each quotation mark inside \
                 it (RFC 4180)"
            }
            Self::OpenQuote | Self::LineBreak => {
                "close or double the quotation mark; a cell cannot have a line break"
            }
            Self::TooLong => "shorten the row",
            Self::NotUtf8 => "write UTF-8",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            fault,
            column,
            first_line,
            last_line,
            rest,
        } = self;
        let what = match fault {
            Fault::SpaceBeforeQuote => {
                format!("has white space before a quotation mark in column {column}")
            }
            Fault::QuoteInCell => format!(
                "has a quotation mark inside a cell without quotation marks in column {column}"
            ),
            Fault::TextAfterQuote => {
                format!("has text after a closing quotation mark in column {column}")
            }
            Fault::Backslash => {
                format!("has a quotation mark after a backslash in column {column}")
            }
            Fault::OpenQuote => format!(
                "spans the lines {first_line} to {last_line}: a quotation mark is not closed"
            ),
            Fault::LineBreak => {
                format!(
                    "spans the lines {first_line} to {last_line}: a quoted cell contains a line \
                     break"
                )
            }
            Fault::TooLong => format!("has more than {MAX_ROW_BYTES} bytes"),
            Fault::NotUtf8 => "is not UTF-8".to_owned(),
        };
        f.write_str(&what)?;
        match fault {
            Fault::OpenQuote | Fault::LineBreak => f.write_str("; these lines were skipped"),
            _ if *rest && first_line < last_line => {
                write!(
                    f,
                    "; the end of the row is ambiguous, so the lines {first_line} to {last_line} \
                     were skipped"
                )
            }
            _ if first_line < last_line => {
                write!(f, "; the lines {first_line} to {last_line} were skipped")
            }
            _ => Ok(()),
        }
    }
}

/// Reads rows one after another. Holds at most one row of [`MAX_ROW_BYTES`].
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Line number of the next byte.
    line: u64,
    /// Number of bytes that were read.
    position: u64,
    after_cr: bool,
    over: bool,
}

impl<R: BufRead> Reader<R> {
    /// Creates a reader whose input begins with line 1. The caller must skip a byte order mark.
    pub fn new(input: R) -> Self {
        Self {
            input,
            line: 1,
            position: 0,
            after_cr: false,
            over: false,
        }
    }

    /// Returns the next row, or `None` after the last one. Empty lines are not rows.
    ///
    /// # Errors
    /// Returns the error of the input.
    pub fn next_row(&mut self) -> io::Result<Option<Row>> {
        if self.over {
            return Ok(None);
        }
        while let Some(byte) = self.peek()? {
            if !is_line_break(byte) {
                return self.read_row().map(Some);
            }
            self.advance(byte);
        }
        Ok(None)
    }

    /// Line number of the next byte.
    pub fn line(&self) -> u64 {
        self.line
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.input.fill_buf() {
                Ok(read) => match read.first().copied() {
                    Some(b'\n') if self.after_cr => {
                        self.input.consume(1); // Skip the second byte of CRLF.
                        self.position += 1;
                        self.after_cr = false;
                    }
                    byte => return Ok(byte),
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Consumes the byte that [`peek`](Self::peek) returned.
    fn advance(&mut self, byte: u8) {
        self.input.consume(1);
        self.position += 1;
        self.after_cr = byte == b'\r';
        self.line += u64::from(is_line_break(byte));
    }

    fn read_row(&mut self) -> io::Result<Row> {
        let mut draft = Draft::new(self.line, self.position);
        let mut state = State::Start;
        loop {
            let Some(byte) = self.peek()? else {
                if state == State::Quoted {
                    draft.fault = Some((Fault::OpenQuote, draft.column()));
                }
                break;
            };
            let line = self.line;
            self.advance(byte);
            if is_line_break(byte) && state != State::Quoted {
                break;
            }
            draft.last_line = line;
            state = draft.take(state, byte);
        }
        draft.end_cell();
        let rest = draft.hides_its_end();
        if rest {
            draft.last_line = self.skip_to_the_end(draft.last_line)?;
        }
        Ok(draft.finish(rest))
    }

    /// Skips the rest of the input, and returns the number of the last line that is not empty.
    fn skip_to_the_end(&mut self, mut last_line: u64) -> io::Result<u64> {
        self.over = true;
        while let Some(byte) = self.peek()? {
            if !is_line_break(byte) {
                last_line = self.line;
            }
            self.advance(byte);
        }
        Ok(last_line)
    }
}

#[cfg(test)]
mod tests;
