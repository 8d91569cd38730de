//! All printing of the executable: data to stdout, everything else to stderr. The reader may close
//! either at any time.

use std::{
    fmt::Display,
    io::{self, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use comfy_table::{Cell, Table, presets};
use serde::Serialize;

static LOST: AtomicBool = AtomicBool::new(false);

/// Prints a line of data. A closed pipe (`| head`) is not an error; any other failure is reported
/// at the end through [`data_was_lost`].
pub(crate) fn stdout_line(line: impl Display) {
    if let Err(error) = writeln!(anstream::stdout(), "{line}")
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// Prints a line of data that cannot be shown again, such as a new secret.
///
/// # Errors
///
/// The line was not written, or the reader has closed the pipe.
pub(crate) fn secret(line: impl Display) -> io::Result<()> {
    let mut stdout = anstream::stdout();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Whether some data could not be written.
pub(crate) fn data_was_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Prints data as one line of JSON.
pub(crate) fn json(value: &impl Serialize) {
    stdout_line(serde_json::to_string(value).unwrap_or_default());
}

/// Prints a line for the user to stderr.
pub(crate) fn stderr_line(line: impl Display) {
    above(|| {
        let _ = writeln!(anstream::stderr(), "{line}");
    });
}

/// The progress line at the bottom of a terminal. The cursor stays at its end, with room for the
/// `^C` that a terminal echoes there. The next write begins by erasing both.
static BOTTOM: Mutex<Option<String>> = Mutex::new(None);

const ERASE_LINE: &str = "\r\x1b[2K";

/// Replaces the progress line; `None` removes it. It must fit the terminal's width.
pub(crate) fn draw_bottom(line: Option<String>) {
    let mut bottom = BOTTOM.lock().unwrap_or_else(PoisonError::into_inner);
    if bottom.is_some() || line.is_some() {
        let _ = write!(
            io::stderr(),
            "{ERASE_LINE}{}",
            line.as_deref().unwrap_or_default()
        );
    }
    *bottom = line;
}

fn above<T>(write: impl FnOnce() -> T) -> T {
    let bottom = BOTTOM.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(line) = &*bottom else {
        drop(bottom);
        return write();
    };
    let _ = write!(io::stderr(), "{ERASE_LINE}");
    let written = write();
    let _ = write!(io::stderr(), "{line}");
    written
}

/// The writer of the log, which keeps the progress line below it.
pub(crate) struct Log;

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        above(|| io::stderr().write(text))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats a table with a header row. Empty cells are shown as `–`.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(headings.iter().map(Cell::new));
    for row in rows {
        table.add_row(row.into_iter().map(|text| {
            if text.is_empty() {
                "–".to_owned()
            } else {
                printable(&text)
            }
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Prints a note if the list is truncated at its limit.
pub(crate) fn note_of_limit(shown: usize, limit: u32) {
    if shown == limit as usize {
        stderr_line(format!(
            "note: only the newest {limit} are shown; --limit shows more"
        ));
    }
}

/// Formats a count with its noun: `1 event`, `2 events`.
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 {
        format!("1 {one}")
    } else {
        format!("{number} {one}s")
    }
}

/// Replaces control characters in untrusted text, which a terminal would execute.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
