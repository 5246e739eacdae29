//! What in a database makes leases weaker than they look: found in its catalogs, changed by nobody.
//!
//! A lease has the rights of its role, and what it did is measured before `COMMIT`. Whatever hands it
//! another's rights, acts outside the transaction, or acts later for somebody else is listed here,
//! with its effect and with what to do about it.

mod questions;

use holdfast_core::{Code, Coded, Untrusted};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::LeaseMode;
use crate::limits::{WEAKNESS_LOOK_MAX, WEAKNESS_OBJECTS_NAMED_MAX};
use questions::{QUESTIONS, Question};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A lease gets past the gate with it.
    High,
    /// It widens what a lease can do, and the gate still stands.
    Medium,
    /// Worth knowing when a hold is decided.
    Low,
}

/// The leases that it makes weaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Concerns {
    /// Every lease.
    Every,
    /// Those with the rights of the owner.
    Schema,
    /// Those that may write.
    Writing,
}

impl Concerns {
    /// Tells whether leases of a mode are among them.
    pub fn includes(self, mode: LeaseMode) -> bool {
        match self {
            Self::Every => true,
            Self::Schema => mode == LeaseMode::Schema,
            Self::Writing => mode != LeaseMode::ReadOnly,
        }
    }
}

/// One thing that makes leases weaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weakness {
    /// What it is; the same in every version.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// Which leases it makes weaker.
    pub concerns: Concerns,
    /// How many objects there are.
    pub count: u64,
    /// The first of them, quoted as SQL writes them, control characters escaped.
    pub objects: Vec<String>,
    /// What it does.
    pub effect: String,
    /// What to do about it.
    pub fix: String,
}

/// What was found in one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weaknesses {
    /// The database.
    pub database: String,
    /// What makes leases weaker, worst first.
    pub found: Vec<Weakness>,
    /// What guard's role may not look at, so that nothing is known of it.
    pub unseen: Vec<String>,
}

impl Weaknesses {
    /// Returns how many of them make a lease of this mode weaker.
    pub fn count(&self, mode: LeaseMode) -> usize {
        let concerned = |one: &&Weakness| one.concerns.includes(mode);
        self.found.iter().filter(concerned).count()
    }
}

/// Why a database cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum WeakError {
    /// The source cannot be reached, or does not let guard in.
    #[error("the source cannot be reached: {0}")]
    Connect(String),
    /// A question was not answered.
    #[error("`{id}` cannot be looked for")]
    Refused {
        /// What was looked for.
        id: &'static str,
        /// What the source said.
        source: tokio_postgres::Error,
    },
}

impl Coded for WeakError {
    fn code(&self) -> Code {
        match self {
            Self::Connect(_) => Code::ZS401,
            Self::Refused { .. } => Code::ZS520,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Connect(_) => Some("check `guard_url` of the source".to_owned()),
            Self::Refused { .. } => {
                Some("nothing was changed; look again when the source is less busy".to_owned())
            }
        }
    }
}

/// Looks through the database that `client` is connected to; changes nothing.
///
/// The client must find names in `pg_catalog` alone: the database is not trusted.
///
/// # Errors
/// [`WeakError::Refused`] when a question fails for another reason than a missing right.
pub async fn weaknesses(client: &Client) -> Result<Weaknesses, WeakError> {
    let refused = |id| move |source| WeakError::Refused { id, source };
    let setup = format!(
        "SET default_transaction_read_only TO on; SET statement_timeout TO '{}ms'",
        WEAKNESS_LOOK_MAX.as_millis()
    );
    client
        .batch_execute(&setup)
        .await
        .map_err(refused("database"))?;
    let row = client
        .query_one("SELECT current_database()::text", &[])
        .await
        .map_err(refused("database"))?;
    let mut all = Weaknesses {
        database: row.try_get(0).map_err(refused("database"))?,
        found: Vec::new(),
        unseen: Vec::new(),
    };
    for question in QUESTIONS {
        match ask(client, question).await {
            Ok(None) => {}
            Ok(Some(found)) => all.found.push(found),
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                all.unseen.push(question.id.to_owned());
            }
            Err(error) => return Err(refused(question.id)(error)),
        }
    }
    all.found.sort_by_key(|one| one.severity);
    Ok(all)
}

async fn ask(
    client: &Client,
    question: &Question,
) -> Result<Option<Weakness>, tokio_postgres::Error> {
    let text = format!(
        "WITH {}, found(name) AS ({}) \
         SELECT left(name, 1000), count(*) OVER () FROM found ORDER BY name COLLATE \"C\" LIMIT {}",
        questions::LEASES,
        question.sql,
        WEAKNESS_OBJECTS_NAMED_MAX
    );
    let rows = client.query(&text, &[]).await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let count: i64 = first.try_get(1)?;
    let mut objects = Vec::with_capacity(rows.len());
    for row in &rows {
        let name: String = row.try_get(0)?;
        objects.push(Untrusted(&name).to_string());
    }
    Ok(Some(Weakness {
        id: question.id.to_owned(),
        severity: question.severity,
        concerns: question.concerns,
        count: u64::try_from(count).unwrap_or_default(),
        objects,
        effect: question.effect.to_owned(),
        fix: question.fix.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_question_has_an_id_of_its_own_and_says_what_to_do() {
        let ids: BTreeSet<&str> = QUESTIONS.iter().map(|one| one.id).collect();
        assert_eq!(ids.len(), QUESTIONS.len());
        for one in QUESTIONS {
            let is_id = one.id.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            assert!(is_id && !one.effect.is_empty() && !one.fix.is_empty());
            assert!(!one.effect.ends_with('.') && !one.fix.ends_with('.'));
        }
    }

    #[test]
    fn a_lease_that_reads_is_not_told_of_what_concerns_writing_alone() {
        let all = [Concerns::Every, Concerns::Schema, Concerns::Writing];
        let count = |mode| all.iter().filter(|one| one.includes(mode)).count();
        assert_eq!(count(LeaseMode::ReadOnly), 1);
        assert_eq!(count(LeaseMode::Data), 2);
        assert_eq!(count(LeaseMode::Schema), 3);
    }
}
