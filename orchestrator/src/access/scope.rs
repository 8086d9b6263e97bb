//! Scopes, which endpoints need, and roles, which have them. `docs/API.md` shows both; a test holds it to this.

use std::{fmt, str::FromStr};

use serde::Deserialize;

/// Declares [`Scope`]: name, word and meaning of each, once.
macro_rules! scopes {
    ($($scope:ident = $word:literal, $meaning:literal;)+) => {
        /// What an endpoint needs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Scope { $($scope),+ }

        impl Scope {
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$scope),+];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$scope => $word),+ }
            }

            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$scope => $meaning),+ }
            }
        }
    };
}

scopes! {
    SagasRead = "sagas:read", "Look at sagas, with the personal data in them";
    SagasStart = "sagas:start", "Start sagas";
    SagasOperate = "sagas:operate", "Retry, skip, resolve, compensate and abandon";
    EventsRead = "events:read", "Read the log";
    EventsAppend = "events:append", "Append to streams, and report for choreographed sagas";
    GroupsRead = "groups:read", "Look at consumer groups and what they parked";
    GroupsConsume = "groups:consume", "Make consumer groups, and handle events in them";
    GroupsManage = "groups:manage", "Drop consumer groups; replay and drop what they parked";
    DefinitionsRead = "definitions:read", "Look at definitions";
    DefinitionsWrite = "definitions:write", "Register definitions";
    WebhooksRead = "webhooks:read", "Look at webhooks and what came of them";
    WebhooksWrite = "webhooks:write", "Add, enable and remove webhooks, and replace their secrets";
    SystemRead = "system:read", "Look at metrics, readiness in full, replicas and pauses";
    PausesWrite = "pauses:write", "Pause and resume definitions and participants";
    SubjectsRead = "subjects:read", "See whether a person's data is held";
    SubjectsErase = "subjects:erase", "Erase a person's data";
    AuditRead = "audit:read", "Read the audit log";
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no scope {0}")]
pub struct NoScope(String);

impl FromStr for Scope {
    type Err = NoScope;

    fn from_str(word: &str) -> Result<Self, NoScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word).ok_or_else(|| NoScope(word.to_owned()))
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u32);

impl Scopes {
    const fn of(scopes: &[Scope]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < scopes.len() {
            bits |= 1 << scopes[at] as u32;
            at += 1;
        }
        Self(bits)
    }

    #[must_use]
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u32) != 0
    }

    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }
}

/// What a key or a token makes of whoever shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum Role {
    /// Looks on.
    Viewer,
    /// A service that starts sagas, appends events and handles them.
    Client,
    /// Keeps things going: all of the above, and acts on sagas.
    Operator,
    /// Everything.
    Admin,
}

const OF_VIEWER: Scopes =
    Scopes::of(&[Scope::SagasRead, Scope::EventsRead, Scope::GroupsRead, Scope::DefinitionsRead, Scope::SystemRead]);
const OF_CLIENT: Scopes = Scopes::of(&[
    Scope::SagasRead,
    Scope::SagasStart,
    Scope::EventsRead,
    Scope::EventsAppend,
    Scope::GroupsRead,
    Scope::GroupsConsume,
    Scope::DefinitionsRead,
]);
const OF_OPERATOR: Scopes = OF_VIEWER.and(OF_CLIENT).and(Scopes::of(&[
    Scope::SagasOperate,
    Scope::GroupsManage,
    Scope::PausesWrite,
    Scope::SubjectsRead,
    // A webhook's URL may hold a secret.
    Scope::WebhooksRead,
]));
const OF_ADMIN: Scopes = Scopes::of(&Scope::ALL);

impl Role {
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Client, Self::Operator, Self::Admin];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Client => "client",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    #[must_use]
    pub const fn scopes(self) -> Scopes {
        match self {
            Self::Viewer => OF_VIEWER,
            Self::Client => OF_CLIENT,
            Self::Operator => OF_OPERATOR,
            Self::Admin => OF_ADMIN,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the roles are viewer, client, operator and admin")]
pub struct NoRole;

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(word: &str) -> Result<Self, NoRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == word).ok_or(NoRole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for scope in Scope::ALL {
            assert_eq!(scope.to_string().parse(), Ok(scope));
            assert!(Role::Admin.scopes().has(scope), "{scope}");
        }
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("sagas".parse::<Scope>().is_err() && "Admin".parse::<Role>().is_err());
    }

    #[test]
    fn who_looks_on_changes_nothing() {
        for scope in Scope::ALL.into_iter().filter(|scope| OF_VIEWER.has(*scope)) {
            assert!(scope.as_str().ends_with(":read"), "{scope}");
        }
        let only_admin = Scope::ALL.into_iter().filter(|scope| !OF_OPERATOR.has(*scope));
        let only_admin: Vec<&str> = only_admin.map(Scope::as_str).collect();
        assert_eq!(only_admin, ["definitions:write", "webhooks:write", "subjects:erase", "audit:read"]);
    }
}
