//! What is gone at once, as on the day of the incident: no delay, no question, no way back.

use crate::world::{Caller, Refusal, World};

/// Deletes a volume: the server on it is killed, the directory and its backups are removed.
pub fn volume(world: &mut World, who: &Caller, id: &str) -> Result<(), Refusal> {
    world.volume(who, id)?;
    let instances = world.instances.values().filter(|one| one.volume_id == id);
    for instance in instances {
        world.reaches(who, &instance.environment_id)?;
    }
    remove_volume(world, id)
}

/// Deletes an environment with its instances, and the volumes that no other environment uses.
pub fn environment(world: &mut World, who: &Caller, id: &str) -> Result<(), Refusal> {
    World::owns(who)?;
    world.reaches(who, id)?;
    let instances = world.instances.values();
    let here: Vec<_> = instances
        .filter(|one| one.environment_id == id)
        .map(|one| {
            (
                one.id.clone(),
                one.volume_id.clone(),
                one.service_id.clone(),
            )
        })
        .collect();
    for (instance, volume, service) in here {
        world.instances.remove(&instance);
        if !world.instances.values().any(|one| one.volume_id == volume) {
            remove_volume(world, &volume)?;
        } else if runs_database(world, id, service.as_deref()) {
            stop_database(world)?;
        }
    }
    world.environments.remove(id);
    world.domains.retain(|_, one| one.environment_id != id);
    world.deployments.retain(|_, one| one.environment_id != id);
    world
        .variables
        .retain(|(environment, _), _| environment != id);
    world
        .tokens
        .retain(|_, one| one.environment_id.as_deref() != Some(id));
    world.staged.remove(id);
    world.note(format!("environment {id} deleted"));
    Ok(())
}

/// Deletes a project with all its environments, services and volumes.
pub fn project(world: &mut World, who: &Caller, id: &str) -> Result<(), Refusal> {
    World::owns(who)?;
    world.reaches_project(who, id)?;
    let volumes = world.volumes.values().filter(|one| one.project_id == id);
    let volumes: Vec<_> = volumes.map(|one| one.id.clone()).collect();
    for volume in volumes {
        remove_volume(world, &volume)?;
    }
    let environments = world
        .environments
        .values()
        .filter(|one| one.project_id == id);
    let environments: Vec<_> = environments.map(|one| one.id.clone()).collect();
    for one in environments {
        environment(world, who, &one)?;
    }
    world.services.retain(|_, one| one.project_id != id);
    world.projects.remove(id);
    world.note(format!("project {id} deleted"));
    Ok(())
}

/// Deletes a service in one environment, or in all when none is named; its volumes stay.
pub fn service(
    world: &mut World,
    who: &Caller,
    id: &str,
    environment: Option<&str>,
) -> Result<(), Refusal> {
    world.service(who, id)?;
    match environment {
        Some(environment) => world.reaches(who, environment)?,
        None => World::owns(who)?,
    }
    let here = |other: &str| environment.is_none_or(|wanted| wanted == other);
    let owner = world.database_environment();
    if owner.is_some_and(|owner| here(&owner)) && world.database_place.1 == id {
        stop_database(world)?;
    }
    for instance in world.instances.values_mut() {
        if instance.service_id.as_deref() == Some(id) && here(&instance.environment_id) {
            instance.service_id = None;
        }
    }
    world
        .domains
        .retain(|_, one| one.service_id != id || !here(&one.environment_id));
    world
        .deployments
        .retain(|_, one| one.service_id != id || !here(&one.environment_id));
    world
        .variables
        .retain(|(place, of), _| of.as_deref() != Some(id) || !here(place));
    if environment.is_none() {
        world.services.remove(id);
    }
    world.note(format!(
        "service {id} deleted in {}",
        environment.unwrap_or("all environments")
    ));
    Ok(())
}

fn remove_volume(world: &mut World, id: &str) -> Result<(), Refusal> {
    let trouble = |error: anyhow::Error| Refusal::trouble(&error);
    if world.database_place.0 == id
        && let Some(mut database) = world.database.take()
    {
        database.kill().map_err(trouble)?;
        world.note("the database was killed".to_owned());
    }
    world.disk.delete(id).map_err(trouble)?;
    let backups = world.backups.len();
    world.backups.retain(|_, one| one.volume_id != id);
    let backups = backups.saturating_sub(world.backups.len());
    world.instances.retain(|_, one| one.volume_id != id);
    world.volumes.remove(id);
    world.note(format!("volume {id} deleted with {backups} backups"));
    Ok(())
}

fn runs_database(world: &World, environment: &str, service: Option<&str>) -> bool {
    world.database_environment().as_deref() == Some(environment)
        && service == Some(world.database_place.1.as_str())
}

fn stop_database(world: &mut World) -> Result<(), Refusal> {
    if let Some(database) = &mut world.database {
        database.stop().map_err(|error| Refusal::trouble(&error))?;
        world.note("the database was stopped".to_owned());
    }
    Ok(())
}
