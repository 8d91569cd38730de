//! Tests of `csv`.

use proptest::prelude::*;

use super::*;

fn rows(text: &[u8]) -> Vec<Row> {
    let mut reader = Reader::new(text);
    std::iter::from_fn(|| reader.next_row().unwrap()).collect()
}

/// The cells of a row, or its fault, the last line that is not used, and whether the rest of
/// the input is rejected.
type Cells = Result<Vec<String>, (Fault, u64, bool)>;

/// Reads each row with the number of its first line.
fn read(text: &str) -> Vec<(u64, Cells)> {
    let short = |row: Row| {
        (
            row.line,
            row.cells
                .map_err(|malformed| (malformed.fault, malformed.last_line, malformed.rest)),
        )
    };
    rows(text.as_bytes()).into_iter().map(short).collect()
}

fn cells(cells: &[&str]) -> Cells {
    Ok(cells.iter().map(|cell| (*cell).to_owned()).collect())
}

#[test]
fn rfc_4180_rows_are_read() {
    for line_break in ["\n", "\r", "\r\n"] {
        let text = [
            "a,b",
            "\"x\",\"say \"\"hi\"\", bob\"",
            "",
            " y , \" z \"".trim_start(),
            ",",
            "\"\",last",
        ]
        .join(line_break);
        let expected = [
            (1, cells(&["a", "b"])),
            (2, cells(&["x", "say \"hi\", bob"])),
            (4, Err((Fault::SpaceBeforeQuote, 4, false))),
            (5, cells(&["", ""])),
            (6, cells(&["", "last"])),
        ];
        assert_eq!(read(&text), expected, "{line_break:?}");
    }
}

#[test]
fn malformed_row_is_rejected_and_next_row_is_read() {
    for (row, fault) in [
        ("\"ann\", \"ann@example.org\"", Fault::SpaceBeforeQuote),
        (" \"ann\",x", Fault::SpaceBeforeQuote),
        ("ann,6\" heel\"", Fault::QuoteInCell),
        ("\"ann\" ,x", Fault::TextAfterQuote),
        ("\"ann\"x,y", Fault::TextAfterQuote),
    ] {
        assert_eq!(
            read(&format!("{row}\nbob,y")),
            [(1, Err((fault, 1, false))), (2, cells(&["bob", "y"]))],
            "{row}"
        );
    }
}

#[test]
fn rest_is_rejected_when_the_row_end_is_uncertain() {
    for (row, fault) in [
        ("bob,\"6\\\" heel\"", Fault::Backslash),
        ("bob,6\" heel", Fault::QuoteInCell),
        ("bob, \"half", Fault::SpaceBeforeQuote),
        ("\"bob\" x,\"half\"\"", Fault::TextAfterQuote),
    ] {
        for line_break in ["\n", "\r", "\r\n"] {
            let text = ["ann,x", row, "cy,y", "", "dee,z", ""].join(line_break);
            assert_eq!(
                read(&text),
                [(1, cells(&["ann", "x"])), (2, Err((fault, 5, true)))],
                "{text:?}"
            );
        }
    }
    let malformed = rows(b"bob,6\" heel\ncy,y\n").remove(0).cells.unwrap_err();
    assert!(
        malformed
            .to_string()
            .ends_with("the lines 1 to 2 were skipped"),
        "{malformed}"
    );
}

#[test]
fn unclosed_quote_rejects_its_lines_at_any_line_break() {
    for line_break in ["\n", "\r", "\r\n"] {
        let text = ["h,n", "ann,\"unclosed", "bob,x", "cy,y"].join(line_break);
        let expected = [
            (1, cells(&["h", "n"])),
            (2, Err((Fault::OpenQuote, 4, false))),
        ];
        assert_eq!(read(&text), expected);
        assert_eq!(read(&format!("{text}{line_break}"))[1], expected[1]);
        let closed = ["h,n", "ann,\"two", "lines\"", "bob,x"].join(line_break);
        let expected = [
            (1, cells(&["h", "n"])),
            (2, Err((Fault::LineBreak, 3, false))),
            (4, cells(&["bob", "x"])),
        ];
        assert_eq!(read(&closed), expected);
    }
    let malformed = rows(b"a,\"x").remove(0).cells.unwrap_err();
    assert_eq!(
        malformed.to_string(),
        "spans the lines 1 to 1: a quotation mark is not closed; these lines were skipped"
    );
    assert!(
        read("a,\"one\nb,\"two\"\nc,d")[0]
            .1
            .as_ref()
            .is_err_and(|(_, last, rest)| *rest && *last == 3),
        "closed by another row"
    );
}

#[test]
fn oversized_row_is_rejected_and_next_row_is_read() {
    for long in [
        "x".repeat(MAX_ROW_BYTES + 1),
        format!("\"{}\"", "x".repeat(MAX_ROW_BYTES)),
        ",".repeat(MAX_ROW_BYTES + 1),
    ] {
        assert_eq!(
            read(&format!("{long}\nbob")),
            [(1, Err((Fault::TooLong, 1, false))), (2, cells(&["bob"]))]
        );
    }
    assert_eq!(read(&"x".repeat(MAX_ROW_BYTES)).len(), 1);
    let open = format!("a,\"{}\nb\n", "x".repeat(MAX_ROW_BYTES));
    assert_eq!(
        read(&open),
        [(1, Err((Fault::OpenQuote, 2, false)))],
        "why it is long is said"
    );
}

#[test]
fn non_utf8_row_is_rejected_alone() {
    let faults: Vec<_> = rows(b"a\xff\nb")
        .into_iter()
        .map(|row| row.cells.map_err(|malformed| malformed.fault))
        .collect();
    assert_eq!(faults, [Err(Fault::NotUtf8), Ok(vec!["b".to_owned()])]);
}

proptest! {
    #[test]
    fn accepted_rows_equal_those_of_the_csv_crate(text in r#"[ab ,"\n\r]{0,30}"#) {
        let rows = rows(text.as_bytes());
        let taken: Option<Vec<_>> = rows.iter().map(|row| row.cells.clone().ok()).collect();
        if let Some(taken) = taken {
            let mut others = csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
            let others: Vec<Vec<_>> = others.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
            prop_assert_eq!(taken, others);
        }
    }

    #[test]
    fn each_line_is_in_a_row_or_an_error(text in r#"[ab,"\n\r]{0,40}"#) {
        let mut next = 1;
        for row in rows(text.as_bytes()) {
            prop_assert!(row.line >= next);
            next = row.cells.map_or_else(|malformed| malformed.last_line, |_| row.line) + 1;
        }
        let mut lines = super::super::lines::LineReader::new(text.as_bytes());
        while let Some(line) = lines.next_line().unwrap() {
            prop_assert!(line.is_blank() || line.number < next, "line {} is lost in {text:?}", line.number);
        }
    }
}
