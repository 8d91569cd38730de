//! Binds a store to one organization of the platform. The hosts of a region are the same for all
//! its organizations. Only the platform can say that the contacts and conversations of the store
//! are in this one.

use guestlane_genesys::{BaseUrl, CallContext, CallError, OAuthClient};
use guestlane_runtime::FailPoint;
use tokio::sync::OnceCell;
use tracing::warn;

use super::SessionEngine;
use crate::{Error, error::SessionOutcome, setting};
use guestlane_core::request::{ValidationError, shorten};

/// The organization to which the store belongs, and the OAuth clients that must belong to it.
#[derive(Debug)]
pub(crate) struct OrganizationBinding {
    api: BaseUrl,
    /// IDs of the OAuth clients; see [`client_set_key`].
    client_ids: String,
    checked: OnceCell<()>,
}

impl OrganizationBinding {
    pub(crate) fn new(api: BaseUrl, clients: &[OAuthClient]) -> Self {
        Self {
            api,
            client_ids: client_set_key(clients),
            checked: OnceCell::new(),
        }
    }
}

impl SessionEngine {
    /// Checks that the OAuth clients belong to the organization of the store, and rejects another
    /// one. The platform is called once for each set of clients that the store is used with. On the
    /// surface `rest`, the origin identifies the organization, and there is no call.
    pub(crate) async fn check_organization(&self, context: &CallContext) -> Result<(), Error> {
        if !self.surface.is_public_api() {
            return Ok(());
        }
        self.organization
            .checked
            .get_or_try_init(|| self.fetch_organization(context))
            .await
            .map(drop)
    }

    async fn fetch_organization(&self, context: &CallContext) -> Result<(), Error> {
        let known = self.saga.store.organization().await?;
        if known
            .as_ref()
            .is_some_and(|(client, _)| *client == self.organization.client_ids)
        {
            return Ok(());
        }
        let answers = self
            .saga
            .platform
            .fetch_organizations(context)
            .await
            .map_err(unanswered)?;
        let clients = join(answers.iter().map(|(client, _)| client.as_str()));
        let mut reported = answers
            .into_iter()
            .filter_map(|(client, id)| Some((client, id?)));
        let (client, id) = reported.next().unzip();
        if let Some((other, _)) = reported.find(|(_, other)| Some(other) != id.as_ref()) {
            let client = shorten(client.as_deref().unwrap_or_default());
            let reason = format!(
                "names OAuth clients of different organizations: {client} and {}",
                shorten(&other)
            );
            let fix = "configure clients of one organization only; one organization cannot find what a client of another creates";
            return Err(Error::Settings(vec![ValidationError::new(
                setting::CLIENTS,
                reason,
                fix,
            )]));
        }
        self.saga
            .store
            .get_or_insert_platform(self.organization.api.as_str().to_owned())
            .await?;
        let Some(id) = id else {
            warn!(
                "the platform does not report the organization of the OAuth client; continuing without the check that it is the store's organization"
            );
            return Ok(());
        };
        if let Some((_, organization)) = known
            && id != *organization
        {
            let reason = format!(
                "belongs to the organization {}, not to {}",
                shorten(&organization),
                shorten(&id)
            );
            let fix = "use another store for this organization; a store has the sessions of one organization";
            return Err(Error::Settings(vec![ValidationError::new(
                setting::of_store(&self.saga.store),
                reason,
                fix,
            )]));
        }
        self.saga
            .store
            .set_organization(clients, id.to_string())
            .await?;
        self.saga
            .fail_points
            .hit(FailPoint::OrganizationStored)
            .await;
        Ok(())
    }
}

/// The set of checked clients as the store remembers it: sorted IDs, separated by spaces, which no
/// ID contains.
fn client_set_key(clients: &[OAuthClient]) -> String {
    join(clients.iter().map(|client| client.id.as_str()))
}

fn join<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    ids.join(" ")
}

fn unanswered(failed: CallError) -> Error {
    Error::Platform {
        session: None,
        then: SessionOutcome::NothingCreated,
        failed,
    }
}
