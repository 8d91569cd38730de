//! A program with guestlane, sqlx, diesel and rusqlite in it.

#[cfg(test)]
mod tests {
    use std::path::Path;

    use diesel::{Connection, RunQueryDsl, SqliteConnection};
    use guestlane::StorageConfig;
    use sqlx::{ConnectOptions, Row, sqlite::SqliteConnectOptions};

    #[test]
    fn store_in_postgresql_is_configured_and_a_file_is_refused() {
        let database = "postgres://user@127.0.0.1/guestlane".parse().unwrap();
        let storage = StorageConfig::new(database, Path::new("state"));
        assert!(storage.database.is_shared());
        let file = "sqlite:guestlane.db".parse::<guestlane::Database>();
        assert!(file.is_err(), "this program has no such store");
    }

    #[tokio::test]
    async fn other_libraries_use_the_one_sqlite() {
        let rusqlite = rusqlite::Connection::open_in_memory().unwrap();
        let version: String = rusqlite
            .query_row("SELECT sqlite_version()", [], |row| row.get(0))
            .unwrap();

        let mut sqlx = SqliteConnectOptions::new()
            .in_memory(true)
            .connect()
            .await
            .unwrap();
        let row = sqlx::query("SELECT sqlite_version()")
            .fetch_one(&mut sqlx)
            .await
            .unwrap();
        assert_eq!(row.get::<String, _>(0), version);

        let mut diesel = SqliteConnection::establish(":memory:").unwrap();
        diesel::sql_query("SELECT 1").execute(&mut diesel).unwrap();
    }
}
