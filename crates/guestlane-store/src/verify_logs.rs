//! Verifies all audit logs of a store while processes write them.

use std::{path::Path, time::Duration};

use guestlane_runtime::Clock;

use crate::{LogInfo, Store, StoreError};
use guestlane_tlog::{
    Checkpoint, VerificationError, VerifierKey, root, rotation_checkpoints, verify_against_store,
};

/// A log, and the result of its verification.
pub type LogVerification = (LogInfo, Result<Checkpoint, VerificationError>);

/// Verifies each log of the store. `first` is the path of the first log.
///
/// The method compares each log's lines with its checkpoints, with the checkpoints in `kept`, and
/// with the store. A log whose files are on another node is verified from the store alone. The call
/// reads all logs completely, which may take long and blocks meanwhile.
///
/// # Errors
/// Returns [`StoreError`] if the store cannot list its logs.
pub async fn verify_all(
    store: &Store,
    first: &Path,
    key: &VerifierKey,
    mut kept: Vec<Checkpoint>,
    clock: &Clock,
) -> Result<Vec<LogVerification>, StoreError> {
    // The store is read before the files, so that the files must contain at least as much.
    let logs = store.logs(first, key).await?;
    kept.extend(
        logs.iter()
            .flat_map(|log| rotation_checkpoints(&log.path, key)),
    );
    let mut checked = Vec::new();
    for log in logs {
        if log.other_node {
            let proven = check_in_store(&log, &kept, store).await;
            checked.push((log, proven));
            continue;
        }
        let look = async || {
            verify_against_store(
                &log.path,
                key,
                &log.checkpoint,
                &kept,
                store.leaves(log.log),
            )
            .await
        };
        let proven = retry_while_growing(clock, look).await;
        checked.push((log, proven));
    }
    Ok(checked)
}

/// Verifies a log on another node: its leaves in the store against the store's checkpoint and those
/// in `kept`.
async fn check_in_store(
    log: &LogInfo,
    kept: &[Checkpoint],
    store: &Store,
) -> Result<Checkpoint, VerificationError> {
    let leaves = store
        .leaves(log.log)
        .await
        .map_err(|error| VerificationError::Store(Box::new(error)))?;
    let is_written = |checkpoint: &&Checkpoint| {
        let size = usize::try_from(checkpoint.size).unwrap_or(usize::MAX);
        leaves
            .get(..size)
            .is_some_and(|leaves| root(leaves) == checkpoint.root)
    };
    let known = kept
        .iter()
        .filter(|kept| kept.origin == log.checkpoint.origin)
        .chain([&log.checkpoint]);
    if known.clone().all(|checkpoint| is_written(&checkpoint)) {
        Ok(log.checkpoint.clone())
    } else {
        Err(VerificationError::Diverged(log.path.clone()))
    }
}

/// Repeats a verification that fails while the log is written, with at most 5 attempts.
///
/// Such a log may be ahead of its checkpoint, or behind the store, for a moment.
///
/// # Errors
/// See [`VerificationError`].
pub async fn retry_while_growing(
    clock: &Clock,
    look: impl AsyncFn() -> Result<Checkpoint, VerificationError>,
) -> Result<Checkpoint, VerificationError> {
    const MAX_ATTEMPTS: u32 = 5;
    let mut looks = 1;
    loop {
        match look().await {
            Err(
                VerificationError::Tampered(..)
                | VerificationError::LogTruncated { .. }
                | VerificationError::Checkpoint(..),
            ) if looks < MAX_ATTEMPTS => {
                looks += 1;
                clock.sleep(Duration::from_millis(50)).await;
            }
            checked => return checked,
        }
    }
}
