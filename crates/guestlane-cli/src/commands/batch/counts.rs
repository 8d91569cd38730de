//! Counts of the rows of a batch.

use super::rows::Place;

/// Counts of rows by result.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Rows taken from the input: started, already done, or invalid.
    pub(super) begun: u64,
    /// How far into the input these rows are, in bytes.
    pub(super) reached: u64,
    /// Finished rows.
    pub(super) rows: u64,
    pub(super) opened: u64,
    pub(super) replayed: u64,
    pub(super) failed: u64,
}

impl Counts {
    /// Counts a row that was taken from the input.
    pub(super) fn begin(&mut self, place: Place) {
        self.begun += 1;
        self.reached = self.reached.max(place.byte());
    }
}
