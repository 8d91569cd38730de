//! Verifies an audit log on disk: its lines against its checkpoint, against kept checkpoints, and
//! against the store.

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
    tree::{Hash, root},
    verify::{LeafReader, Tampered},
};

/// Why a log is not proven.
#[derive(Debug, thiserror::Error)]
pub enum VerificationError {
    /// A file cannot be read.
    #[error("{} cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The log has no checkpoint file.
    #[error("{} is missing: the log cannot be verified without a checkpoint", .0.display())]
    NoCheckpoint(PathBuf),
    /// The checkpoint is not valid.
    #[error("{}: {}", .0.display(), .1)]
    Checkpoint(PathBuf, InvalidCheckpoint),
    /// The file belongs to another log.
    #[error("{} belongs to the log {found}, not {wanted}", .path.display())]
    WrongLog {
        /// Path of the file.
        path: PathBuf,
        /// Origin of the expected log.
        wanted: String,
        /// Origin of the log in the file.
        found: String,
    },
    /// The file has fewer records than the store.
    #[error("{} ends with record {has}, the store has {store}: the file was rolled back or truncated, or the process that wrote it was killed or ran out of disk space", .path.display())]
    LogTruncated {
        /// Path of the file.
        path: PathBuf,
        /// Number of records in the file.
        has: u64,
        /// Number of records in the store.
        store: u64,
    },
    /// The file is consistent in itself, but differs from the store.
    #[error("{} is signed, but differs from the store: one of them was changed", .0.display())]
    Diverged(PathBuf),
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The lines differ from what was signed.
    #[error("{}: {}", .0.display(), .1)]
    Tampered(PathBuf, Tampered),
}

/// Verifies the lines of `path` against the checkpoint beside it, and against the checkpoints of
/// the same log in `kept`.
///
/// A kept checkpoint reveals a log that was rolled back together with its own checkpoint. A log
/// that grows during the call is verified as far as it is signed.
///
/// # Errors
/// See [`VerificationError`].
pub fn verify_log(
    path: &Path,
    key: &VerifierKey,
    kept: &[Checkpoint],
) -> Result<Checkpoint, VerificationError> {
    const MAX_RETRIES: u32 = 8;
    let read = |error| VerificationError::Read(path.to_owned(), error);
    let lines = File::open(path).map_err(read)?;
    // The hashes only serve to find the number of a bad line, so the log is verified without them
    // too.
    let hashes = fs::read(hashes_path(path)).unwrap_or_default();
    let hashes = hashes.as_chunks::<32>().0;
    let mut newest = newest_checkpoint(path, key)?;
    let mut lines = LeafReader::new(BufReader::new(lines));
    let mut grows = false;
    for _ in 0..MAX_RETRIES {
        lines.read_to(newest.size).map_err(read)?;
        if !lines.has_more().map_err(read)? {
            break;
        }
        let now = newest_checkpoint(path, key)?;
        if now.size <= newest.size {
            grows = false; // no checkpoint covers the additional lines
            break;
        }
        (newest, grows) = (now, true);
    }
    if grows {
        lines.read_to(newest.size).map_err(read)?;
    } else {
        lines.read_to(u64::MAX).map_err(read)?;
    }
    let mut known: Vec<_> = kept
        .iter()
        .filter(|kept| kept.origin == newest.origin)
        .cloned()
        .collect();
    known.push(newest.clone());
    match lines.verify(&known, hashes) {
        Ok(_) => Ok(newest),
        Err(tampered) => Err(VerificationError::Tampered(path.to_owned(), tampered)),
    }
}

fn newest_checkpoint(path: &Path, key: &VerifierKey) -> Result<Checkpoint, VerificationError> {
    let beside = checkpoint_path(path);
    match fs::read(&beside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(VerificationError::NoCheckpoint(beside))
        }
        Err(error) => Err(VerificationError::Read(beside, error)),
        Ok(note) => {
            let opened = Checkpoint::open(&String::from_utf8_lossy(&note), key);
            opened.map_err(|invalid| VerificationError::Checkpoint(beside, invalid))
        }
    }
}

/// Verifies a log like [`verify_log`], and against the store.
///
/// The file must be the log of `known`, have all records that the store had before, and match the
/// store. `leaves` reads the hashes of the store's lines; it is awaited after the files were read.
///
/// # Errors
/// See [`VerificationError`].
pub async fn verify_against_store<F, E>(
    path: &Path,
    key: &VerifierKey,
    known: &Checkpoint,
    kept: &[Checkpoint],
    leaves: F,
) -> Result<Checkpoint, VerificationError>
where
    F: Future<Output = Result<Vec<Hash>, E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    let newest = verify_log(path, key, kept)?;
    if newest.origin != known.origin {
        let (wanted, found) = (known.origin.clone(), newest.origin);
        return Err(VerificationError::WrongLog {
            path: path.to_owned(),
            wanted,
            found,
        });
    }
    if newest.size < known.size {
        return Err(VerificationError::LogTruncated {
            path: path.to_owned(),
            has: newest.size,
            store: known.size,
        });
    }
    let leaves = leaves
        .await
        .map_err(|error| VerificationError::Store(Box::new(error)))?;
    let written = usize::try_from(newest.size)
        .ok()
        .and_then(|size| leaves.get(..size))
        .map(root);
    if written == Some(newest.root) {
        Ok(newest)
    } else {
        Err(VerificationError::Diverged(path.to_owned()))
    }
}

/// Returns the last checkpoints of the logs that the log at `path` continues. These checkpoints
/// define how those logs must end.
pub fn rotation_checkpoints(path: &Path, key: &VerifierKey) -> Vec<Checkpoint> {
    let Ok(file) = File::open(path) else {
        return Vec::new();
    };
    continued_by(BufReader::new(file), key)
}

/// Returns the checkpoints that the lines of a continued log contain, if `key` signed them.
pub fn continued_by(lines: impl BufRead, key: &VerifierKey) -> Vec<Checkpoint> {
    const ROTATE: &[u8] = b"audit.rotate";
    #[derive(Deserialize)]
    struct Rotation {
        action: String,
        continues: String,
    }
    let rotations = lines.split(b'\n').map_while(Result::ok).filter_map(|line| {
        if !line.windows(ROTATE.len()).any(|window| window == ROTATE) {
            return None; // most lines are not rotations, so do not parse them
        }
        let rotation: Rotation = serde_json::from_slice(&line).ok()?;
        (rotation.action.as_bytes() == ROTATE)
            .then(|| Checkpoint::open(&rotation.continues, key).ok())?
    });
    rotations.collect()
}
