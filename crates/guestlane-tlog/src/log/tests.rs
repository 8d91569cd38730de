//! Tests of `log`.

use std::fs::{self, OpenOptions};

use proptest::prelude::*;

use super::{open_log::leaves, *};

struct Store(Vec<String>);

impl Store {
    fn of(count: usize) -> Self {
        Self(
            (0..count)
                .map(|index| format!(r#"{{"index":{index},"x":"{}"}}"#, "y".repeat(index % 7)))
                .collect(),
        )
    }

    fn text(&self) -> String {
        self.0.iter().map(|line| format!("{line}\n")).collect()
    }

    fn note(&self) -> String {
        format!("{} lines", self.0.len())
    }
}

impl LineSource for Store {
    fn line(&self, index: u64) -> Result<Option<String>, String> {
        Ok(self.0.get(index as usize).cloned())
    }

    fn append_from(&self, index: u64, text: &mut Vec<u8>) -> Result<u64, String> {
        let lines = self.0.get(index as usize..).unwrap_or_default();
        let lines = &lines[..lines.len().min(2)]; // in pieces, as a store returns them
        lines
            .iter()
            .for_each(|line| text.extend_from_slice(format!("{line}\n").as_bytes()));
        Ok(lines.len() as u64)
    }
}

fn catch_up(files: &mut LogFiles, store: &Store) -> Result<AppendedRange, AuditError> {
    files.catch_up(store, &store.note(), &FailPoints::default())
}

#[track_caller]
fn assert_is(path: &Path, store: &Store) {
    assert_eq!(fs::read_to_string(path).unwrap(), store.text());
    assert_eq!(
        fs::read(hashes_path(path)).unwrap(),
        leaves(store.text().as_bytes())
            .flatten()
            .collect::<Vec<_>>()
    );
    assert_eq!(
        fs::read_to_string(checkpoint_path(path)).unwrap(),
        store.note()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Files that were cut at any point are whole after the next call.
    #[test]
    fn truncated_files_are_completed_by_the_next_catch_up(
        before in 0_usize..6, more in 0_usize..4, cuts in [0.0_f64..1.0, 0.0_f64..1.0, 0.0_f64..1.0],
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit/log.jsonl");
        catch_up(&mut LogFiles::new(path.clone()), &Store::of(before)).unwrap();
        for (path, cut) in [path.clone(), hashes_path(&path), checkpoint_path(&path)].iter().zip(cuts) {
            let length = fs::metadata(path).unwrap().len();
            OpenOptions::new().write(true).open(path).unwrap().set_len((length as f64 * cut) as u64).unwrap();
        }
        let store = Store::of(before + more);
        catch_up(&mut LogFiles::new(path.clone()), &store).unwrap();
        assert_is(&path, &store);
    }
}

/// A record of an older version may contain a long text of the platform.
#[test]
fn long_line_at_any_position_blocks_no_later_process() {
    let directory = tempfile::tempdir().unwrap();
    for (name, long_at) in [("first", 0), ("middle", 2), ("last", 4)] {
        let mut store = Store::of(5);
        store.0[long_at] = format!(r#"{{"index":{long_at},"x":"{}"}}"#, "y".repeat(900_000));
        let path = directory.path().join(name);
        catch_up(&mut LogFiles::new(path.clone()), &store).unwrap();
        catch_up(&mut LogFiles::new(path.clone()), &store).unwrap();
        assert_is(&path, &store);
        for torn in [1, 700_000, 899_990] {
            let length = fs::metadata(&path).unwrap().len();
            OpenOptions::new()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(length.saturating_sub(torn))
                .unwrap();
            catch_up(&mut LogFiles::new(path.clone()), &store).unwrap();
            assert_is(&path, &store);
        }
    }
    // An overlong line, and a long line that is not in the store, are still refused.
    let path = directory.path().join("foreign");
    for content in [
        vec![b'x'; 200_000],
        [vec![b'x'; 200_000], b"\n".to_vec()].concat(),
    ] {
        fs::write(&path, &content).unwrap();
        let refused = catch_up(&mut LogFiles::new(path.clone()), &Store::of(3));
        assert!(
            matches!(refused, Err(AuditError::Foreign(..))),
            "{refused:?}"
        );
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[test]
fn foreign_file_is_rejected_and_left_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.jsonl");
    for content in [
        "not json",
        "not json\n",
        "{\"index\":0,\"of\":\"another store\"}\n",
        "{\"index\":99}\n",
    ] {
        fs::write(&path, content).unwrap();
        let refused = catch_up(&mut LogFiles::new(path.clone()), &Store::of(3));
        assert!(matches!(refused, Err(AuditError::Foreign(..))), "{content}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn missing_log_file_is_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.jsonl");
    let mut files = LogFiles::new(path.clone());
    catch_up(&mut files, &Store::of(2)).unwrap();
    fs::rename(&path, directory.path().join("old.jsonl")).unwrap();
    catch_up(&mut files, &Store::of(3)).unwrap();
    assert_is(&path, &Store::of(3));
}

#[test]
fn missing_checkpoint_and_hashes_are_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.jsonl");
    let mut files = LogFiles::new(path.clone());
    catch_up(&mut files, &Store::of(5)).unwrap();
    fs::remove_file(checkpoint_path(&path)).unwrap();
    fs::remove_file(hashes_path(&path)).unwrap();
    let added = catch_up(&mut files, &Store::of(6)).unwrap();
    assert_eq!(
        added,
        AppendedRange {
            lines: 1,
            checkpoint: true
        }
    );
    assert_is(&path, &Store::of(6));
    assert_eq!(
        catch_up(&mut files, &Store::of(6)).unwrap(),
        AppendedRange::default()
    );
}

#[test]
fn trailing_zeros_of_a_power_loss_are_truncated() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.jsonl");
    catch_up(&mut LogFiles::new(path.clone()), &Store::of(5)).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(300_000)
        .unwrap();
    catch_up(&mut LogFiles::new(path.clone()), &Store::of(7)).unwrap();
    assert_is(&path, &Store::of(7));
}

#[test]
fn device_file_is_rejected_as_a_log() {
    let refused = catch_up(&mut LogFiles::new("/dev/null".into()), &Store::of(1));
    assert!(
        matches!(refused, Err(AuditError::Foreign(..))),
        "{refused:?}"
    );
}

#[test]
fn each_log_has_its_own_file_path() {
    let first = Path::new("audit/session-audit.jsonl");
    assert_eq!(lines_path(first, 1), first);
    assert_eq!(
        lines_path(first, 2),
        Path::new("audit/session-audit.2.jsonl")
    );
    assert_eq!(lines_path(Path::new("log"), 3), Path::new("log.3"));
    assert_eq!(
        checkpoint_path(first),
        Path::new("audit/session-audit.jsonl.checkpoint")
    );
}
