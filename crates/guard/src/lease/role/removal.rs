//! The end of a lease's role: its sessions end, what it made goes to the owner, nothing is dropped.

use tokio_postgres::Client;

use super::{RoleError, RoleMark, owner_of, quoted, refused};

/// Lists the roles in a server that have the name of a lease's role, with their marks.
///
/// # Errors
/// [`RoleError`].
pub async fn marked(client: &Client) -> Result<Vec<(String, Option<RoleMark>)>, RoleError> {
    let step = "look for roles of leases";
    let rows = client
        .query(
            "SELECT rolname::text, shobj_description(oid, 'pg_authid') FROM pg_roles \
             WHERE rolname LIKE 'holdfast\\_%' ORDER BY rolname",
            &[],
        )
        .await
        .map_err(refused(step))?;
    let mut roles = Vec::with_capacity(rows.len());
    for row in rows {
        let text: Option<String> = row.try_get(1).map_err(refused(step))?;
        let mark = text
            .and_then(|text| serde_json::from_str::<RoleMark>(&text).ok())
            .filter(|mark| mark.holdfast == "lease");
        roles.push((row.try_get(0).map_err(refused(step))?, mark));
    }
    Ok(roles)
}

/// Ends the role's sessions and removes it; what it owns goes to the owner of the database.
///
/// A role that is gone already is as good as removed.
///
/// # Errors
/// [`RoleError`]; the role can no longer log in, whichever later step failed.
pub async fn drop_role(client: &mut Client, role: &str, database: &str) -> Result<(), RoleError> {
    let there = client
        .query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role])
        .await
        .map_err(refused("look for the role of the lease"))?;
    if there.is_none() {
        return Ok(());
    }
    let name = quoted(role);
    client
        .batch_execute(&format!("ALTER ROLE {name} NOLOGIN PASSWORD NULL"))
        .await
        .map_err(refused("close the role of the lease"))?;
    let owner = owner_of(client, database).await?.map(|(owner, _)| owner);
    become_member(client, role, owner.as_deref()).await?;
    client
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1",
            &[&role],
        )
        .await
        .map_err(refused("end the sessions of the lease"))?;
    throw_away_prepared(client, role).await?;
    let (before, heir, after) = match heir(client, owner.as_deref()).await? {
        Heir::Guard => (String::new(), "CURRENT_USER".to_owned(), String::new()),
        Heir::Owner(owner) => (String::new(), quoted(&owner), String::new()),
        // To give things to the owner, guard must for this moment have his rights.
        Heir::OwnerBy(owner) => {
            let owner = quoted(&owner);
            let grant = format!("GRANT {owner} TO CURRENT_USER;");
            let revoke = format!("; REVOKE {owner} FROM CURRENT_USER");
            (grant, owner, revoke)
        }
    };
    let step = "remove the role of the lease";
    let transaction = client.transaction().await.map_err(refused(step))?;
    transaction
        .batch_execute(&format!(
            "{before} REASSIGN OWNED BY {name} TO {heir}; DROP OWNED BY {name}; DROP ROLE {name} {after}"
        ))
        .await
        .map_err(refused(step))?;
    transaction.commit().await.map_err(refused(step))
}

/// Throws away what the role has prepared and nobody ended: it would keep the role, and its locks.
async fn throw_away_prepared(client: &Client, role: &str) -> Result<(), RoleError> {
    let step = "roll back what the lease had prepared";
    let rows = client
        .query(
            "SELECT gid FROM pg_prepared_xacts WHERE owner = $1 AND database = current_database()",
            &[&role],
        )
        .await
        .map_err(refused(step))?;
    for row in rows {
        let gid: String = row.try_get(0).map_err(refused(step))?;
        let gid = postgres_protocol::escape::escape_literal(&gid);
        // In the name of the role, unless guard is a superuser anyway.
        client
            .batch_execute(&format!("SET ROLE {}", quoted(role)))
            .await
            .map_err(refused(step))?;
        let ended = client
            .batch_execute(&format!("ROLLBACK PREPARED {gid}"))
            .await;
        client
            .batch_execute("RESET ROLE")
            .await
            .map_err(refused(step))?;
        ended.map_err(refused(step))?;
    }
    Ok(())
}

/// Who gets what a lease has made.
enum Heir {
    /// Guard itself: the owner is a superuser, and guard is none.
    Guard,
    /// The owner of the database, whose rights guard has.
    Owner(String),
    /// The owner of the database, whose rights guard may give itself.
    OwnerBy(String),
}

async fn heir(client: &Client, owner: Option<&str>) -> Result<Heir, RoleError> {
    let Some(owner) = owner else {
        return Ok(Heir::Guard);
    };
    let step = "find who gets what the lease has made";
    let row = client
        .query_one(
            "SELECT pg_has_role(oid, 'USAGE'), rolsuper FROM pg_roles WHERE rolname = $1",
            &[&owner],
        )
        .await
        .map_err(refused(step))?;
    let has_rights: bool = row.try_get(0).map_err(refused(step))?;
    let is_superuser: bool = row.try_get(1).map_err(refused(step))?;
    Ok(match (has_rights, is_superuser) {
        (true, _) => Heir::Owner(owner.to_owned()),
        (false, false) => Heir::OwnerBy(owner.to_owned()),
        (false, true) => Heir::Guard,
    })
}

/// Gives guard the rights of the lease's role, which loses those of the owner: guard may be the
/// owner, and two roles cannot be members of each other.
async fn become_member(client: &Client, role: &str, owner: Option<&str>) -> Result<(), RoleError> {
    let step = "take the rights of the lease's role";
    let name = quoted(role);
    if let Some(owner) = owner {
        let row = client
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member \
                 JOIN pg_roles o ON o.oid = m.roleid WHERE r.rolname = $1 AND o.rolname = $2)",
                &[&role, &owner],
            )
            .await
            .map_err(refused(step))?;
        if row.try_get::<_, bool>(0).map_err(refused(step))? {
            client
                .batch_execute(&format!("REVOKE {} FROM {name}", quoted(owner)))
                .await
                .map_err(refused(step))?;
        }
    }
    let row = client
        .query_one("SELECT pg_has_role($1, 'USAGE')", &[&role])
        .await
        .map_err(refused(step))?;
    if !row.try_get::<_, bool>(0).map_err(refused(step))? {
        client
            .batch_execute(&format!("GRANT {name} TO CURRENT_USER"))
            .await
            .map_err(refused(step))?;
    }
    Ok(())
}
