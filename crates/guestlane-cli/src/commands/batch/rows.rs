//! The rows of a batch, as CSV or JSON Lines, read while earlier rows are in flight.

use std::{
    fmt,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use guestlane_core::request::{Owner, QueueId, SessionRequest, ValidationError};
use guestlane_runtime::text::without_bom;
use guestlane_server::input::{
    MAX_ROW_BYTES, csv,
    json::{Unreadable, read_object},
    lines::LineReader,
};
use guestlane_server::model::{CreateSessionRequest, DefaultKey};
use tokio::sync::mpsc;

use super::headings::Headings;
use crate::settings;

/// Position of a row in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the row, from 1, without the header row.
    row: u64,
    /// Number of the line, from 1, with the header row.
    line: u64,
    /// Bytes of the input before the row.
    byte: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}", self.row)?;
        if self.line != self.row {
            write!(f, " (line {})", self.line)
        } else {
            Ok(())
        }
    }
}

impl Place {
    /// Adds the row and line to a JSON object.
    pub(super) fn with(self, mut object: serde_json::Value) -> serde_json::Value {
        object["row"] = self.row.into();
        object["line"] = self.line.into();
        object
    }

    pub(super) fn row(self) -> u64 {
        self.row
    }

    pub(super) fn line(self) -> u64 {
        self.line
    }

    pub(super) fn byte(self) -> u64 {
        self.byte
    }
}

/// A valid row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) place: Place,
    pub(super) request: SessionRequest,
}

/// An invalid row. It does not stop the batch.
#[derive(Debug)]
pub(super) struct RowError {
    pub(super) place: Place,
    pub(super) invalid: ValidationError,
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ValidationError {
            field, reason, fix, ..
        } = &self.invalid;
        write!(f, "{}: {field} {reason}; {fix}", self.place)
    }
}

/// Maximum number of rows read ahead.
const MAX_ROWS_AHEAD: usize = 256;

/// The default batch key: the absolute path of the file as it was written, or `-` for standard
/// input. Symbolic links are not resolved, because the same path may lead elsewhere tomorrow (a
/// mounted ConfigMap, `current` of a release). Its rows are still the same rows.
pub(super) fn file_key(path: &Path) -> String {
    if path.as_os_str() == "-" {
        return "-".to_owned();
    }
    let path = settings::absolute(path);
    match path.to_str() {
        Some(text) => text.to_owned(),
        // Two paths that are not UTF-8 must not become the same key.
        None => path
            .as_os_str()
            .as_encoded_bytes()
            .escape_ascii()
            .to_string(),
    }
}

/// What all rows of a batch have in common.
struct Common {
    queue: Option<QueueId>,
    batch_key: String,
}

impl Common {
    fn request(&self, row: CreateSessionRequest) -> Result<SessionRequest, ValidationError> {
        let key = DefaultKey::OfRow(&self.batch_key);
        row.request(self.queue, key, &Owner::local())
    }
}

type Rows = mpsc::Receiver<Result<Row, RowError>>;

type Source = BufReader<Box<dyn Read + Send>>;

/// Opens the file, detects its format, and reads its rows in the background. Also returns the
/// file's size in bytes, if it is known.
///
/// # Errors
/// The file cannot be read, is a JSON array, or has no valid header row.
pub(super) fn read(
    path: &Path,
    queue: Option<QueueId>,
    batch_key: String,
) -> anyhow::Result<(Rows, Option<u64>)> {
    let unreadable = |error: io::Error| {
        ValidationError::new(
            "FILE",
            format!("{} cannot be read: {error}", path.display()),
            "name a CSV or JSON lines file",
        )
    };
    let (source, size): (Box<dyn Read + Send>, _) = if path.as_os_str() == "-" {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        (Box::new(file), metadata.is_file().then_some(metadata.len()))
    };
    let (first, source) = look_at_first(source).map_err(unreadable)?;
    let common = Common { queue, batch_key };
    let (sender, receiver) = mpsc::channel(MAX_ROWS_AHEAD);
    match first {
        Some(b'{') => drop(tokio::task::spawn_blocking(move || {
            read_json(source, &common, &sender)
        })),
        Some(b'[') => {
            let fix = "write one JSON object per line, without enclosing brackets and separating \
                commas";
            return Err(ValidationError::new(
                "FILE",
                format!("{} is a JSON array", path.display()),
                fix,
            )
            .into());
        }
        Some(_) | None => {
            let mut reader = csv::Reader::new(source);
            let headings = Headings::read(&mut reader).map_err(unreadable)??;
            tokio::task::spawn_blocking(move || read_csv(reader, &headings, &common, &sender));
        }
    }
    Ok((receiver, size))
}

/// Skips a byte order mark, and returns the first byte that is not white space. On a pipe, that
/// byte may arrive long after the first read.
fn look_at_first(mut source: Box<dyn Read + Send>) -> io::Result<(Option<u8>, Source)> {
    let mut read = Vec::new();
    let first = loop {
        let text = without_bom(&read);
        // The byte order mark may have arrived only in part.
        let marked = b"\xef\xbb\xbf".starts_with(&read);
        let first = text
            .iter()
            .find(|byte| !byte.is_ascii_whitespace())
            .copied()
            .filter(|_| !marked);
        if first.is_some() || read.len() > MAX_ROW_BYTES {
            break first;
        }
        let mut piece = [0; 8 * 1024];
        match source.read(&mut piece) {
            Ok(0) => {
                break without_bom(&read)
                    .iter()
                    .find(|byte| !byte.is_ascii_whitespace())
                    .copied();
            }
            Ok(length) => read.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    let read = without_bom(&read).to_vec();
    Ok((
        first,
        BufReader::new(Box::new(io::Cursor::new(read).chain(source))),
    ))
}

type Sender = mpsc::Sender<Result<Row, RowError>>;

fn read_json(source: Source, common: &Common, sender: &Sender) {
    let mut lines = LineReader::new(source);
    loop {
        let line = match lines.next_line() {
            Ok(Some(line)) => line,
            Ok(None) => return,
            Err(error) => {
                let number = lines.open_line();
                send(
                    sender,
                    Place {
                        row: number,
                        line: number,
                        byte: 0,
                    },
                    Err(cannot_be_read(&error)),
                );
                return;
            }
        };
        if line.is_blank() {
            continue;
        }
        let place = Place {
            row: line.number,
            line: line.number,
            byte: line.start,
        };
        let too_long = |_| {
            ValidationError::new(
                "row",
                format!("has more than {MAX_ROW_BYTES} bytes"),
                "shorten the row",
            )
        };
        let row = line
            .text
            .map_err(too_long)
            .and_then(|text| json_row(&text))
            .and_then(|row| common.request(row));
        if !send(sender, place, row) {
            return;
        }
    }
}

fn json_row(text: &[u8]) -> Result<CreateSessionRequest, ValidationError> {
    let fix = "write an object with guestId, queueId, idempotencyKey, firstName, lastName, email, phone, attributes";
    read_object(text).map_err(
        |Unreadable {
             field,
             reason,
             fix: better,
         }| {
            let field = field.unwrap_or_else(|| "row".to_owned());
            ValidationError::new(
                field,
                format!("cannot be read: {reason}"),
                better.unwrap_or_else(|| fix.to_owned()),
            )
        },
    )
}

fn cannot_be_read(error: &io::Error) -> ValidationError {
    ValidationError::new(
        "row",
        format!("cannot be read: {error}; the rows after it were not read"),
        "run the same command again",
    )
}

fn read_csv(
    mut reader: csv::Reader<Source>,
    headings: &Headings,
    common: &Common,
    sender: &Sender,
) {
    let mut number = 0;
    loop {
        let row = match reader.next_row() {
            Ok(Some(row)) => row,
            Ok(None) => return,
            Err(error) => {
                let place = Place {
                    row: number + 1,
                    line: reader.line(),
                    byte: 0,
                };
                send(sender, place, Err(cannot_be_read(&error)));
                return;
            }
        };
        // Spreadsheets write rows without values. They are skipped like empty lines.
        if row
            .cells
            .as_ref()
            .is_ok_and(|cells| cells.iter().all(String::is_empty))
        {
            continue;
        }
        number += 1;
        let place = Place {
            row: number,
            line: row.line,
            byte: row.start,
        };
        let malformed = |malformed: csv::Malformed| {
            ValidationError::new("row", malformed.to_string(), malformed.fault.fix())
        };
        let cells = row.cells.map_err(malformed);
        let request = cells
            .and_then(|cells| headings.row(cells))
            .and_then(|row| common.request(row));
        if !send(sender, place, request) {
            return;
        }
    }
}

fn send(sender: &Sender, place: Place, row: Result<SessionRequest, ValidationError>) -> bool {
    let row = row
        .map(|request| Row { place, request })
        .map_err(|invalid| RowError { place, invalid });
    sender.blocking_send(row).is_ok()
}
