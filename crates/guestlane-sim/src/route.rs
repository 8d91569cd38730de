//! The doors of the simulator, each with its name. Faults, counts and the journal speak these names.

use std::{fmt, str::FromStr};

use http::Method;
use uuid::Uuid;

/// Where a request wants to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// A route of the platform or of the CRM.
    Route(Route, Target),
    /// Under `/_sim/`.
    Admin,
    /// The path exists, the method does not.
    WrongMethod,
    /// Nothing is there.
    Unknown,
}

/// What the path names, on routes that name something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    None,
    Queue(Uuid),
    /// In the place of an id stands something that is none.
    NotAnId,
}

/// The routes that behave as the platform's, or as the CRM's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Route {
    /// `POST /api/v2/oauth/token` (the brief's; the public platform signs in elsewhere)
    Token,
    /// `GET /api/v2/routing/queues/{queueId}`
    Queue,
    /// `POST /api/v2/externalcontacts/contacts`
    Contact,
    /// `POST /api/v2/conversations/messaging` (the brief's; the public platform has no such operation)
    Conversation,
    /// `POST /crm/events`
    Crm,
}

impl Route {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Token, Self::Queue, Self::Contact, Self::Conversation, Self::Crm];

    /// The name in fault specs and counts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Queue => "queue",
            Self::Contact => "contact",
            Self::Conversation => "conversation",
            Self::Crm => "crm",
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Route {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|route| route.name() == name).ok_or(())
    }
}

impl serde::Serialize for Route {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

pub(crate) fn door(method: &Method, path: &str) -> Door {
    let post = |route| if method == Method::POST { Door::Route(route, Target::None) } else { Door::WrongMethod };
    match path {
        "/api/v2/oauth/token" => post(Route::Token),
        "/api/v2/externalcontacts/contacts" => post(Route::Contact),
        "/api/v2/conversations/messaging" => post(Route::Conversation),
        "/crm/events" => post(Route::Crm),
        _ if path.starts_with("/_sim/") => Door::Admin,
        _ => match path.strip_prefix("/api/v2/routing/queues/") {
            Some(id) if !id.is_empty() && !id.contains('/') => {
                let target = Uuid::try_parse(id).map_or(Target::NotAnId, Target::Queue);
                if method == Method::GET { Door::Route(Route::Queue, target) } else { Door::WrongMethod }
            }
            _ => Door::Unknown,
        },
    }
}
