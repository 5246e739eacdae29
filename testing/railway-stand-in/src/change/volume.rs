//! Volumes and their backups.

use serde_json::{Map, Value, json};

use super::{deletion, needed, text};
use crate::graphql::Asked;
use crate::names;
use crate::node::{Found, Node, record};
use crate::records::{Backup, Instance, Volume};
use crate::world::{Caller, Refusal, World};

/// Makes an empty volume in one environment, or in all of the project.
pub fn create(
    world: &mut World,
    who: &Caller,
    input: &Map<String, Value>,
) -> Result<Found, Refusal> {
    let project = needed(input, "projectId");
    world.reaches_project(who, &project)?;
    let environments = match text(input, "environmentId") {
        Some(environment) => {
            world.reaches(who, &environment)?;
            vec![environment]
        }
        None => {
            World::owns(who)?;
            let all = world
                .environments
                .values()
                .filter(|one| one.project_id == project);
            all.map(|one| one.id.clone()).collect()
        }
    };
    let service = text(input, "serviceId");
    if let Some(service) = &service {
        world.service(who, service)?;
    }
    let id = names::uuid();
    world
        .disk
        .create(&id)
        .map_err(|error| Refusal::trouble(&error))?;
    let volume = Volume {
        id: id.clone(),
        name: format!("volume-{}", id.get(..8).unwrap_or_default()),
        project_id: project,
        created_at: names::now(),
    };
    world.volumes.insert(id.clone(), volume);
    for environment in environments {
        let mut instance = instance(&id, &environment, service.clone());
        instance.mount_path = needed(input, "mountPath");
        instance.region = text(input, "region").or(instance.region);
        world.instances.insert(instance.id.clone(), instance);
    }
    world.note(format!("volume {id} created"));
    Ok(Found::Node(Node::Volume(id)))
}

/// Describes a volume in one environment, mounted where PostgreSQL's image wants it.
pub fn instance(volume: &str, environment: &str, service: Option<String>) -> Instance {
    Instance {
        id: names::uuid(),
        volume_id: volume.to_owned(),
        environment_id: environment.to_owned(),
        service_id: service,
        mount_path: "/var/lib/postgresql/data".to_owned(),
        region: Some("us-west2".to_owned()),
        state: "READY",
        size_mb: SIZE_MB,
        created_at: names::now(),
        deleted_at: None,
        is_pending_deletion: false,
    }
}

/// Renames a volume.
pub fn update(world: &mut World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let id = world.volume(who, asked.text("volumeId"))?.id.clone();
    if let (Some(volume), Some(name)) = (world.volumes.get_mut(&id), text(&asked.input(), "name")) {
        volume.name = name;
    }
    Ok(Found::Node(Node::Volume(id)))
}

/// Moves a volume to another path or service; the state `DELETED` deletes it.
pub fn update_instance(world: &mut World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let volume = world.volume(who, asked.text("volumeId"))?.id.clone();
    let input = asked.input();
    if matches!(
        text(&input, "state").as_deref(),
        Some("DELETED" | "DELETING")
    ) {
        deletion::volume(world, who, &volume)?;
        return Ok(Found::Value(Value::Bool(true)));
    }
    let wanted = asked.given("environmentId");
    if let Some(wanted) = wanted {
        world.reaches(who, wanted)?;
    } else {
        World::owns(who)?;
    }
    if let Some(service) = text(&input, "serviceId") {
        world.service(who, &service)?;
    }
    for one in world.instances.values_mut() {
        let here = wanted.is_none_or(|wanted| wanted == one.environment_id);
        if one.volume_id != volume || !here {
            continue;
        }
        one.mount_path = text(&input, "mountPath").unwrap_or_else(|| one.mount_path.clone());
        one.service_id = text(&input, "serviceId").or_else(|| one.service_id.clone());
    }
    Ok(Found::Value(Value::Bool(true)))
}

/// Copies the files of a volume into the volume itself, as the provider did.
pub fn back_up(world: &mut World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let instance = world.instance(who, asked.text("volumeInstanceId"))?.clone();
    let id = names::uuid();
    let volume = instance.volume_id;
    let copy = || world.disk.copy_out(&volume, &id);
    let copied = match &world.database {
        Some(database) if world.database_place.0 == volume => database.frozen(copy),
        _ => copy(),
    };
    if let Err(error) = copied {
        return Ok(workflow(world, Some(error)));
    }
    let dir = world.disk.backup(&volume, &id);
    let used_mb = world.disk.size_bytes(&dir) / 1_000_000;
    let backup = Backup {
        id: id.clone(),
        name: asked.given("name").map(str::to_owned),
        volume_id: volume.clone(),
        created_at: names::now(),
        creator_id: Some(world.account.id.clone()),
        expires_at: None,
        external_id: names::uuid(),
        referenced_mb: used_mb,
        used_mb,
        volume_instance_size_mb: instance.size_mb,
        schedule_id: None,
    };
    world.backups.insert(id.clone(), backup);
    world.note(format!(
        "backup {id} of volume {volume} created on the volume"
    ));
    Ok(workflow(world, None))
}

/// Removes one backup.
pub fn delete_backup(world: &mut World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let (volume, id) = backup_of(world, who, asked)?;
    let removed = world.disk.delete_backup(&volume, &id);
    if removed.is_ok() {
        world.backups.remove(&id);
        world.note(format!("backup {id} of volume {volume} deleted"));
    }
    Ok(workflow(world, removed.err()))
}

/// Puts the files of a backup in place of those on the volume; its server is stopped meanwhile.
pub fn restore(world: &mut World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let given = |name: &str| asked.arguments.get(name).and_then(Value::as_array);
    if ["replicaServiceIds", "wipeServiceIds"]
        .into_iter()
        .any(|name| given(name).is_some_and(|all| !all.is_empty()))
    {
        return Err(Refusal("the stand-in restores no clusters".to_owned()));
    }
    let (volume, id) = backup_of(world, who, asked)?;
    let disk = &world.disk;
    let copied = match &mut world.database {
        Some(database) if world.database_place.0 == volume => database
            .stop()
            .and_then(|()| disk.copy_back(&volume, &id))
            .and_then(|()| database.restart()),
        _ => disk.copy_back(&volume, &id),
    };
    if copied.is_ok() {
        world.note(format!("backup {id} restored in place on volume {volume}"));
    }
    Ok(workflow(world, copied.err()))
}

fn backup_of(world: &World, who: &Caller, asked: &Asked) -> Result<(String, String), Refusal> {
    let volume = &world
        .instance(who, asked.text("volumeInstanceId"))?
        .volume_id;
    let backup = world.backups.get(asked.text("volumeInstanceBackupId"));
    let backup = backup.filter(|backup| backup.volume_id == *volume);
    let backup = backup.ok_or_else(|| Refusal("Backup not found".to_owned()))?;
    Ok((volume.clone(), backup.id.clone()))
}

/// The work is over when its id is given out; `workflowStatus` tells how it ended.
fn workflow(world: &mut World, error: Option<anyhow::Error>) -> Found {
    let id = names::uuid();
    let error = error.map(|error| {
        tracing::error!("{error:#}");
        format!("{error:#}")
    });
    world.workflows.insert(id.clone(), error);
    Found::Node(record(&json!({ "workflowId": id })))
}

const SIZE_MB: u32 = 50_000;
