//! Checks all logs of a store, while they are written.

use std::{path::Path, time::Duration};

use guestlane_genesys::Clock;

use super::{
    check::{VerificationError, rotation_checkpoints, verify_against_store},
    checkpoint::Checkpoint,
    note::VerifierKey,
    tree::root,
};
use crate::store::{LogInfo, Store, StoreError};

/// A log, and what checking it came to.
pub type LogVerification = (LogInfo, Result<Checkpoint, VerificationError>);

/// Checks each log of the store, of which the first is written to `first`: its lines, what was signed over them, what `kept` knows of them, and what
/// the store knows; of a log whose files are on another machine, what the store has. Reads all of them: it may take long, and blocks meanwhile.
pub async fn verify_all(
    store: &Store,
    first: &Path,
    key: &VerifierKey,
    mut kept: Vec<Checkpoint>,
    clock: &Clock,
) -> Result<Vec<LogVerification>, StoreError> {
    // What the store has before the files are looked at: they must have at least that.
    let logs = store.logs(first, key).await?;
    kept.extend(logs.iter().flat_map(|log| rotation_checkpoints(&log.path, key)));
    let mut checked = Vec::new();
    for log in logs {
        if log.elsewhere {
            let proven = check_in_store(&log, &kept, store).await;
            checked.push((log, proven));
            continue;
        }
        let look = async || verify_against_store(&log.path, key, &log.checkpoint, &kept, store.leaves(log.log)).await;
        let proven = retry_while_growing(clock, look).await;
        checked.push((log, proven));
    }
    Ok(checked)
}

/// A log whose files are on another machine: what the store has of it, against what the store signed, and against what somebody kept.
async fn check_in_store(log: &LogInfo, kept: &[Checkpoint], store: &Store) -> Result<Checkpoint, VerificationError> {
    let leaves = store.leaves(log.log).await.map_err(|error| VerificationError::Store(Box::new(error)))?;
    let is_written = |checkpoint: &&Checkpoint| {
        let size = usize::try_from(checkpoint.size).unwrap_or(usize::MAX);
        leaves.get(..size).is_some_and(|leaves| root(leaves) == checkpoint.root)
    };
    let known = kept.iter().filter(|kept| kept.origin == log.checkpoint.origin).chain([&log.checkpoint]);
    if known.clone().all(|checkpoint| is_written(&checkpoint)) {
        Ok(log.checkpoint.clone())
    } else {
        Err(VerificationError::Diverged(log.path.clone()))
    }
}

/// A log that is being written may be ahead of its checkpoint, or behind the store, for a moment: then it is looked at again.
pub async fn retry_while_growing(
    clock: &Clock,
    look: impl AsyncFn() -> Result<Checkpoint, VerificationError>,
) -> Result<Checkpoint, VerificationError> {
    const LOOKS: u32 = 5;
    let mut looks = 1;
    loop {
        match look().await {
            Err(VerificationError::Tampered(..) | VerificationError::LogTruncated { .. } | VerificationError::Checkpoint(..))
                if looks < LOOKS =>
            {
                looks += 1;
                clock.sleep(Duration::from_millis(50)).await;
            }
            checked => return checked,
        }
    }
}
