//! Gauges of the present load, computed from indexes alone. They are read every second and must
//! stay cheap however many sessions exist.

use guestlane_runtime::Timestamp;

use super::{Postgres, log::number_of};
use crate::{StoreError, StoreGauges, row::UNFINISHED};

pub(super) async fn gauges(store: &Postgres) -> Result<StoreGauges, StoreError> {
    // One round trip. IDs are in the order of admission.
    let sql = format!(
        "SELECT (SELECT count(*) FROM session WHERE {UNFINISHED}), \
         (SELECT admitted_at FROM session WHERE {UNFINISHED} ORDER BY admitted_at LIMIT 1), \
         (SELECT count(*) FROM session WHERE state = 'failed'), (SELECT count(*) FROM session WHERE state = 'needs_attention'), \
         (SELECT count(*) FROM outbox WHERE state = 'pending'), (SELECT min(created_at) FROM outbox WHERE state = 'pending'), \
         (SELECT count(*) FROM outbox WHERE state = 'dead')"
    );
    let home = store.home.id;
    store
        .workers
        .read(move |connection| {
            let row = connection.query_one(&sql, &[])?;
            let count = |index| Ok::<_, StoreError>(row.try_get::<_, i64>(index)?.unsigned_abs());
            let moment = |index| {
                Ok::<_, StoreError>(
                    row.try_get::<_, Option<i64>>(index)?
                        .map(Timestamp::from_unix_micros),
                )
            };
            let log = "SELECT log, size FROM audit_log WHERE home = $1 ORDER BY log DESC LIMIT 1";
            let audit = connection.query_opt(log, &[&home])?;
            let audit = audit
                .map(|row| {
                    Ok::<_, StoreError>((
                        number_of(row.try_get(0)?)?,
                        row.try_get::<_, i64>(1)?.unsigned_abs(),
                    ))
                })
                .transpose()?;
            Ok(StoreGauges {
                unfinished: count(0)?,
                oldest_unfinished: moment(1)?,
                failed: count(2)?,
                needs_attention: count(3)?,
                pending_events: count(4)?,
                oldest_event: moment(5)?,
                dead_events: count(6)?,
                audit,
            })
        })
        .await
}
