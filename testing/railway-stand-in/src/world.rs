//! All that the provider knows and holds in this run.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::database::Database;
use crate::disk::Disk;
use crate::names;
use crate::records::{
    Backup, Deployment, Domain, Environment, Instance, Patch, Project, Service, Token, Volume,
};

/// Everything; ids are the keys.
#[derive(Debug)]
pub struct World {
    pub projects: BTreeMap<String, Project>,
    pub environments: BTreeMap<String, Environment>,
    pub services: BTreeMap<String, Service>,
    pub volumes: BTreeMap<String, Volume>,
    pub instances: BTreeMap<String, Instance>,
    pub backups: BTreeMap<String, Backup>,
    pub domains: BTreeMap<String, Domain>,
    pub tokens: BTreeMap<String, Token>,
    pub deployments: BTreeMap<String, Deployment>,
    /// Changes that wait, by environment.
    pub staged: BTreeMap<String, Patch>,
    /// Values by environment and service; shared ones have no service.
    pub variables: BTreeMap<(String, Option<String>), BTreeMap<String, String>>,
    /// Workflows that ran, and how they ended.
    pub workflows: BTreeMap<String, Option<String>>,
    pub account: Account,
    pub disk: Disk,
    pub database: Option<Database>,
    /// The volume, the service and the environment that the database belongs to.
    pub database_place: (String, String, String),
    /// What the request under way has done, for the log.
    pub done: Vec<String>,
}

/// Whose projects these are.
#[derive(Debug)]
pub struct Account {
    pub id: String,
    pub email: String,
    pub name: String,
    pub workspace_id: String,
    pub created_at: String,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A token of the account: everything is allowed.
    Account,
    /// A token of one environment of one project.
    Project {
        /// The project.
        project: String,
        /// The environment.
        environment: String,
        /// The token itself.
        token: String,
    },
}

/// A refusal in the provider's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

impl Refusal {
    /// The answer to whoever may not.
    pub fn unauthorized() -> Self {
        Self("Not Authorized".to_owned())
    }

    /// The answer when something that should work does not.
    pub fn trouble(error: &anyhow::Error) -> Self {
        tracing::error!("{error:#}");
        Self("Problem processing request".to_owned())
    }
}

impl World {
    /// Nothing but the account and an empty disk.
    pub fn new(disk: Disk) -> Self {
        let account = Account {
            id: names::uuid(),
            email: "owner@rental.example".to_owned(),
            name: "Rental Owner".to_owned(),
            workspace_id: names::uuid(),
            created_at: names::now(),
        };
        Self {
            projects: BTreeMap::new(),
            environments: BTreeMap::new(),
            services: BTreeMap::new(),
            volumes: BTreeMap::new(),
            instances: BTreeMap::new(),
            backups: BTreeMap::new(),
            domains: BTreeMap::new(),
            tokens: BTreeMap::new(),
            deployments: BTreeMap::new(),
            staged: BTreeMap::new(),
            variables: BTreeMap::new(),
            workflows: BTreeMap::new(),
            account,
            disk,
            database: None,
            database_place: (String::new(), String::new(), String::new()),
            done: Vec::new(),
        }
    }

    /// Finds whose token a secret is; `project` says that it came in the header for those.
    pub fn caller(&self, secret: &str, project: Header) -> Option<Caller> {
        let token = self.tokens.values().find(|token| token.secret == secret)?;
        match (&token.project_id, &token.environment_id, project) {
            (Some(project), Some(environment), Header::ProjectAccessToken) => {
                Some(Caller::Project {
                    project: project.clone(),
                    environment: environment.clone(),
                    token: token.id.clone(),
                })
            }
            (None, None, Header::Authorization) => Some(Caller::Account),
            _ => None,
        }
    }

    /// Whether the caller may see and change an environment.
    pub fn reaches(&self, who: &Caller, environment: &str) -> Result<(), Refusal> {
        let own = match who {
            Caller::Account => self.environments.contains_key(environment),
            Caller::Project {
                environment: own, ..
            } => own == environment,
        };
        own.then_some(()).ok_or_else(Refusal::unauthorized)
    }

    /// Whether the caller may see a project.
    pub fn reaches_project(&self, who: &Caller, project: &str) -> Result<(), Refusal> {
        let own = match who {
            Caller::Account => self.projects.contains_key(project),
            Caller::Project { project: own, .. } => own == project,
        };
        own.then_some(()).ok_or_else(Refusal::unauthorized)
    }

    /// Whether the caller may do what concerns the whole account.
    pub fn owns(who: &Caller) -> Result<(), Refusal> {
        match who {
            Caller::Account => Ok(()),
            Caller::Project { .. } => Err(Refusal::unauthorized()),
        }
    }

    /// The instances of a volume that the caller can see.
    pub fn instances_of(&self, who: &Caller, volume: &str) -> Vec<&Instance> {
        let all = self.instances.values();
        let mine = all.filter(|one| one.volume_id == volume);
        mine.filter(|one| self.reaches(who, &one.environment_id).is_ok())
            .collect()
    }

    /// An instance, if the caller can see it.
    pub fn instance(&self, who: &Caller, id: &str) -> Result<&Instance, Refusal> {
        let found = self.instances.get(id).ok_or_else(Refusal::unauthorized)?;
        self.reaches(who, &found.environment_id)?;
        Ok(found)
    }

    /// A volume, if the caller can see one of its instances or it has none.
    pub fn volume(&self, who: &Caller, id: &str) -> Result<&Volume, Refusal> {
        let found = self.volumes.get(id).ok_or_else(Refusal::unauthorized)?;
        if *who != Caller::Account && self.instances_of(who, id).is_empty() {
            return Err(Refusal::unauthorized());
        }
        Ok(found)
    }

    /// A service, if the caller can see its project.
    pub fn service(&self, who: &Caller, id: &str) -> Result<&Service, Refusal> {
        let found = self.services.get(id).ok_or_else(Refusal::unauthorized)?;
        self.reaches_project(who, &found.project_id)?;
        Ok(found)
    }

    /// The configuration of an environment: its volumes, services and variables.
    pub fn config(&self, environment: &str) -> Value {
        let mut volumes = Map::new();
        let mut services = Map::new();
        let here = |one: &&Instance| one.environment_id == environment;
        for instance in self.instances.values().filter(here) {
            let size = serde_json::json!({ "sizeMB": instance.size_mb });
            volumes.insert(instance.volume_id.clone(), size);
            if let Some(service) = &instance.service_id {
                let mount = serde_json::json!({ "mountPath": instance.mount_path });
                let mounts = serde_json::json!({ instance.volume_id.clone(): mount });
                services.insert(
                    service.clone(),
                    serde_json::json!({ "volumeMounts": mounts }),
                );
            }
        }
        serde_json::json!({ "volumes": volumes, "services": services })
    }

    /// The environment in which the database runs, while there is one.
    pub fn database_environment(&self) -> Option<String> {
        let known = self.database.is_some();
        known.then(|| self.database_place.2.clone())
    }

    /// Notes what was done, for the log of requests.
    pub fn note(&mut self, what: String) {
        tracing::info!("{what}");
        self.done.push(what);
    }
}

/// The header in which a token came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// `Authorization: Bearer`.
    Authorization,
    /// `Project-Access-Token`.
    ProjectAccessToken,
}
