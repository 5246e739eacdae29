//! The questions at the root.

use serde_json::{Value, json};

use crate::graphql::Asked;
use crate::names;
use crate::node::{Found, Node, page, record};
use crate::world::{Caller, Refusal, World};

/// Answers one field of a query.
///
/// # Errors
/// When the caller may not see it, or it is not there.
pub fn ask(world: &World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let node = match asked.name.as_str() {
        "deployment" => {
            let id = asked.text("id");
            let found = world
                .deployments
                .get(id)
                .ok_or_else(Refusal::unauthorized)?;
            world.reaches(who, &found.environment_id)?;
            Node::Deployment(id.to_owned())
        }
        "environment" => {
            world.reaches(who, asked.text("id"))?;
            Node::Environment(asked.text("id").to_owned())
        }
        "environmentStagedChanges" => return staged(world, who, asked),
        "me" => {
            World::owns(who)?;
            Node::User
        }
        "project" => {
            world.reaches_project(who, asked.text("id"))?;
            Node::Project(asked.text("id").to_owned())
        }
        "projectToken" => match who {
            Caller::Project { token, .. } => Node::Token(token.clone()),
            Caller::Account => return Err(Refusal("Project Token not found".to_owned())),
        },
        "service" => Node::Service(world.service(who, asked.text("id"))?.id.clone()),
        "volumeInstance" => Node::Instance(world.instance(who, asked.text("id"))?.id.clone()),
        "workflowStatus" => workflow(world, asked.text("workflowId")),
        _ => return lists(world, who, asked),
    };
    Ok(Found::Node(node))
}

fn lists(world: &World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let found = match asked.name.as_str() {
        "apiTokens" => {
            World::owns(who)?;
            let own = world
                .tokens
                .values()
                .filter(|token| token.project_id.is_none());
            page(
                asked,
                own.map(|token| Node::Token(token.id.clone())).collect(),
            )
        }
        "customDomain" => {
            let domain = world
                .domains
                .get(asked.text("id"))
                .ok_or_else(Refusal::unauthorized)?;
            world.reaches(who, &domain.environment_id)?;
            Found::Node(domain_node(domain))
        }
        "deployments" => deployments(world, who, asked),
        "domains" => domains(world, who, asked)?,
        "environments" => environments(world, who, asked)?,
        "projectTokens" => {
            World::owns(who)?;
            let id = asked.text("projectId");
            world.reaches_project(who, id)?;
            let all = world.tokens.values();
            let own = all.filter(|token| token.project_id.as_deref() == Some(id));
            page(
                asked,
                own.map(|token| Node::Token(token.id.clone())).collect(),
            )
        }
        "projects" => {
            World::owns(who)?;
            let wanted = asked.given("workspaceId");
            let here = wanted.is_none_or(|id| id == world.account.workspace_id);
            page(
                asked,
                if here {
                    world.all_projects()
                } else {
                    Vec::new()
                },
            )
        }
        "variables" => variables(world, who, asked)?,
        "volumeInstanceBackupList" => {
            let instance = world.instance(who, asked.text("volumeInstanceId"))?;
            let all = world.backups.values();
            let own = all.filter(|backup| backup.volume_id == instance.volume_id);
            Found::Nodes(own.map(record).collect())
        }
        name => {
            return Err(Refusal::trouble(&anyhow::anyhow!(
                "no question is called {name}"
            )));
        }
    };
    Ok(found)
}

fn deployments(world: &World, who: &Caller, asked: &Asked) -> Found {
    let input = asked.input();
    let fits = |at: &str, own: &str| match input.get(at).and_then(Value::as_str) {
        Some(wanted) => wanted == own,
        None => true,
    };
    let all = world.deployments_where(who, |one| {
        fits("projectId", &one.project_id)
            && fits("environmentId", &one.environment_id)
            && fits("serviceId", &one.service_id)
    });
    page(asked, all)
}

fn environments(world: &World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let id = asked.text("projectId");
    world.reaches_project(who, id)?;
    let all = world
        .environments
        .values()
        .filter(|one| one.project_id == id);
    let seen = all.filter(|one| world.reaches(who, &one.id).is_ok());
    Ok(page(
        asked,
        seen.map(|one| Node::Environment(one.id.clone())).collect(),
    ))
}

fn variables(world: &World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let id = asked.text("environmentId");
    world.reaches(who, id)?;
    let service = asked.given("serviceId").map(str::to_owned);
    let found = world.variables.get(&(id.to_owned(), service));
    Ok(Found::Value(json!(found.cloned().unwrap_or_default())))
}

/// What waits to be committed; an environment where nothing waits has an empty patch.
fn staged(world: &World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let id = asked.text("environmentId");
    world.reaches(who, id)?;
    if let Some(patch) = world.staged.get(id) {
        return Ok(Found::Node(Node::Patch(patch.id.clone())));
    }
    let now = names::now();
    Ok(Found::Node(record(&json!({
        "id": id, "environmentId": id, "status": "STAGED", "message": null, "patch": {},
        "createdAt": now, "updatedAt": now, "appliedAt": null,
    }))))
}

fn workflow(world: &World, id: &str) -> Node {
    let (status, error) = match world.workflows.get(id) {
        None => ("NotFound", None),
        Some(None) => ("Complete", None),
        Some(Some(error)) => ("Error", Some(error)),
    };
    record(&json!({ "status": status, "error": error }))
}

fn domains(world: &World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let (environment, service) = (asked.text("environmentId"), asked.text("serviceId"));
    world.reaches(who, environment)?;
    let all = world.domains.values();
    let own = all.filter(|one| one.environment_id == environment && one.service_id == service);
    let own = own.map(|one| match domain_node(one) {
        Node::Record(fields) => Value::Object(fields),
        _ => Value::Null,
    });
    let own: Vec<Value> = own.collect();
    Ok(Found::Node(record(
        &json!({ "customDomains": own, "serviceDomains": [] }),
    )))
}

/// A domain with the state of its certificate; nothing is looked up.
pub fn domain_node(domain: &crate::records::Domain) -> Node {
    let Node::Record(mut fields) = record(domain) else {
        return record(domain);
    };
    let target = format!("{}.up.railway.app", domain.id.get(..8).unwrap_or_default());
    let label = domain.domain.split('.').next().unwrap_or_default();
    let zone = domain.domain.split_once('.').map_or("", |(_, zone)| zone);
    let status = json!({
        "certificateStatus": "CERTIFICATE_STATUS_TYPE_VALIDATING_OWNERSHIP",
        "verified": false,
        "verificationDnsHost": null,
        "verificationToken": null,
        "dnsRecords": [{
            "currentValue": "", "requiredValue": target, "fqdn": domain.domain,
            "hostlabel": label, "zone": zone,
            "purpose": "DNS_RECORD_PURPOSE_TRAFFIC_ROUTE", "recordType": "DNS_RECORD_TYPE_CNAME",
            "status": "DNS_RECORD_STATUS_REQUIRES_UPDATE",
        }],
    });
    fields.insert("status".to_owned(), status);
    Node::Record(fields)
}
