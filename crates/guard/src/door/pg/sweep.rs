//! Roles whose lease has ended, or was never kept because guard crashed, are removed.

use holdfast_core::Timestamp;

use super::{PgDoorSource, dial};
use crate::lease::Leases;
use crate::lease::role::{self, RoleError, RoleMark};

/// A role that had outlived its lease.
#[derive(Debug)]
pub struct Swept {
    /// The role's name.
    pub role: String,
    /// Whether it is gone now.
    pub removed: Result<(), RoleError>,
}

/// Removes the roles in a source whose lease has ended, and those that `guard` made for a lease that
/// nobody keeps; roles of other guards stay.
///
/// No lease may be issued meanwhile: its role is there before it is kept.
///
/// # Errors
/// [`RoleError`] when the source cannot be asked; nothing was removed.
pub async fn sweep_roles(
    source: &PgDoorSource,
    leases: &Leases,
    guard: &str,
    now: Timestamp,
) -> Result<Vec<Swept>, RoleError> {
    let client = dial::control(&source.url, &source.url.database)
        .await
        .map_err(RoleError::Connect)?;
    let mut swept = Vec::new();
    for (role, mark) in role::marked(&client).await? {
        let Some(database) = outlived(source, leases, (&role, mark, guard), now) else {
            continue;
        };
        let removed = remove(source, &role, &database).await;
        swept.push(Swept { role, removed });
    }
    Ok(swept)
}

/// Returns the database of a role that nobody may use any more, or `None` when it stays.
fn outlived(
    source: &PgDoorSource,
    leases: &Leases,
    (name, mark, guard): (&str, Option<RoleMark>, &str),
    now: Timestamp,
) -> Option<String> {
    match leases.find_role(name) {
        Ok(lease) if lease.source != source.name => None,
        Ok(lease) => {
            lease.ended(now)?;
            Some(lease.pg?.database)
        }
        Err(_) => mark
            .filter(|mark| mark.guard == guard)
            .map(|mark| mark.database),
    }
}

async fn remove(source: &PgDoorSource, role: &str, database: &str) -> Result<(), RoleError> {
    let mut client = match dial::control(&source.url, database).await {
        Ok(client) => client,
        // The lease's database may be gone, and with it everything that the role owned there.
        Err(_) => dial::control(&source.url, &source.url.database)
            .await
            .map_err(RoleError::Connect)?,
    };
    role::drop_role(&mut client, role, database).await
}
