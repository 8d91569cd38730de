//! Power loss: data that was not synced is gone.

use super::*;

fn copy_files(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to.join("audit")).unwrap();
    for directory in ["", "audit"] {
        for file in std::fs::read_dir(from.join(directory))
            .into_iter()
            .flatten()
            .flatten()
        {
            if file.file_type().unwrap().is_file() {
                std::fs::copy(file.path(), to.join(directory).join(file.file_name())).unwrap();
            }
        }
    }
}

/// Power fails at a fail point. Committed data is on the disk; of the rest, the disk has an
/// arbitrary part.
#[rstest]
#[test]
fn power_loss_at_any_writer_fail_point_loses_no_committed_data(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let writing = [
        FailPoint::RowsWritten,
        FailPoint::RecordsWritten,
        FailPoint::Committed,
        FailPoint::LinesAppended,
        FailPoint::HashesAppended,
        FailPoint::CheckpointWritten,
        FailPoint::LogSealed,
    ];
    let mut cuts = 0;
    for fail_point in writing {
        for nth in 1..9 {
            let mut chance = fastrand::Rng::with_seed(nth as u64 * 31 + fail_point as u64);
            run(async {
                let mut platform = platform(backend, &Surface::Rest).await;
                run_to_completion(&platform, "before").await;
                let death = InjectedCrash::at(fail_point, nth);
                let (state, copy) = (
                    platform.directory.path().join("state"),
                    platform.directory.path().join("at-the-fail_point"),
                );
                let copied = copy.clone();
                run_process_until(&platform, &death, "ann", None, move || {
                    copy_files(&state, &copied)
                })
                .await;
                if death.died() {
                    cuts += 1;
                    drop_unsynced_data(&platform, &copy, &mut chance);
                    keep_state_in(backend, &mut platform, "at-the-fail_point");
                }
                run_to_completion(&platform, "ann").await;
                assert_at_rest(&platform, 2).await;
            });
        }
    }
    assert!(cuts > 30, "{cuts}");
    tell(&format!("{cuts} power cuts"));
}

/// The files of an open log are not synced. A crash may leave each of them shorter, or with zeros
/// at the end, independently of the others.
fn drop_unsynced_data(platform: &TestPlatform, state: &Path, chance: &mut fastrand::Rng) {
    let first = state.join("audit/session-audit.jsonl");
    let open = platform
        .open_logs(state)
        .into_iter()
        .map(|log| guestlane_tlog::lines_path(&first, log));
    for path in open.flat_map(|lines| {
        [
            guestlane_tlog::hashes_path(&lines),
            guestlane_tlog::checkpoint_path(&lines),
            lines,
        ]
    }) {
        let Ok(file) = std::fs::OpenOptions::new().write(true).open(path) else {
            continue;
        };
        let length = file.metadata().unwrap().len();
        let kept = chance.u64(0..=length);
        file.set_len(kept).unwrap();
        if chance.bool() {
            file.set_len(length).unwrap(); // zeros in place of the bytes
        }
    }
}
