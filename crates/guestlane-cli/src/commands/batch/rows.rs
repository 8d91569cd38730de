//! The rows of a batch: CSV or JSON lines, read one after another while the first are under way.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use guestlane::request::{Invalid, QueueId, SessionRequest};
use guestlane_http::model::{KeyIfNone, NewSession};
use tokio::sync::mpsc;

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// From 1, the heading not counted.
    row: u64,
    /// From 1, the heading counted.
    line: u64,
    /// Bytes of the input in front of it.
    byte: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}", self.row)?;
        if self.line != self.row { write!(f, " (line {})", self.line) } else { Ok(()) }
    }
}

impl Place {
    /// An object with the place added to it.
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

/// A good row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) place: Place,
    pub(super) request: SessionRequest,
}

/// A row that cannot be used. It does not stop the others.
#[derive(Debug)]
pub(super) struct RowError {
    pub(super) place: Place,
    pub(super) invalid: Invalid,
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Invalid { field, reason, fix } = &self.invalid;
        write!(f, "{}: {field} {reason}; {fix}", self.place)
    }
}

/// Rows read ahead.
const AHEAD: usize = 256;

/// A file is known by where it is: the same file read again is the same batch. Standard input is always one batch.
pub(super) fn file_key(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// What all rows have in common.
struct Common {
    queue: Option<QueueId>,
    batch_key: String,
}

impl Common {
    /// An empty cell, or an empty text, is none.
    fn request(&self, row: NewSession) -> Result<SessionRequest, Invalid> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let row = NewSession { queue_id: given(row.queue_id), idempotency_key: given(row.idempotency_key), ..row };
        row.request(self.queue, KeyIfNone::OfRow(&self.batch_key))
    }
}

type Rows = mpsc::Receiver<Result<Row, RowError>>;

/// Opens the file, looks at its first line, and reads on in the background. With its size in bytes, if anybody knows.
pub(super) fn read(path: &Path, queue: Option<QueueId>, batch_key: String) -> anyhow::Result<(Rows, Option<u64>)> {
    let unreadable = |error: io::Error| {
        Invalid::new("FILE", format!("{} cannot be read: {error}", path.display()), "name a CSV or JSON lines file")
    };
    let mut size = None;
    let source: Box<dyn Read + Send> = if path.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        size = metadata.is_file().then_some(metadata.len());
        Box::new(file)
    };
    let mut source = BufReader::new(source);
    if source.fill_buf().map_err(unreadable)?.starts_with(b"\xef\xbb\xbf") {
        source.consume(3); // a byte order mark says nothing here
    }
    let json = source.fill_buf().map_err(unreadable)?.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let common = Common { queue, batch_key };
    let (sender, receiver) = mpsc::channel(AHEAD);
    if json {
        tokio::task::spawn_blocking(move || read_json(source, &common, &sender));
    } else {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(source);
        let bad = |error: csv::Error| Invalid::new("heading", format!("cannot be read: {error}"), "write CSV in UTF-8");
        let headings = Headings::new(reader.headers().map_err(bad)?)?;
        tokio::task::spawn_blocking(move || read_csv(reader, &headings, &common, &sender));
    }
    Ok((receiver, size))
}

type Sender = mpsc::Sender<Result<Row, RowError>>;

fn read_json(source: impl BufRead, common: &Common, sender: &Sender) {
    let mut byte = 0;
    for (number, line) in (1..).zip(source.lines()) {
        let place = Place { row: number, line: number, byte };
        byte += line.as_ref().map_or(0, |text| text.len() as u64 + 1);
        let text = match line {
            Ok(text) if text.trim().is_empty() => continue,
            Ok(text) => serde_json::from_str::<NewSession>(&text).map_err(|error| {
                Invalid::new(
                    "row",
                    format!("is not an object with guestId, queueId, idempotencyKey, firstName, lastName, email, phone, attributes: {error}"),
                    "correct the line",
                )
            }),
            Err(error) => Err(Invalid::new("row", format!("cannot be read: {error}"), "write UTF-8")),
        };
        let row = text.and_then(|raw| common.request(raw));
        if !send(sender, place, row) {
            return;
        }
    }
}

/// Where each column goes.
struct Headings(Vec<Column>);

enum Column {
    Guest,
    Queue,
    Key,
    FirstName,
    LastName,
    Email,
    Phone,
    Attribute(String),
}

impl Headings {
    fn new(headings: &csv::StringRecord) -> Result<Self, Invalid> {
        let fix = "the columns are guest_id, queue_id, idempotency_key, first_name, last_name, email, phone and attr.NAME";
        let column = |heading: &str| match heading {
            "guest_id" => Ok(Column::Guest),
            "queue_id" => Ok(Column::Queue),
            "idempotency_key" => Ok(Column::Key),
            "first_name" => Ok(Column::FirstName),
            "last_name" => Ok(Column::LastName),
            "email" => Ok(Column::Email),
            "phone" => Ok(Column::Phone),
            _ => match heading.strip_prefix("attr.") {
                Some(name) => Ok(Column::Attribute(name.to_owned())),
                None => {
                    let shown: String = crate::screen::printable(heading).chars().take(40).collect();
                    Err(Invalid::new("heading", format!("has the unknown column `{shown}`"), fix))
                }
            },
        };
        let columns: Vec<_> = headings.iter().map(column).collect::<Result<_, _>>()?;
        if !columns.iter().any(|column| matches!(column, Column::Guest)) {
            return Err(Invalid::new("heading", "has no column guest_id", fix));
        }
        let mut names = std::collections::BTreeSet::new();
        if let Some(double) = headings.iter().find(|heading| !names.insert(*heading)) {
            return Err(Invalid::new("heading", format!("has the column `{double}` twice"), "name each column once"));
        }
        Ok(Self(columns))
    }

    fn raw(&self, record: &csv::StringRecord) -> NewSession {
        let mut raw = NewSession::default();
        for (column, value) in self.0.iter().zip(record) {
            match column {
                Column::Guest => raw.guest_id = value.to_owned(),
                Column::Queue => raw.queue_id = Some(value.to_owned()),
                Column::Key => raw.idempotency_key = Some(value.to_owned()),
                Column::FirstName => raw.first_name = Some(value.to_owned()),
                Column::LastName => raw.last_name = Some(value.to_owned()),
                Column::Email => raw.email = Some(value.to_owned()),
                Column::Phone => raw.phone = Some(value.to_owned()),
                // An empty cell is no attribute.
                Column::Attribute(_) if value.is_empty() => {}
                Column::Attribute(name) => {
                    raw.attributes.push((name.clone(), value.to_owned()));
                }
            }
        }
        raw
    }
}

fn read_csv(reader: csv::Reader<impl Read>, headings: &Headings, common: &Common, sender: &Sender) {
    for (row, record) in (1..).zip(reader.into_records()) {
        let position = match &record {
            Ok(record) => record.position(),
            Err(error) => error.position(),
        };
        let (line, byte) = position.map_or((row + 1, 0), |position| (position.line(), position.byte()));
        let place = Place { row, line, byte };
        let row = record
            .map_err(|error| unreadable(&error))
            .and_then(|record| one_line(&record).map(|()| record))
            .and_then(|record| common.request(headings.raw(&record)));
        if !send(sender, place, row) {
            return;
        }
    }
}

fn unreadable(error: &csv::Error) -> Invalid {
    let reason = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} columns, and the heading has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8".to_owned(),
        _ => error.to_string(),
    };
    Invalid::new("row", reason, "write UTF-8, and as many columns as the heading has")
}

/// A quotation mark that is not closed makes one row of all that follow it: guests would be lost without a word.
fn one_line(record: &csv::StringRecord) -> Result<(), Invalid> {
    let breaks = record.iter().map(|cell| cell.matches('\n').count()).sum::<usize>() as u64;
    if breaks == 0 {
        return Ok(());
    }
    let first = record.position().map_or(0, csv::Position::line);
    let reason =
        format!("takes the lines {first} to {}: a quotation mark is not closed; none of these lines was used", first + breaks);
    Err(Invalid::new("row", reason, "close or double the quotation mark; a cell cannot have a line break"))
}

fn send(sender: &Sender, place: Place, row: Result<SessionRequest, Invalid>) -> bool {
    let row = row.map(|request| Row { place, request }).map_err(|invalid| RowError { place, invalid });
    sender.blocking_send(row).is_ok()
}
