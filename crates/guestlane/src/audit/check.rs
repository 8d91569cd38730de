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
    tree::{Hash, root},
    verify::{LeafReader, Tampered},
};

/// Why a log is not proven.
#[derive(Debug, thiserror::Error)]
pub enum VerificationError {
    /// A file cannot be read.
    #[error("{} cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// There is no checkpoint beside the log.
    #[error("{} is missing: without a checkpoint nothing is proven", .0.display())]
    NoCheckpoint(PathBuf),
    /// The checkpoint is not good.
    #[error("{}: {}", .0.display(), .1)]
    Checkpoint(PathBuf, InvalidCheckpoint),
    /// The file is that of another log.
    #[error("{} is the log {found}, not {wanted}", .path.display())]
    WrongLog {
        /// The file.
        path: PathBuf,
        /// What should stand there.
        wanted: String,
        /// What does.
        found: String,
    },
    /// The file ends before the store does.
    #[error("{} ends with record {has}, the store has {store}: it was rolled back or cut, or the process that wrote it was killed or had no room on the disk", .path.display())]
    LogTruncated {
        /// The file.
        path: PathBuf,
        /// How many records it has.
        has: u64,
        /// How many there are.
        store: u64,
    },
    /// The file is good by itself, and not what the store has.
    #[error("{} is signed, but it is not what the store has: one of them was changed", .0.display())]
    Diverged(PathBuf),
    /// The store cannot be asked.
    #[error("the store cannot be read")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The lines are not what was signed.
    #[error("{}: {}", .0.display(), .1)]
    Tampered(PathBuf, Tampered),
}

/// Checks the lines of `path` against the checkpoint beside it, and against those of `kept` that are of the same log: a log that was rolled
/// back together with its checkpoint is found by one that somebody kept. A log that is being written while we look is checked as far
/// as it is signed.
pub fn verify_log(path: &Path, key: &VerifierKey, kept: &[Checkpoint]) -> Result<Checkpoint, VerificationError> {
    const MAX_RETRIES: u32 = 8;
    let read = |error| VerificationError::Read(path.to_owned(), error);
    let lines = File::open(path).map_err(read)?;
    // They only help to name the line: without them the log is checked none the less.
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
            grows = false; // nobody signs what there is more
            break;
        }
        (newest, grows) = (now, true);
    }
    if grows {
        lines.read_to(newest.size).map_err(read)?;
    } else {
        lines.read_to(u64::MAX).map_err(read)?;
    }
    let mut known: Vec<_> = kept.iter().filter(|kept| kept.origin == newest.origin).cloned().collect();
    known.push(newest.clone());
    match lines.verify(&known, hashes) {
        Ok(_) => Ok(newest),
        Err(tampered) => Err(VerificationError::Tampered(path.to_owned(), tampered)),
    }
}

fn newest_checkpoint(path: &Path, key: &VerifierKey) -> Result<Checkpoint, VerificationError> {
    let beside = checkpoint_path(path);
    match fs::read(&beside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(VerificationError::NoCheckpoint(beside)),
        Err(error) => Err(VerificationError::Read(beside, error)),
        Ok(note) => {
            let opened = Checkpoint::open(&String::from_utf8_lossy(&note), key);
            opened.map_err(|invalid| VerificationError::Checkpoint(beside, invalid))
        }
    }
}

/// As [`check`], for a log that a store knows: it must be that log, have all that the store had before we looked, and the store must have
/// written it. `leaves` gives the hashes of the store's lines when it is asked, after the files were read.
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
        return Err(VerificationError::WrongLog { path: path.to_owned(), wanted, found });
    }
    if newest.size < known.size {
        return Err(VerificationError::LogTruncated { path: path.to_owned(), has: newest.size, store: known.size });
    }
    let leaves = leaves.await.map_err(|error| VerificationError::Store(Box::new(error)))?;
    let written = usize::try_from(newest.size).ok().and_then(|size| leaves.get(..size)).map(root);
    if written == Some(newest.root) { Ok(newest) } else { Err(VerificationError::Diverged(path.to_owned())) }
}

/// The last checkpoints of the logs that the log at `path` continues: whoever has it knows how those must end.
pub fn rotation_checkpoints(path: &Path, key: &VerifierKey) -> Vec<Checkpoint> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    continued_by(BufReader::new(file), key)
}

pub(crate) fn continued_by(lines: impl BufRead, key: &VerifierKey) -> Vec<Checkpoint> {
    const ROTATE: &[u8] = b"audit.rotate";
    #[derive(Deserialize)]
    struct Rotation {
        action: String,
        continues: String,
    }
    let rotations = lines.split(b'\n').map_while(Result::ok).filter_map(|line| {
        if !line.windows(ROTATE.len()).any(|window| window == ROTATE) {
            return None; // nearly all of them
        }
        let rotation: Rotation = serde_json::from_slice(&line).ok()?;
        (rotation.action.as_bytes() == ROTATE).then(|| Checkpoint::open(&rotation.continues, key).ok())?
    });
    rotations.collect()
}
