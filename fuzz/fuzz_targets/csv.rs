//! Fuzzes CSV rows. Each line that is not blank is in a row that was parsed, or in the line range
//! of an error.
#![no_main]

use guestlane_server::input::{csv::Reader, lines::LineReader};

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    let mut reader = Reader::new(text);
    let mut next = 1;
    while let Ok(Some(row)) = reader.next_row() {
        assert!(row.line >= next, "rows are in order");
        next = match row.cells {
            Ok(_) => row.line + 1,
            Err(malformed) => malformed.last_line + 1,
        };
        let _ = row.cells.map_err(|malformed| malformed.to_string());
    }
    let mut lines = LineReader::new(text);
    while let Ok(Some(line)) = lines.next_line() {
        assert!(
            line.is_blank() || line.number < next,
            "line {} is lost",
            line.number
        );
    }
});
