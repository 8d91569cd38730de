//! Queries and transactions on one connection.

use tokio_postgres::{Client, Row, Statement};

use super::{
    super::super::StoreError, Connection, DbResult, Params, RECONNECT_DELAY, SYSTEM_CLOCK,
    is_in_doubt, is_transient, opening::answered,
};

impl Connection {
    /// Returns all rows.
    pub(crate) fn query(&mut self, sql: &str, params: Params<'_>) -> DbResult<Vec<Row>> {
        self.ask(sql, async |client, statement| {
            client.query(statement, params).await
        })
    }

    /// Returns the first row, or `None` if the statement returns no row.
    pub(crate) fn query_opt(&mut self, sql: &str, params: Params<'_>) -> DbResult<Option<Row>> {
        Ok(self.query(sql, params)?.into_iter().next())
    }

    /// Returns the first row, which must exist.
    pub(crate) fn query_one(&mut self, sql: &str, params: Params<'_>) -> DbResult<Row> {
        self.query_opt(sql, params)?
            .ok_or(StoreError::Row("an expected row is missing"))
    }

    /// Returns the number of rows that the statement changed.
    pub(crate) fn execute(&mut self, sql: &str, params: Params<'_>) -> DbResult<u64> {
        self.ask(sql, async |client, statement| {
            client.execute(statement, params).await
        })
    }

    fn ask<T>(
        &mut self,
        sql: &str,
        asks: impl AsyncFnOnce(&Client, &Statement) -> Result<T, tokio_postgres::Error>,
    ) -> DbResult<T> {
        self.ensure_open()?;
        let Some(open) = &mut self.open else {
            return Err(StoreError::Closed);
        };
        let limited = SYSTEM_CLOCK.timeout(self.limit, async {
            let statement = open.statement(sql).await?;
            asks(&open.client, &statement).await
        });
        answered(&self.url, self.runtime.block_on(limited))
    }

    /// Runs statements without parameters, in order.
    pub(in crate::postgres) fn batch(&mut self, sql: &str) -> DbResult<()> {
        self.ensure_open()?;
        let Some(open) = &mut self.open else {
            return Err(StoreError::Closed);
        };
        answered(
            &self.url,
            self.runtime
                .block_on(SYSTEM_CLOCK.timeout(self.limit, open.client.batch_execute(sql))),
        )
    }

    /// Runs `work` in a transaction. Repeats it from the beginning after a broken connection, a
    /// deadlock or a serialization failure. An in-doubt commit is repeated too, so `work` must be
    /// idempotent.
    pub(crate) fn transaction<T>(
        &mut self,
        mut work: impl FnMut(&mut Self) -> DbResult<T>,
    ) -> DbResult<T> {
        self.repeated(|connection| {
            connection.within("BEGIN", |connection| {
                let value = work(connection)?;
                connection.batch("COMMIT").map(|()| value)
            })
        })
    }

    /// Begins a transaction and runs `work` in it. The caller ends the transaction. After an error,
    /// the transaction is rolled back.
    pub(in crate::postgres) fn within<T>(
        &mut self,
        begin: &str,
        work: impl FnOnce(&mut Self) -> DbResult<T>,
    ) -> DbResult<T> {
        self.batch(begin)?;
        self.in_transaction = true;
        let done = work(self);
        self.in_transaction = false;
        if done.is_err() && self.is_open() {
            let _ = self.batch("ROLLBACK");
        }
        done
    }

    /// Runs `work`, and repeats it after a transient error until the deadline.
    pub(crate) fn repeated<T>(
        &mut self,
        mut work: impl FnMut(&mut Self) -> DbResult<T>,
    ) -> DbResult<T> {
        loop {
            match work(self) {
                Err(error) if is_transient(&error) && SYSTEM_CLOCK.monotonic() < self.give_up => {
                    self.open = self
                        .open
                        .take()
                        .filter(|open| !open.client.is_closed() && !is_in_doubt(&error));
                    self.runtime.block_on(SYSTEM_CLOCK.sleep(RECONNECT_DELAY));
                }
                done => return done,
            }
        }
    }
}
