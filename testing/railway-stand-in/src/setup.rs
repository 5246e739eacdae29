//! The rental company's project as it stands on the day of the incident.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use holdfast_testing::postgres::ServerUser;
use serde_json::{Value, json};

use crate::change::instance;
use crate::database::Database;
use crate::disk::Disk;
use crate::names;
use crate::records::{Domain, Volume};
use crate::world::World;

/// Whether staging and production have a volume each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// One volume each.
    Separate,
    /// One volume for both: whoever deletes staging's deletes production's.
    Shared,
}

/// The world, and what the ready file says of it.
pub struct Prepared {
    pub world: World,
    pub facts: Value,
}

/// Makes project, environments, services, volumes and tokens, and starts the database.
///
/// # Errors
/// When a directory cannot be written or the database does not start.
pub async fn prepare(root: &Path, scenario: Scenario, major: u32) -> Result<Prepared> {
    let disk = Disk::new(root)?;
    let mut world = World::new(disk);
    let project = world.add_project("rental");
    let staging = world.add_environment(&project, "staging");
    let production = world.add_environment(&project, "production");
    if let Some(project) = world.projects.get_mut(&project) {
        project.base_environment_id = Some(production.clone());
    }
    let web = world.add_service(&project, "rental-web");
    let postgres = world.add_service(&project, "Postgres");
    let volume = add_volume(&mut world, &project, "postgres-volume")?;
    let staging_volume = match scenario {
        Scenario::Separate => add_volume(&mut world, &project, "postgres-volume-staging")?,
        Scenario::Shared => volume.clone(),
    };
    let production_instance = mount(&mut world, &volume, (&production, &postgres));
    let staging_instance = mount(&mut world, &staging_volume, (&staging, &postgres));
    for environment in [&staging, &production] {
        for service in [&web, &postgres] {
            world.add_deployment(environment, service);
        }
    }
    add_domain(&mut world, (&project, &production, &web));
    let place = |environment: &String| (Some(project.clone()), Some(environment.clone()));
    let account = world.add_token("domains", None, None, None);
    let (of, at) = place(&staging);
    let staging_token = world.add_token("staging", of, at, None);
    let (of, at) = place(&production);
    let production_token = world.add_token("production", of, at, None);

    let database = start(major, world.disk.volume(&volume), root.join("postgres.log")).await?;
    let url = database.url();
    let variables = world
        .variables
        .entry((production.clone(), Some(web.clone())));
    variables
        .or_default()
        .insert("DATABASE_URL".to_owned(), url.clone());
    let facts = json!({
        "account_token": account,
        "project_tokens": { "staging": staging_token, "production": production_token },
        "project_id": project,
        "environments": { "staging": staging, "production": production },
        "services": { "web": web, "postgres": postgres },
        "volumes": { "production": volume, "staging": staging_volume },
        "volume_instances": { "production": production_instance, "staging": staging_instance },
        "volume_dir": world.disk.volume(&volume),
        "database_url": url,
        "data_dir": database.data_dir(),
        "postgres_bin_dir": database.bin_dir(),
        "postgres_pid": database.pid(),
    });
    world.database = Some(database);
    world.database_place = (volume, postgres, production);
    world.done.clear();
    Ok(Prepared { world, facts })
}

async fn start(major: u32, volume: PathBuf, log: PathBuf) -> Result<Database> {
    let database = tokio::task::spawn_blocking(move || {
        // The server itself writes its log, and may belong to another user.
        std::fs::File::create(&log).context("write the log of the database")?;
        ServerUser::current()?.own(&log)?;
        Database::start(major, &volume.join("pgdata"), &log)
    });
    let database = database.await.context("start the database")??;
    database.prepare().await?;
    Ok(database)
}

fn mount(world: &mut World, volume: &str, (environment, service): (&str, &str)) -> String {
    let instance = instance(volume, environment, Some(service.to_owned()));
    let id = instance.id.clone();
    world.instances.insert(id.clone(), instance);
    id
}

fn add_volume(world: &mut World, project: &str, name: &str) -> Result<String> {
    let id = names::uuid();
    world.disk.create(&id)?;
    let volume = Volume {
        id: id.clone(),
        name: name.to_owned(),
        project_id: project.to_owned(),
        created_at: names::now(),
    };
    world.volumes.insert(id.clone(), volume);
    Ok(id)
}

/// The token of the incident was made to manage domains like this one.
fn add_domain(world: &mut World, (project, environment, service): (&str, &str, &str)) {
    let now = names::now();
    let domain = Domain {
        id: names::uuid(),
        domain: "www.rental.example".to_owned(),
        environment_id: environment.to_owned(),
        project_id: project.to_owned(),
        service_id: service.to_owned(),
        target_port: Some(8080),
        is_railway_domain: false,
        sync_status: "ACTIVE",
        created_at: now.clone(),
        updated_at: now,
        deleted_at: None,
    };
    world.domains.insert(domain.id.clone(), domain);
}
