//! The header row of a CSV file, and the meaning of its columns.

use std::{
    collections::BTreeSet,
    io::{self, BufRead},
};

use guestlane_core::request::{ValidationError, check_visible};
use guestlane_server::input::csv;
use guestlane_server::model::CreateSessionRequest;

use crate::output;

const COLUMNS: &str = "the columns are guest_id, queue_id, idempotency_key, first_name, last_name, email, phone and attr.NAME";

/// The meaning of each column, in order.
#[derive(Debug)]
pub(super) struct Headings(Vec<Column>);

#[derive(Debug)]
enum Column {
    Guest,
    Queue,
    Key,
    FirstName,
    LastName,
    Email,
    Phone,
    Attribute(String),
    /// An empty column without a heading and without values, which spreadsheets write.
    Unnamed,
}

impl Headings {
    /// Reads the header row: the first row that has a value.
    ///
    /// # Errors
    ///
    /// The outer error is that of the input. The inner error says why the header row cannot be
    /// used.
    pub(super) fn read(
        reader: &mut csv::Reader<impl BufRead>,
    ) -> io::Result<Result<Self, ValidationError>> {
        loop {
            let Some(row) = reader.next_row()? else {
                return Ok(Self::new(&[]));
            };
            match row.cells {
                Ok(cells) if cells.iter().all(String::is_empty) => {}
                Ok(cells) => return Ok(Self::new(&cells)),
                Err(malformed) => {
                    return Ok(Err(ValidationError::new(
                        "heading",
                        malformed.to_string(),
                        malformed.fault.fix(),
                    )));
                }
            }
        }
    }

    fn new(headings: &[String]) -> Result<Self, ValidationError> {
        let columns: Vec<_> = headings
            .iter()
            .map(|heading| column(heading))
            .collect::<Result<_, _>>()?;
        if !columns.iter().any(|column| matches!(column, Column::Guest)) {
            return Err(ValidationError::new(
                "heading",
                "has no column guest_id",
                COLUMNS,
            ));
        }
        let mut names = BTreeSet::new();
        if let Some(double) = headings
            .iter()
            .find(|heading| !heading.is_empty() && !names.insert(*heading))
        {
            return Err(ValidationError::new(
                "heading",
                format!("has the column `{double}` twice"),
                "name each column once",
            ));
        }
        Ok(Self(columns))
    }

    /// Converts a row's cells to a session request. An empty cell counts as absent.
    ///
    /// # Errors
    ///
    /// The row has a different number of columns, for example because it is truncated, or a value
    /// in a column without a name.
    pub(super) fn row(&self, cells: Vec<String>) -> Result<CreateSessionRequest, ValidationError> {
        if cells.len() != self.0.len() {
            let reason = format!(
                "has {} columns, but the heading has {}",
                cells.len(),
                self.0.len()
            );
            return Err(ValidationError::new(
                "row",
                reason,
                "write as many columns as the heading has; the row may be truncated",
            ));
        }
        let mut row = CreateSessionRequest::default();
        for ((column, value), number) in self
            .0
            .iter()
            .zip(cells)
            .zip(1..)
            .filter(|((_, value), _)| !value.is_empty())
        {
            match column {
                Column::Guest => row.guest_id = value,
                Column::Queue => row.queue_id = Some(value),
                Column::Key => row.idempotency_key = Some(value),
                Column::FirstName => row.first_name = Some(value),
                Column::LastName => row.last_name = Some(value),
                Column::Email => row.email = Some(value),
                Column::Phone => row.phone = Some(value),
                Column::Attribute(name) => row.attributes.push((name.clone(), value)),
                Column::Unnamed => {
                    let reason = format!(
                        "has a value in column {number}, but the heading does not name \
                            that column"
                    );
                    return Err(ValidationError::new(
                        "row",
                        reason,
                        "name the column, or remove the value",
                    ));
                }
            }
        }
        Ok(row)
    }
}

fn column(heading: &str) -> Result<Column, ValidationError> {
    check_visible("heading", heading)?;
    Ok(match heading {
        "" => Column::Unnamed,
        "guest_id" => Column::Guest,
        "queue_id" => Column::Queue,
        "idempotency_key" => Column::Key,
        "first_name" => Column::FirstName,
        "last_name" => Column::LastName,
        "email" => Column::Email,
        "phone" => Column::Phone,
        _ => match heading.strip_prefix("attr.") {
            Some(name) => Column::Attribute(name.to_owned()),
            None => {
                let shown: String = output::printable(heading).chars().take(40).collect();
                return Err(ValidationError::new(
                    "heading",
                    format!("has the unknown column `{shown}`"),
                    COLUMNS,
                ));
            }
        },
    })
}
