//! What is added, named and arranged: projects, environments, services, domains, tokens, variables.

use serde_json::{Map, Value};

use super::{done, needed, text};
use crate::ask;
use crate::graphql::Asked;
use crate::names;
use crate::node::{Found, Node};
use crate::records::{Deployment, Domain, Environment, Project, Service, Token};
use crate::world::{Caller, Refusal, World};

pub fn change(world: &mut World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let input = asked.input();
    match asked.name.as_str() {
        "apiTokenCreate" => {
            World::owns(who)?;
            let workspace = text(&input, "workspaceId");
            Ok(token(world, needed(&input, "name"), None, workspace))
        }
        "apiTokenDelete" | "projectTokenDelete" => {
            World::owns(who)?;
            remove(world.tokens.remove(asked.text("id")))
        }
        "customDomainCreate" => domain(world, who, &input),
        "customDomainDelete" => {
            let found = world
                .domains
                .get(asked.text("id"))
                .ok_or_else(Refusal::unauthorized)?;
            world.reaches(who, &found.environment_id)?;
            let removed = world.domains.remove(asked.text("id"));
            world.note(format!("custom domain {} deleted", asked.text("id")));
            remove(removed)
        }
        "environmentCreate" => {
            World::owns(who)?;
            let project = needed(&input, "projectId");
            world.reaches_project(who, &project)?;
            Ok(Found::Node(Node::Environment(
                world.add_environment(&project, &needed(&input, "name")),
            )))
        }
        "environmentRename" => {
            World::owns(who)?;
            let id = asked.text("id").to_owned();
            let found = world
                .environments
                .get_mut(&id)
                .ok_or_else(Refusal::unauthorized)?;
            found.name = needed(&input, "name");
            found.updated_at = names::now();
            Ok(Found::Node(Node::Environment(id)))
        }
        "projectCreate" => {
            World::owns(who)?;
            let name = text(&input, "name").unwrap_or_else(|| "new-project".to_owned());
            let id = world.add_project(&name);
            let environment = text(&input, "defaultEnvironmentName");
            world.add_environment(&id, environment.as_deref().unwrap_or("production"));
            Ok(Found::Node(Node::Project(id)))
        }
        "projectTokenCreate" => {
            World::owns(who)?;
            let place = (needed(&input, "projectId"), needed(&input, "environmentId"));
            let environment = world.environments.get(&place.1);
            if environment.is_none_or(|one| one.project_id != place.0) {
                return Err(Refusal::unauthorized());
            }
            Ok(token(world, needed(&input, "name"), Some(place), None))
        }
        "projectUpdate" => update_project(world, who, asked.text("id"), &input),
        "serviceCreate" => {
            let project = needed(&input, "projectId");
            world.reaches_project(who, &project)?;
            let name = text(&input, "name").unwrap_or_else(|| "service".to_owned());
            Ok(Found::Node(Node::Service(
                world.add_service(&project, &name),
            )))
        }
        "serviceUpdate" => {
            let id = world.service(who, asked.text("id"))?.id.clone();
            if let Some(service) = world.services.get_mut(&id) {
                service.name = text(&input, "name").unwrap_or_else(|| service.name.clone());
                service.icon = text(&input, "icon").or_else(|| service.icon.clone());
                service.updated_at = names::now();
            }
            Ok(Found::Node(Node::Service(id)))
        }
        "variableCollectionUpsert" | "variableDelete" | "variableUpsert" => {
            variables(world, who, &asked.name, &input)
        }
        _ => deploy(world, who, asked),
    }
}

fn remove<T>(removed: Option<T>) -> Result<Found, Refusal> {
    removed.map(|_| done(())).ok_or_else(Refusal::unauthorized)
}

fn token(
    world: &mut World,
    name: String,
    place: Option<(String, String)>,
    workspace_id: Option<String>,
) -> Found {
    let (project, environment) = place.unzip();
    let secret = world.add_token(&name, project, environment, workspace_id);
    Found::Value(Value::String(secret))
}

fn domain(world: &mut World, who: &Caller, input: &Map<String, Value>) -> Result<Found, Refusal> {
    let environment = needed(input, "environmentId");
    world.reaches(who, &environment)?;
    world.service(who, &needed(input, "serviceId"))?;
    let name = needed(input, "domain");
    if world.domains.values().any(|one| one.domain == name) {
        return Err(Refusal(format!("The domain {name} is not available")));
    }
    let now = names::now();
    let domain = Domain {
        id: names::uuid(),
        domain: name,
        environment_id: environment,
        project_id: needed(input, "projectId"),
        service_id: needed(input, "serviceId"),
        target_port: input.get("targetPort").and_then(Value::as_i64),
        is_railway_domain: false,
        sync_status: "ACTIVE",
        created_at: now.clone(),
        updated_at: now,
        deleted_at: None,
    };
    let node = ask::domain_node(&domain);
    world.note(format!("custom domain {} created", domain.id));
    world.domains.insert(domain.id.clone(), domain);
    Ok(Found::Node(node))
}

fn update_project(
    world: &mut World,
    who: &Caller,
    id: &str,
    input: &Map<String, Value>,
) -> Result<Found, Refusal> {
    World::owns(who)?;
    let project = world
        .projects
        .get_mut(id)
        .ok_or_else(Refusal::unauthorized)?;
    project.name = text(input, "name").unwrap_or_else(|| project.name.clone());
    project.description = text(input, "description").or_else(|| project.description.clone());
    let public = input.get("isPublic").and_then(Value::as_bool);
    project.is_public = public.unwrap_or(project.is_public);
    let base = text(input, "baseEnvironmentId");
    project.base_environment_id = base.or_else(|| project.base_environment_id.clone());
    project.updated_at = names::now();
    Ok(Found::Node(Node::Project(id.to_owned())))
}

fn variables(
    world: &mut World,
    who: &Caller,
    name: &str,
    input: &Map<String, Value>,
) -> Result<Found, Refusal> {
    let environment = needed(input, "environmentId");
    world.reaches(who, &environment)?;
    let place = (environment, text(input, "serviceId"));
    let values = world.variables.entry(place).or_default();
    match name {
        "variableDelete" => {
            values.remove(&needed(input, "name"));
        }
        "variableUpsert" => {
            values.insert(needed(input, "name"), needed(input, "value"));
        }
        _ => {
            if input.get("replace") == Some(&Value::Bool(true)) {
                values.clear();
            }
            let given = input.get("variables").and_then(Value::as_object);
            for (name, value) in given.into_iter().flatten() {
                values.insert(name.clone(), value.as_str().unwrap_or_default().to_owned());
            }
        }
    }
    Ok(done(()))
}

/// Nothing is built: a restart of the database's deployment restarts the database.
fn deploy(world: &mut World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let (environment, service) = match asked.name.as_str() {
        "serviceInstanceRedeploy" => {
            world.service(who, asked.text("serviceId"))?;
            (
                asked.text("environmentId").to_owned(),
                asked.text("serviceId").to_owned(),
            )
        }
        _ => {
            let found = world.deployments.get(asked.text("id"));
            let found = found.ok_or_else(Refusal::unauthorized)?;
            (found.environment_id.clone(), found.service_id.clone())
        }
    };
    world.reaches(who, &environment)?;
    let runs = world.database_environment() == Some(environment.clone())
        && world.database_place.1 == service;
    let stops = matches!(asked.name.as_str(), "deploymentRemove" | "deploymentStop");
    if let Some(database) = world.database.as_mut().filter(|_| runs) {
        let turned = if stops {
            database.stop()
        } else {
            database.restart()
        };
        turned.map_err(|error| Refusal::trouble(&error))?;
    }
    if let Some(found) = world.deployments.get_mut(asked.text("id")) {
        found.deployment_stopped = stops;
        found.updated_at = names::now();
        if asked.name == "deploymentRemove" {
            found.status = "REMOVED";
        }
    }
    world.note(format!("{} of service {service}", asked.name));
    if asked.name != "deploymentRedeploy" {
        return Ok(done(()));
    }
    Ok(Found::Node(Node::Deployment(
        world.add_deployment(&environment, &service),
    )))
}

impl World {
    /// Adds a project and returns its id.
    pub fn add_project(&mut self, name: &str) -> String {
        let now = names::now();
        let project = Project {
            id: names::uuid(),
            name: name.to_owned(),
            description: None,
            is_public: false,
            created_at: now.clone(),
            updated_at: now,
            deleted_at: None,
            workspace_id: self.account.workspace_id.clone(),
            base_environment_id: None,
        };
        let id = project.id.clone();
        self.projects.insert(id.clone(), project);
        id
    }

    /// Adds an environment and returns its id.
    pub fn add_environment(&mut self, project: &str, name: &str) -> String {
        let now = names::now();
        let environment = Environment {
            id: names::uuid(),
            name: name.to_owned(),
            project_id: project.to_owned(),
            is_ephemeral: false,
            can_access: true,
            created_at: now.clone(),
            updated_at: now,
            deleted_at: None,
        };
        let id = environment.id.clone();
        self.environments.insert(id.clone(), environment);
        id
    }

    /// Adds a service and returns its id.
    pub fn add_service(&mut self, project: &str, name: &str) -> String {
        let now = names::now();
        let service = Service {
            id: names::uuid(),
            name: name.to_owned(),
            icon: None,
            project_id: project.to_owned(),
            created_at: now.clone(),
            updated_at: now,
            deleted_at: None,
        };
        let id = service.id.clone();
        self.services.insert(id.clone(), service);
        id
    }

    /// Adds a token and returns its secret.
    pub fn add_token(
        &mut self,
        name: &str,
        project_id: Option<String>,
        environment_id: Option<String>,
        workspace_id: Option<String>,
    ) -> String {
        let secret = names::uuid();
        let token = Token {
            id: names::uuid(),
            name: name.to_owned(),
            display_token: names::masked(&secret),
            secret: secret.clone(),
            project_id,
            environment_id,
            workspace_id,
            expires_at: None,
            created_at: names::now(),
        };
        self.note(format!("token {} created", token.id));
        self.tokens.insert(token.id.clone(), token);
        secret
    }

    /// Adds a deployment of a service that runs and returns its id.
    pub fn add_deployment(&mut self, environment: &str, service: &str) -> String {
        let now = names::now();
        let project = self.services.get(service).map(|one| one.project_id.clone());
        let deployment = Deployment {
            id: names::uuid(),
            status: "SUCCESS",
            project_id: project.unwrap_or_default(),
            environment_id: environment.to_owned(),
            service_id: service.to_owned(),
            created_at: now.clone(),
            updated_at: now,
            deployment_stopped: false,
            can_redeploy: true,
            can_rollback: false,
            static_url: None,
            url: None,
        };
        let id = deployment.id.clone();
        self.deployments.insert(id.clone(), deployment);
        id
    }
}
