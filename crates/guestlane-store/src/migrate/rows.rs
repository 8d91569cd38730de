//! Rows of one table as typed columns, which are read from either store, compared, hashed and
//! inserted.

use aws_lc_rs::digest;
use rusqlite::types::ValueRef;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::MigrationError;
use crate::StoreError;

/// The type of a column in PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Uuid,
    Text,
    Bytes,
    Number,
    Small,
    Bool,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Text => "text",
            Self::Bytes => "bytea",
            Self::Number => "bigint",
            Self::Small => "integer",
            Self::Bool => "boolean",
        }
    }
}

/// Rows of a table, stored by column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rows {
    columns: Vec<Column>,
    len: usize,
}

impl Rows {
    pub(super) fn new(kinds: impl Iterator<Item = Kind>) -> Self {
        Self {
            columns: kinds.map(Column::new).collect(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a row of the file.
    pub(super) fn push_from_file(&mut self, row: &rusqlite::Row<'_>) -> Result<(), MigrationError> {
        for (index, column) in self.columns.iter_mut().enumerate() {
            column.push_from_file(row.get_ref(index)?)?;
        }
        self.len += 1;
        Ok(())
    }

    /// Adds a row of the database.
    pub(super) fn push_from_database(
        &mut self,
        row: &tokio_postgres::Row,
    ) -> Result<(), MigrationError> {
        for (index, column) in self.columns.iter_mut().enumerate() {
            column
                .push_from_database(row, index)
                .map_err(StoreError::from)?;
        }
        self.len += 1;
        Ok(())
    }

    /// Returns the key of the last row: the values of its first `width` columns.
    pub(super) fn last_key(&self, width: usize) -> Option<Vec<KeyValue>> {
        self.columns[..width].iter().map(Column::last).collect()
    }

    /// Returns the columns as array parameters of one statement.
    pub(super) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.columns.iter().map(Column::param).collect()
    }

    /// Adds all values to `digest`, each after its length, so that different columns cannot yield
    /// the same bytes.
    pub(super) fn hash_into(&self, digest: &mut digest::Context) {
        self.columns
            .iter()
            .for_each(|column| column.hash_into(digest));
    }
}

/// A value of a primary key, for `WHERE (key) > (values)` in both stores.
#[derive(Debug, Clone)]
pub(super) enum KeyValue {
    Uuid(Uuid),
    Text(String),
    Number(i64),
    Small(i32),
}

impl KeyValue {
    pub(super) fn for_file(&self) -> rusqlite::types::Value {
        match self {
            Self::Uuid(value) => value.into_bytes().to_vec().into(),
            Self::Text(value) => value.clone().into(),
            Self::Number(value) => (*value).into(),
            Self::Small(value) => (*value).into(),
        }
    }

    pub(super) fn for_database(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Uuid(value) => value,
            Self::Text(value) => value,
            Self::Number(value) => value,
            Self::Small(value) => value,
        }
    }
}

/// Values of one column.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Column {
    Uuid(Vec<Option<Uuid>>),
    Text(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Number(Vec<Option<i64>>),
    Small(Vec<Option<i32>>),
    Bool(Vec<Option<bool>>),
}

impl Column {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Uuid => Self::Uuid(Vec::new()),
            Kind::Text => Self::Text(Vec::new()),
            Kind::Bytes => Self::Bytes(Vec::new()),
            Kind::Number => Self::Number(Vec::new()),
            Kind::Small => Self::Small(Vec::new()),
            Kind::Bool => Self::Bool(Vec::new()),
        }
    }

    fn push_from_file(&mut self, value: ValueRef<'_>) -> Result<(), MigrationError> {
        let strange = || StoreError::Row("a value whose type is not that of its column");
        let number = || value.as_i64_or_null().map_err(|_| strange());
        match self {
            Self::Uuid(values) => {
                let bytes = value.as_blob_or_null().map_err(|_| strange())?;
                values.push(
                    bytes
                        .map(Uuid::from_slice)
                        .transpose()
                        .map_err(|_| strange())?,
                );
            }
            Self::Text(values) => {
                let text = value.as_str_or_null().map_err(|_| strange())?;
                // PostgreSQL cannot store NUL in text, so replace it with U+FFFD.
                values.push(text.map(|text| text.replace('\0', "\u{fffd}")));
            }
            Self::Bytes(values) => values.push(
                value
                    .as_blob_or_null()
                    .map_err(|_| strange())?
                    .map(<[u8]>::to_vec),
            ),
            Self::Number(values) => values.push(number()?),
            Self::Small(values) => values.push(
                number()?
                    .map(i32::try_from)
                    .transpose()
                    .map_err(|_| strange())?,
            ),
            Self::Bool(values) => values.push(number()?.map(|number| number != 0)),
        }
        Ok(())
    }

    fn push_from_database(
        &mut self,
        row: &tokio_postgres::Row,
        index: usize,
    ) -> Result<(), tokio_postgres::Error> {
        match self {
            Self::Uuid(values) => values.push(row.try_get(index)?),
            Self::Text(values) => values.push(row.try_get(index)?),
            Self::Bytes(values) => values.push(row.try_get(index)?),
            Self::Number(values) => values.push(row.try_get(index)?),
            Self::Small(values) => values.push(row.try_get(index)?),
            Self::Bool(values) => values.push(row.try_get(index)?),
        }
        Ok(())
    }

    /// Returns the last value. It is `None` for an empty column, a NULL, and a type that no key
    /// has.
    fn last(&self) -> Option<KeyValue> {
        match self {
            Self::Uuid(values) => values.last()?.map(KeyValue::Uuid),
            Self::Text(values) => values.last()?.clone().map(KeyValue::Text),
            Self::Number(values) => values.last()?.map(KeyValue::Number),
            Self::Small(values) => values.last()?.map(KeyValue::Small),
            Self::Bytes(_) | Self::Bool(_) => None,
        }
    }

    fn param(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Uuid(values) => values,
            Self::Text(values) => values,
            Self::Bytes(values) => values,
            Self::Number(values) => values,
            Self::Small(values) => values,
            Self::Bool(values) => values,
        }
    }

    fn hash_into(&self, digest: &mut digest::Context) {
        let mut add = |bytes: Option<&[u8]>| match bytes {
            Some(bytes) => {
                digest.update(&(bytes.len() as u64 + 1).to_be_bytes());
                digest.update(bytes);
            }
            None => digest.update(&0_u64.to_be_bytes()),
        };
        match self {
            Self::Uuid(values) => values
                .iter()
                .for_each(|value| add(value.as_ref().map(|value| &value.as_bytes()[..]))),
            Self::Text(values) => values
                .iter()
                .for_each(|value| add(value.as_ref().map(String::as_bytes))),
            Self::Bytes(values) => values.iter().for_each(|value| add(value.as_deref())),
            Self::Number(values) => values.iter().for_each(|value| {
                add(value.map(i64::to_be_bytes).as_ref().map(|bytes| &bytes[..]))
            }),
            Self::Small(values) => values.iter().for_each(|value| {
                add(value.map(i32::to_be_bytes).as_ref().map(|bytes| &bytes[..]))
            }),
            Self::Bool(values) => values.iter().for_each(|value| {
                add(value
                    .map(|value| [u8::from(value)])
                    .as_ref()
                    .map(|bytes| &bytes[..]))
            }),
        }
    }
}
