//! What is added, named and arranged: projects, environments, services, domains, tokens, variables.

use serde_json::{Map, Value};

use super::{done, needed, text};
use crate::ask;
use crate::graphql::Asked;
use crate::names;
use crate::node::{Found, Node};
use crate::records::Domain;
use crate::world::{Caller, Refusal, World};

/// Carries out what no other file does.
pub fn change(world: &mut World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let input = asked.input();
    match asked.name.as_str() {
        "apiTokenCreate" | "apiTokenDelete" | "projectTokenCreate" | "projectTokenDelete" => {
            tokens(world, who, asked, &input)
        }
        "customDomainCreate" => domain(world, who, &input),
        "customDomainDelete" => delete_domain(world, who, asked.text("id")),
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
        "projectUpdate" => update_project(world, who, asked.text("id"), &input),
        "serviceCreate" => {
            let project = needed(&input, "projectId");
            world.reaches_project(who, &project)?;
            let name = text(&input, "name").unwrap_or_else(|| "service".to_owned());
            Ok(Found::Node(Node::Service(
                world.add_service(&project, &name),
            )))
        }
        "serviceUpdate" => update_service(world, who, asked.text("id"), &input),
        "variableCollectionUpsert" | "variableDelete" | "variableUpsert" => {
            variables(world, who, &asked.name, &input)
        }
        _ => deploy(world, who, asked),
    }
}

fn remove<T>(removed: Option<T>) -> Result<Found, Refusal> {
    removed.map(|_| done(())).ok_or_else(Refusal::unauthorized)
}

/// Secrets are given out once; a token is deleted only as what it is.
fn tokens(
    world: &mut World,
    who: &Caller,
    asked: &Asked,
    input: &Map<String, Value>,
) -> Result<Found, Refusal> {
    World::owns(who)?;
    let name = needed(input, "name");
    let secret = match asked.name.as_str() {
        "apiTokenCreate" => world.add_token(&name, None, None, text(input, "workspaceId")),
        "projectTokenCreate" => {
            let project = needed(input, "projectId");
            let environment = needed(input, "environmentId");
            let known = world.environments.get(&environment);
            if known.is_none_or(|one| one.project_id != project) {
                return Err(Refusal::unauthorized());
            }
            world.add_token(&name, Some(project), Some(environment), None)
        }
        kind => {
            let id = asked.text("id");
            let narrow = kind == "projectTokenDelete";
            let found = world.tokens.get(id);
            if found.is_none_or(|one| one.project_id.is_some() != narrow) {
                return Err(Refusal::unauthorized());
            }
            world.note(format!("token {id} deleted"));
            return remove(world.tokens.remove(id));
        }
    };
    Ok(Found::Value(Value::String(secret)))
}

fn delete_domain(world: &mut World, who: &Caller, id: &str) -> Result<Found, Refusal> {
    let found = world.domains.get(id).ok_or_else(Refusal::unauthorized)?;
    world.reaches(who, &found.environment_id)?;
    let removed = world.domains.remove(id);
    world.note(format!("custom domain {id} deleted"));
    remove(removed)
}

fn update_service(
    world: &mut World,
    who: &Caller,
    id: &str,
    input: &Map<String, Value>,
) -> Result<Found, Refusal> {
    world.service(who, id)?;
    if let Some(service) = world.services.get_mut(id) {
        service.name = text(input, "name").unwrap_or_else(|| service.name.clone());
        service.icon = text(input, "icon").or_else(|| service.icon.clone());
        service.updated_at = names::now();
    }
    Ok(Found::Node(Node::Service(id.to_owned())))
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
