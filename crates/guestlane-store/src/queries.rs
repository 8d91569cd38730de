//! Query text that both databases accept. The rest is native to each.
//!
//! A placeholder is `$1`. PostgreSQL numbers it; SQLite takes it as a name, and numbers names in the
//! order in which they first occur. So the placeholders of a query first occur in their order.

/// The columns of an API key, in the order in which both stores read them.
pub(crate) const API_KEY_COLUMNS: &str =
    "id, name, hash, scopes, created_at, expires_at, revoked_at, last_used_at, owner";

/// The columns of an event, in the order in which both stores read them.
pub(crate) const EVENT_COLUMNS: &str = "outbox.id, outbox.session_id, outbox.body, outbox.state, outbox.attempts, outbox.created_at, outbox.due_at, \
     outbox.ended_at, outbox.last_error, outbox.endpoint, outbox.guest_id, \
     (SELECT traceparent FROM session WHERE session.id = outbox.session_id), outbox.seq, outbox.epoch";

// audit_record
pub(crate) const SELECT_AUDIT_LINE: &str =
    "SELECT line FROM audit_record WHERE log = $1 AND idx = $2";
pub(crate) const SELECT_AUDIT_LINES_OF_SESSION: &str =
    "SELECT log, idx, line FROM audit_record WHERE session_id = $1 ORDER BY log, idx";

// outbox
pub(crate) const COUNT_EVENTS: &str = "SELECT count(*) FROM outbox";
pub(crate) const COUNT_PENDING_EVENTS: &str = "SELECT count(*) FROM outbox WHERE state = 'pending'";
pub(crate) const COUNT_PENDING_EVENTS_BEYOND_ENDPOINT: &str =
    "SELECT count(*) FROM outbox WHERE state = 'pending' AND endpoint > $1";
pub(crate) const MAKE_FAILED_EVENTS_DUE: &str = "UPDATE outbox SET due_at = $1 WHERE state = 'pending' AND due_at > $1 AND last_error IS NOT NULL";
pub(crate) const MAKE_NEW_EVENTS_DUE: &str =
    "UPDATE outbox SET due_at = $1 WHERE state = 'pending' AND last_error IS NULL AND due_at > $2";
pub(crate) const SELECT_NEXT_INITIAL_DELIVERY: &str =
    "SELECT min(due_at) FROM outbox WHERE state = 'pending' AND last_error IS NULL AND due_at > $1";

// platform
pub(crate) const INSERT_PLATFORM: &str =
    "INSERT INTO platform (one, base_url) VALUES (1, $1) ON CONFLICT DO NOTHING";
pub(crate) const SELECT_ORGANIZATION: &str = "SELECT client_id, organization FROM platform WHERE client_id IS NOT NULL AND organization IS NOT NULL";
pub(crate) const SELECT_PLATFORM: &str = "SELECT base_url FROM platform";
pub(crate) const UPDATE_ORGANIZATION: &str =
    "UPDATE platform SET client_id = $1, organization = $2";

// property
pub(crate) const DELETE_PROPERTY: &str = "DELETE FROM property WHERE name = $1";
pub(crate) const TRY_TO_WRITE: &str = "INSERT INTO property (name, value) VALUES ('doctor', '') ON CONFLICT (name) DO UPDATE SET value = ''";

// pruned_latency
pub(crate) const SELECT_PRUNED_LATENCIES: &str = "SELECT latency_us, sessions FROM pruned_latency";

// pseudonym_key
pub(crate) const DELETE_PSEUDONYM_KEY: &str = "DELETE FROM pseudonym_key WHERE guest_id = $1";
pub(crate) const SELECT_PSEUDONYM_KEY: &str = "SELECT key FROM pseudonym_key WHERE guest_id = $1";

// secret
pub(crate) const INSERT_SECRET: &str =
    "INSERT INTO secret (name, sealed) VALUES ($1, $2) ON CONFLICT DO NOTHING";
pub(crate) const SELECT_SECRET: &str = "SELECT sealed FROM secret WHERE name = $1";
pub(crate) const SELECT_SECRETS: &str = "SELECT name, sealed FROM secret ORDER BY name";

// session
pub(crate) const SELECT_CALLS: &str = "SELECT calls FROM session WHERE id = $1";
pub(crate) const SELECT_LAST_SCANNED_SESSION: &str =
    "SELECT id FROM session WHERE id < $1 ORDER BY id DESC LIMIT 1 OFFSET $2";
pub(crate) const SELECT_OLDEST_SESSION: &str =
    "SELECT recorded_at FROM session ORDER BY id LIMIT 1";

// signing_key
pub(crate) const INSERT_SIGNING_KEY: &str = "INSERT INTO signing_key (kid, sealed, created_at, active_from) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
pub(crate) const SELECT_SEALED_SIGNING_KEYS: &str =
    "SELECT kid, sealed FROM signing_key ORDER BY kid";
pub(crate) const SELECT_SIGNING_KEYS: &str =
    "SELECT kid, sealed, created_at, active_from, revoked_at FROM signing_key";

#[cfg(test)]
mod tests {
    #[test]
    fn placeholders_first_occur_in_their_order() {
        let (source, _) = include_str!("queries.rs")
            .split_once("#[cfg(test)]")
            .unwrap();
        let queries: Vec<&str> = source.split("pub(crate) const").skip(1).collect();
        assert!(queries.iter().any(|query| query.contains("$4")));
        for query in queries {
            let mut seen = 0;
            for text in query.split('$').skip(1) {
                let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
                let number: usize = digits.parse().unwrap();
                assert!(number <= seen + 1, "{query}");
                seen = seen.max(number);
            }
        }
    }
}
