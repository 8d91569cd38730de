//! The only place that prints: data to stdout, all else to stderr. Whoever reads may go away at any time.

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

/// A line of data. Who goes away before the end (`| head`) wanted no more; any other failure is [told at the end](data_was_lost).
pub(crate) fn stdout_line(line: impl Display) {
    if let Err(error) = writeln!(anstream::stdout(), "{line}")
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// A line of data that cannot be shown again, such as a new secret.
///
/// # Errors
///
/// The line was not written, or its reader has gone away.
pub(crate) fn secret(line: impl Display) -> io::Result<()> {
    let mut stdout = anstream::stdout();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Whether some data could not be written.
pub(crate) fn data_was_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Data as one line of JSON.
pub(crate) fn json(value: &impl Serialize) {
    stdout_line(serde_json::to_string(value).unwrap_or_default());
}

/// A line for the person.
pub(crate) fn stderr_line(line: impl Display) {
    above(|| {
        let _ = writeln!(anstream::stderr(), "{line}");
    });
}

/// The line at the bottom of a terminal that shows how something goes. The cursor stays at its end, with room for the `^C` that a
/// terminal echoes there: whatever is written next begins by erasing both.
static BOTTOM: Mutex<Option<String>> = Mutex::new(None);

const ERASE_LINE: &str = "\r\x1b[2K";

/// Shows that line, in the place of the one before; `None` takes it away. It must fit the terminal.
pub(crate) fn draw_bottom(line: Option<String>) {
    let mut bottom = BOTTOM.lock().unwrap_or_else(PoisonError::into_inner);
    if bottom.is_some() || line.is_some() {
        let _ = write!(io::stderr(), "{ERASE_LINE}{}", line.as_deref().unwrap_or_default());
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

/// Where the log goes.
pub(crate) struct Log;

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        above(|| io::stderr().write(text))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A table: headings, then rows. `–` stands where there is nothing.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(headings.iter().map(Cell::new));
    for row in rows {
        table.add_row(row.into_iter().map(|text| if text.is_empty() { "–".to_owned() } else { printable(&text) }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A list that may go on says so.
pub(crate) fn note_of_limit(shown: usize, limit: u32) {
    if shown == limit as usize {
        stderr_line(format!("note: only the newest {limit} are shown; --limit shows more"));
    }
}

/// `1 event`, `2 events`.
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// A text from elsewhere, without what a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
