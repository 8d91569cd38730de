//! Lines of any input. A line ends with LF, CR or CRLF; the last one may end with the input.

use std::io::{self, BufRead};

use bytes::{Buf, Bytes, BytesMut};

use super::{MAX_ROW_BYTES, is_line_break};

/// One line of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Line number, from 1. Empty lines count.
    pub number: u64,
    /// Offset of the line in the input, in bytes.
    pub start: u64,
    /// The line without its line break.
    pub text: Result<Bytes, TooLong>,
}

impl Line {
    /// Whether the line is empty or has only white space. A byte order mark at its start is
    /// skipped.
    pub fn is_blank(&self) -> bool {
        self.text.as_ref().is_ok_and(|text| {
            guestlane_runtime::text::without_bom(text)
                .iter()
                .all(u8::is_ascii_whitespace)
        })
    }
}

/// The line has more than [`MAX_ROW_BYTES`] bytes. It is skipped to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the line has more than {MAX_ROW_BYTES} bytes")]
pub struct TooLong;

/// Splits an input that arrives in pieces into lines. Holds at most [`MAX_ROW_BYTES`] and one
/// piece.
#[derive(Debug, Default)]
pub struct LineSplitter {
    read: BytesMut,
    /// Length of the prefix of `read` that has no line break.
    searched: usize,
    number: u64,
    /// Number of bytes taken from `read`, including those of an overlong line that were dropped.
    taken: u64,
    /// Offset of an overlong line whose end has not arrived yet.
    too_long_since: Option<u64>,
    /// Whether the last line ended with CR, so that a following LF belongs to the same line break.
    skip_line_feed: bool,
}

impl LineSplitter {
    /// Adds the next piece of the input.
    pub fn push(&mut self, piece: &[u8]) {
        self.read.extend_from_slice(piece);
    }

    /// Returns the next line whose end has arrived. A line that ends with CR is returned before it
    /// is known whether LF follows.
    pub fn next_line(&mut self) -> Option<Line> {
        if self.skip_line_feed && !self.read.is_empty() {
            self.skip_line_feed = false;
            if self.read[0] == b'\n' {
                self.skip(1);
            }
        }
        let Some(found) = self.read[self.searched..]
            .iter()
            .position(|byte| is_line_break(*byte))
        else {
            self.searched = self.read.len();
            if self.searched > MAX_ROW_BYTES {
                self.too_long_since.get_or_insert(self.taken);
                self.skip(self.searched);
            }
            return None;
        };
        let end = self.searched + found;
        self.skip_line_feed = self.read[end] == b'\r';
        let line = self.take(end);
        self.skip(1);
        Some(line)
    }

    /// Returns the last line if it has no line break. Call it after the end of the input.
    pub fn last_line(&mut self) -> Option<Line> {
        let left = !self.read.is_empty() || self.too_long_since.is_some();
        left.then(|| self.take(self.read.len()))
    }

    /// Number of the line whose end has not arrived yet.
    pub fn open_line(&self) -> u64 {
        self.number + 1
    }

    fn take(&mut self, length: usize) -> Line {
        self.number += 1;
        let start = self.too_long_since.unwrap_or(self.taken);
        let text = self.read.split_to(length).freeze();
        self.taken += length as u64;
        self.searched = 0;
        let too_long = self.too_long_since.take().is_some() || length > MAX_ROW_BYTES;
        Line {
            number: self.number,
            start,
            text: if too_long { Err(TooLong) } else { Ok(text) },
        }
    }

    fn skip(&mut self, length: usize) {
        self.read.advance(length);
        self.taken += length as u64;
        self.searched = 0;
    }
}

/// Reads the lines of a reader.
#[derive(Debug)]
pub struct LineReader<R> {
    input: R,
    splitter: LineSplitter,
}

impl<R: BufRead> LineReader<R> {
    /// Creates a line reader. Line 1 begins at the current position of `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            splitter: LineSplitter::default(),
        }
    }

    /// Number of the line that could not be read when [`next_line`](Self::next_line) failed.
    pub fn open_line(&self) -> u64 {
        self.splitter.open_line()
    }

    /// Returns the next line, or `None` after the last one.
    ///
    /// # Errors
    /// Returns the error of the reader.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(line) = self.splitter.next_line() {
                return Ok(Some(line));
            }
            let piece = self.input.fill_buf()?;
            if piece.is_empty() {
                return Ok(self.splitter.last_line());
            }
            let length = piece.len();
            self.splitter.push(piece);
            self.input.consume(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<(u64, u64, Option<Vec<u8>>)> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for piece in pieces {
            splitter.push(piece);
            lines.extend(std::iter::from_fn(|| splitter.next_line()));
        }
        lines.extend(splitter.last_line());
        lines
            .into_iter()
            .map(|line| {
                (
                    line.number,
                    line.start,
                    line.text.ok().map(|text| text.to_vec()),
                )
            })
            .collect()
    }

    #[test]
    fn lf_cr_and_crlf_are_one_line_break_each() {
        let text = b"a\nb\rc\r\n\r\n\n\rd";
        let found = lines(&[text]);
        let texts: Vec<_> = found
            .iter()
            .map(|(_, _, text)| String::from_utf8(text.clone().unwrap()).unwrap())
            .collect();
        assert_eq!(texts, ["a", "b", "c", "", "", "", "d"]);
        assert_eq!(
            found.iter().map(|(number, ..)| *number).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6, 7]
        );
        assert_eq!(
            found.iter().map(|(_, start, _)| *start).collect::<Vec<_>>(),
            [0, 2, 4, 7, 9, 10, 11]
        );
    }

    #[test]
    fn line_ending_in_cr_is_returned_before_the_next_byte() {
        let mut splitter = LineSplitter::default();
        splitter.push(b"a\r");
        assert_eq!(splitter.next_line().unwrap().text.unwrap().as_ref(), b"a");
        splitter.push(b"\nb\n");
        assert_eq!(
            splitter.next_line().unwrap().text.unwrap().as_ref(),
            b"b",
            "the LF belongs to the CR"
        );
    }

    #[test]
    fn overlong_line_is_skipped_and_next_line_is_read() {
        let long = vec![b'x'; MAX_ROW_BYTES + 1];
        for pieces in [
            vec![[&long[..], b"\rb\n"].concat()],
            long.chunks(1000)
                .map(<[u8]>::to_vec)
                .chain([b"\rb\n".to_vec()])
                .collect(),
        ] {
            let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
            let start = MAX_ROW_BYTES as u64 + 2;
            assert_eq!(
                lines(&pieces),
                [(1, 0, None), (2, start, Some(b"b".to_vec()))]
            );
        }
        assert_eq!(lines(&[&long]), [(1, 0, None)]);
        assert!(
            lines(&[&long[1..]])[0].2.is_some(),
            "the bound itself is allowed"
        );
    }

    proptest! {
        #[test]
        fn line_splitting_is_independent_of_chunking(
            text in prop::collection::vec(prop::sample::select(b"ab\r\n".to_vec()), 0..40), cut in 1_usize..7,
        ) {
            let pieces: Vec<_> = text.chunks(cut).collect();
            prop_assert_eq!(lines(&pieces), lines(&[&text]));
        }
    }
}
