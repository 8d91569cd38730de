//! Settings and diagnosis of the executable `guestlane`, as a library for its tests and fuzz targets.

pub mod config;
pub mod doctor;
#[doc(hidden)]
pub mod fuzzing;
