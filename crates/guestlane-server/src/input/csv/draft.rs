//! A row while it is read, cell by cell.

use super::{
    super::{MAX_ROW_BYTES, is_line_break},
    Fault, Malformed, Row,
};

/// A row that is being read.
pub(super) struct Draft {
    pub(super) line: u64,
    /// The last line with a byte of the row.
    pub(super) last_line: u64,
    pub(super) start: u64,
    pub(super) cells: Vec<Vec<u8>>,
    cell: Vec<u8>,
    length: usize,
    quotes: u64,
    pub(super) fault: Option<(Fault, usize)>,
    /// Whether a cell after the fault begins with a quotation mark.
    quoted_after_fault: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// At the start of a cell; at most white space was read.
    Start,
    Plain,
    Quoted,
    /// After the second quotation mark of a cell. It closes the cell, or is the first of an escaped
    /// pair.
    Closed,
    /// After a fault, up to the end of the line.
    Faulty {
        /// Only white space was read since the last comma.
        at_start: bool,
    },
}

impl Draft {
    pub(super) fn new(line: u64, start: u64) -> Self {
        let (cells, cell, quoted_after_fault) = (Vec::new(), Vec::new(), false);
        Self {
            line,
            last_line: line,
            start,
            cells,
            cell,
            length: 0,
            quotes: 0,
            fault: None,
            quoted_after_fault,
        }
    }

    pub(super) fn column(&self) -> usize {
        self.cells.len() + 1
    }

    /// Returns the state after one byte. Inside quotation marks a line break is kept like any other
    /// byte, but the row is rejected.
    pub(super) fn take(&mut self, state: State, byte: u8) -> State {
        self.length += 1;
        self.quotes += u64::from(byte == b'"');
        match (state, byte) {
            (State::Faulty { at_start }, _) => {
                self.quoted_after_fault |= at_start && byte == b'"';
                State::Faulty {
                    at_start: byte == b',' || at_start && byte.is_ascii_whitespace(),
                }
            }
            (State::Quoted, b'"') => State::Closed,
            (State::Quoted, byte) => {
                if is_line_break(byte) {
                    let column = self.column();
                    self.fault.get_or_insert((Fault::LineBreak, column));
                }
                self.keep(byte);
                State::Quoted
            }
            (State::Closed, b'"') => {
                self.keep(b'"');
                State::Quoted
            }
            (_, b',') => {
                self.end_cell();
                State::Start
            }
            (State::Closed, _) => {
                let fault = if self.cell.ends_with(b"\\") {
                    Fault::Backslash
                } else {
                    Fault::TextAfterQuote
                };
                self.refuse(fault)
            }
            (State::Start, b'"') if self.cell.is_empty() => State::Quoted,
            (State::Start, b'"') => self.refuse(Fault::SpaceBeforeQuote),
            (State::Plain, b'"') => self.refuse(Fault::QuoteInCell),
            (State::Start, byte) if byte.is_ascii_whitespace() => {
                self.keep(byte);
                State::Start
            }
            (State::Start | State::Plain, byte) => {
                self.keep(byte);
                State::Plain
            }
        }
    }

    fn refuse(&mut self, fault: Fault) -> State {
        self.fault = Some((fault, self.column()));
        State::Faulty { at_start: false }
    }

    fn keep(&mut self, byte: u8) {
        if self.length <= MAX_ROW_BYTES {
            self.cell.push(byte);
        }
    }

    pub(super) fn end_cell(&mut self) {
        if self.length <= MAX_ROW_BYTES {
            self.cells.push(std::mem::take(&mut self.cell));
        }
    }

    /// Whether the end of the row is ambiguous. CSV readers that repair malformed rows agree on it
    /// only under three conditions. The row is one line, its quotation marks are even, and no cell
    /// after the fault begins with one.
    pub(super) fn hides_its_end(&self) -> bool {
        match self.fault {
            Some((
                Fault::SpaceBeforeQuote
                | Fault::QuoteInCell
                | Fault::TextAfterQuote
                | Fault::Backslash,
                _,
            )) => self.quotes % 2 == 1 || self.quoted_after_fault || self.line < self.last_line,
            Some(_) | None => false,
        }
    }

    pub(super) fn finish(self, rest: bool) -> Row {
        let Self {
            line,
            last_line,
            start,
            ..
        } = self;
        let malformed = |(fault, column)| Malformed {
            fault,
            column,
            first_line: line,
            last_line,
            rest,
        };
        let too_long = (self.length > MAX_ROW_BYTES).then_some((Fault::TooLong, 1));
        let cells = match self.fault.or(too_long) {
            Some(fault) => Err(malformed(fault)),
            None => {
                let cells = self.cells.into_iter().zip(1..).map(|(cell, column)| {
                    match String::from_utf8(cell) {
                        Ok(cell) => Ok(cell.trim_ascii().to_owned()),
                        Err(_) => Err(malformed((Fault::NotUtf8, column))),
                    }
                });
                cells.collect()
            }
        };
        Row { line, start, cells }
    }
}
