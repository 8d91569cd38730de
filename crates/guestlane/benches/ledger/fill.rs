//! Fills a store with sessions in the past, directly in its database.

use super::*;

/// Sessions of the full store that are not open or not delivered: one in this many.
const FAILED: u64 = 1_000;

const NEEDS_ATTENTION: u64 = 1_000_003;

const DEAD_LETTER: u64 = 100_003;

// Filling.

/// The values that differ between sessions.
struct Names {
    session: Uuid,
    guest: String,
    contact: String,
    conversation: String,
}

impl Names {
    fn fresh(at: Timestamp) -> Self {
        let random = || Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid();
        let millis = u64::try_from(at.unix_micros() / 1000).unwrap();
        let bytes = fastrand::u128(..).to_be_bytes();
        let session =
            Builder::from_unix_timestamp_millis(millis, bytes.first_chunk().unwrap()).into_uuid();
        let text = || random().to_string();
        Self {
            session,
            guest: text(),
            contact: text(),
            conversation: text(),
        }
    }

    /// Replaces the template's values in a text by those of this session.
    fn put_into(&self, text: &str, template: &Self) -> String {
        text.replace(&template.session.to_string(), &self.session.to_string())
            .replace(&template.guest, &self.guest)
            .replace(&template.contact, &self.contact)
            .replace(&template.conversation, &self.conversation)
    }
}

/// Copies the template session, which the product wrote, `sessions` times. Row sizes are the
/// product's, and keys are as random.
pub(super) fn fill(path: &Path, sessions: u64) {
    let mut connection = Connection::open(path).unwrap();
    connection
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    // If the process ends here, no data is lost.
    for pragma in [
        "journal_mode = off",
        "synchronous = off",
        "locking_mode = exclusive",
        "cache_size = -3000000",
    ] {
        connection
            .execute_batch(&format!("PRAGMA {pragma}"))
            .unwrap();
    }
    let text = "SELECT id, guest_id, contact_id, conversation_id, admitted_at FROM session";
    let (template, last) = connection
        .query_row(text, [], |row| {
            let session = Uuid::from_bytes(row.get(0)?);
            let names = Names {
                session,
                guest: row.get(1)?,
                contact: row.get(2)?,
                conversation: row.get(3)?,
            };
            Ok((names, Timestamp::from_unix_micros(row.get(4)?)))
        })
        .unwrap();
    let lines: Vec<String> = {
        let mut select = connection
            .prepare("SELECT line FROM audit_record WHERE session_id IS NOT NULL ORDER BY idx")
            .unwrap();
        select
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    };
    let body: String = connection
        .query_row("SELECT body FROM outbox", [], |row| row.get(0))
        .unwrap();
    // The first log is the template's. The others were full long ago and are no longer on this
    // disk.
    let (mut log, mut tree, mut bytes) = (2_u32, Frontier::default(), 0);
    let mut at = last - APART * u32::try_from(sessions).unwrap();
    let columns = columns_of(&connection, "session");
    let session_sql = format!(
        "INSERT INTO session ({columns}) SELECT {} FROM session WHERE id = ?1",
        with(
            &columns,
            &[
                ("id", "?2"),
                ("idempotency_key", "?3"),
                ("fingerprint", "randomblob(32)"),
                ("guest_id", "?4"),
                ("token_jti", "randomblob(16)"),
                ("token_iat", "?5 / 1000000"),
                ("contact_id", "?6"),
                ("conversation_id", "?7"),
                ("admitted_at", "?5"),
                ("step_started_at", "?5"),
                ("lease_expires_at", "NULL"),
                ("next_attempt_at", "NULL"),
                ("ended_at", "?5"),
                ("latency_us", "iif(?8 = 'open', ?9, NULL)"),
                ("state", "?8"),
                ("failure_code", "iif(?8 = 'open', NULL, 'refused')"),
            ]
        )
    );
    let columns = columns_of(&connection, "outbox").replace("seq, ", "");
    let event_sql = format!(
        "INSERT INTO outbox ({columns}) SELECT {} FROM outbox WHERE session_id = ?1 AND seq = 1",
        with(
            &columns,
            &[
                ("id", "'msg_' || lower(hex(?2))"),
                ("session_id", "?2"),
                ("guest_id", "?3"),
                ("body", "?4"),
                ("state", "?5"),
                ("created_at", "?6"),
                ("due_at", "?6"),
                ("ended_at", "?6"),
            ]
        )
    );
    let mut done = 0;
    while done < sessions {
        let transaction = connection.transaction().unwrap();
        {
            let mut session = transaction.prepare(&session_sql).unwrap();
            let mut event = transaction.prepare(&event_sql).unwrap();
            let mut record = transaction
                .prepare(
                    "INSERT INTO audit_record (log, idx, session_id, line) VALUES (?1, ?2, ?3, ?4)",
                )
                .unwrap();
            for number in done..sessions.min(done + 50_000) {
                at = at + APART;
                let (names, micros) = (Names::fresh(at), at.unix_micros());
                let id = names.session.into_bytes();
                let state = match number {
                    n if n % NEEDS_ATTENTION == 1 => "needs_attention",
                    n if n % FAILED == 1 => "failed",
                    _ => "open",
                };
                let key = format!(
                    "webchat-session-{}",
                    Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid()
                );
                let latency = fastrand::i64(20_000..400_000);
                let template_id = template.session.into_bytes();
                session
                    .execute(params![
                        template_id,
                        id,
                        key,
                        names.guest,
                        micros,
                        names.contact,
                        names.conversation,
                        state,
                        latency
                    ])
                    .unwrap();
                for line in &lines {
                    let line = names.put_into(line, &template);
                    let (_, rest) = line.split_once(',').unwrap();
                    let line = format!(r#"{{"index":{},{rest}"#, tree.size());
                    record.execute(params![log, tree.size(), id, line]).unwrap();
                    tree.push(leaf_hash(line.as_bytes()));
                    bytes += line.len() as u64 + 1;
                }
                if bytes >= ROTATE_AT {
                    end_log(&transaction, log, &tree, micros);
                    (log, tree, bytes) = (log + 1, Frontier::default(), 0);
                }
                if state == "open" {
                    let delivery = if number % DEAD_LETTER == 7 {
                        "dead"
                    } else {
                        "delivered"
                    };
                    let body = names.put_into(&body, &template);
                    event
                        .execute(params![
                            template_id,
                            id,
                            names.guest,
                            body,
                            delivery,
                            micros
                        ])
                        .unwrap();
                }
            }
        }
        transaction.commit().unwrap();
        done = sessions.min(done + 50_000);
        if done % 1_000_000 == 0 {
            println!("… {done}");
        }
    }
    end_log(&connection, log, &tree, at.unix_micros());
    connection
        .execute_batch("PRAGMA locking_mode = normal; PRAGMA journal_mode = wal")
        .unwrap();
    drop(connection);
    File::open(path).unwrap().sync_all().unwrap();
}

fn end_log(connection: &Connection, log: u32, tree: &Frontier, at: i64) {
    let insert = "INSERT INTO audit_log (log, size, frontier, closed_at) VALUES (?1, ?2, ?3, ?4)";
    connection
        .execute(insert, params![log, tree.size(), tree.to_bytes(), at])
        .unwrap();
}

pub(super) fn columns_of(connection: &Connection, table: &str) -> String {
    let sql = "SELECT group_concat(name, ', ') FROM pragma_table_info(?1)";
    connection
        .query_row(sql, [table], |row| row.get(0))
        .unwrap()
}

/// Returns the columns with the values in which the copy differs from the template.
pub(super) fn with(columns: &str, values: &[(&str, &str)]) -> String {
    let value = |column| {
        values
            .iter()
            .find(|value| value.0 == column)
            .map_or(column, |value| value.1)
    };
    columns
        .split(", ")
        .map(value)
        .collect::<Vec<_>>()
        .join(", ")
}
