//! Statements that are sent together, in one round trip.

use tokio_postgres::Row;

use super::{
    super::super::StoreError, Connection, DbResult, SYSTEM_CLOCK, Step, opening::answered,
};

impl Connection {
    /// Sends all statements at once and waits for all results, in one round trip. Returns the first
    /// error.
    pub(in crate::postgres) fn pipeline(&mut self, steps: &[Step<'_>]) -> DbResult<Vec<Vec<Row>>> {
        self.ensure_open()?;
        self.send_all(steps)
    }

    /// Like [`pipeline`](Self::pipeline), for the rest of a transaction. It never reconnects,
    /// because only the connection that began the transaction can continue it.
    pub(in crate::postgres) fn pipeline_in_transaction(
        &mut self,
        steps: &[Step<'_>],
    ) -> DbResult<Vec<Vec<Row>>> {
        self.in_transaction = true;
        let answers = self.ensure_open().and_then(|()| self.send_all(steps));
        self.in_transaction = false;
        answers
    }

    fn send_all(&mut self, steps: &[Step<'_>]) -> DbResult<Vec<Vec<Row>>> {
        let Some(open) = &mut self.open else {
            return Err(StoreError::Closed);
        };
        let limited = SYSTEM_CLOCK.timeout(self.limit, async {
            for step in steps {
                if let Step::Query(sql, _) = step {
                    open.statement(sql).await?;
                }
            }
            let open = &*open;
            let answers =
                futures_util::future::join_all(steps.iter().map(|step| open.send(step))).await;
            answers.into_iter().collect::<Result<Vec<_>, _>>()
        });
        answered(&self.url, self.runtime.block_on(limited))
    }
}
