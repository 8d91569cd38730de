//! Checks a log on disk: its lines, what was signed over them, and what others know of it.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    checkpoint::{Checkpoint, InvalidCheckpoint},
    log::{checkpoint_path, hashes_path},
    note::VerifierKey,
    tree::Hash,
    verify::{Tampered, verify},
};

/// Why a log is not proven.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    /// A file cannot be read.
    #[error("{} cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// There is no checkpoint beside the log.
    #[error("{} is missing: without a checkpoint nothing is proven", .0.display())]
    NoCheckpoint(PathBuf),
    /// The checkpoint is not good.
    #[error("{}: {}", .0.display(), .1)]
    Checkpoint(PathBuf, InvalidCheckpoint),
    /// The lines are not what was signed.
    #[error("{}: {}", .0.display(), .1)]
    Tampered(PathBuf, Tampered),
}

/// Checks the lines of `path` against the checkpoint beside it, and against those of `kept` that are of the same log: a log that was rolled
/// back together with its checkpoint is found by one that somebody kept.
pub fn check(path: &Path, key: &VerifierKey, kept: &[Checkpoint]) -> Result<Checkpoint, Unproven> {
    let read = |path: PathBuf| move |error| Unproven::Read(path, error);
    // First the checkpoint: a log that is being written while we look is never behind it.
    let beside = checkpoint_path(path);
    let note = match fs::read(&beside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => return Err(Unproven::NoCheckpoint(beside)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unproven::Read(path.to_owned(), error)),
        note => note.map_err(read(beside.clone()))?,
    };
    let newest =
        Checkpoint::open(&String::from_utf8_lossy(&note), key).map_err(|invalid| Unproven::Checkpoint(beside, invalid))?;
    // They only help to name the line: without them the log is checked none the less.
    let hashes = fs::read(hashes_path(path)).unwrap_or_default();
    let hashes: Vec<Hash> = hashes.as_chunks::<32>().0.to_vec();
    let lines = BufReader::new(File::open(path).map_err(read(path.to_owned()))?);
    let mut known: Vec<_> = kept.iter().filter(|kept| kept.origin == newest.origin).cloned().collect();
    known.push(newest.clone());
    match verify(lines, &known, &hashes).map_err(read(path.to_owned()))? {
        Ok(_) => Ok(newest),
        Err(tampered) => Err(Unproven::Tampered(path.to_owned(), tampered)),
    }
}

/// The last checkpoints of the logs that the log at `path` continues: whoever has it knows how those must end.
pub fn continued(path: &Path, key: &VerifierKey) -> Vec<Checkpoint> {
    const ROTATE: &[u8] = b"audit.rotate";
    #[derive(Deserialize)]
    struct Rotation {
        action: String,
        continues: String,
    }
    let Ok(file) = File::open(path) else { return Vec::new() };
    let rotations = BufReader::new(file).split(b'\n').map_while(Result::ok).filter_map(|line| {
        if !line.windows(ROTATE.len()).any(|window| window == ROTATE) {
            return None; // nearly all of them
        }
        let rotation: Rotation = serde_json::from_slice(&line).ok()?;
        (rotation.action.as_bytes() == ROTATE).then(|| Checkpoint::open(&rotation.continues, key).ok())?
    });
    rotations.collect()
}
