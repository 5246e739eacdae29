//! What an answer can stand on: a record, or a page of records.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::graphql::Asked;
use crate::limits;
use crate::world::{Caller, Refusal, World};

/// A place from which fields can be asked.
#[derive(Clone, Debug)]
pub enum Node {
    Connection(Page),
    Deployment(String),
    Edge(Box<Node>),
    Environment(String),
    Instance(String),
    Patch(String),
    Project(String),
    /// A record without ways to others.
    Record(Map<String, Value>),
    Service(String),
    Token(String),
    User,
    Volume(String),
    Workspace,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Page {
    nodes: Vec<Node>,
    has_next: bool,
    has_previous: bool,
}

/// What a field gives.
#[derive(Debug)]
pub enum Found {
    Node(Node),
    Nodes(Vec<Node>),
    Value(Value),
}

/// Turns a record into a node without ways to others.
pub fn record(record: &impl Serialize) -> Node {
    match serde_json::to_value(record) {
        Ok(Value::Object(fields)) => Node::Record(fields),
        _ => Node::Record(Map::new()),
    }
}

/// The page of a list that was asked for.
pub fn page(asked: &Asked, all: Vec<Node>) -> Found {
    let total = all.len();
    let at = |cursor: &str| all.iter().position(|node| node.id() == cursor);
    let after = asked
        .given("after")
        .and_then(at)
        .map_or(0, |at| at.saturating_add(1));
    let before = asked.given("before").and_then(at).unwrap_or(total);
    let count = |name: &str| {
        let given = asked.arguments.get(name).and_then(Value::as_u64);
        given.map(|count| usize::try_from(count).unwrap_or(usize::MAX))
    };
    let mut to = before.min(after.saturating_add(count("first").unwrap_or(limits::PAGE_NODES)));
    let mut from = after;
    if let Some(last) = count("last") {
        to = before;
        from = after.max(before.saturating_sub(last));
    }
    Found::Node(Node::Connection(Page {
        nodes: all.get(from..to).unwrap_or_default().to_vec(),
        has_next: to < total,
        has_previous: from > 0,
    }))
}

impl Node {
    /// The id of the record, which is also its cursor.
    pub fn id(&self) -> String {
        match self {
            Self::Deployment(id)
            | Self::Environment(id)
            | Self::Instance(id)
            | Self::Patch(id)
            | Self::Project(id)
            | Self::Service(id)
            | Self::Token(id)
            | Self::Volume(id) => id.clone(),
            Self::Record(fields) => fields
                .get("id")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            Self::Connection(_) | Self::Edge(_) | Self::User | Self::Workspace => String::new(),
        }
    }

    /// What a field of this node gives.
    ///
    /// # Errors
    /// When the caller may not see it.
    pub fn field(&self, world: &World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
        if let Some(found) = self.related(world, who, asked)? {
            return Ok(found);
        }
        let value = self.scalars(world).remove(&asked.name);
        value.map(Found::Value).ok_or_else(|| {
            Refusal::trouble(&anyhow::anyhow!("the field {} has no answer", asked.name))
        })
    }

    fn related(
        &self,
        world: &World,
        who: &Caller,
        asked: &Asked,
    ) -> Result<Option<Found>, Refusal> {
        let found = match (self, asked.name.as_str()) {
            (Self::Connection(page), name) => Some(page.field(name)),
            (Self::Edge(node), "node") => Some(Found::Node((**node).clone())),
            (Self::Edge(node), _) => Some(Found::Value(Value::String(node.id()))),
            (Self::User | Self::Workspace, "projects") => Some(page(asked, world.all_projects())),
            (Self::User, "workspaces") => Some(Found::Nodes(vec![Self::Workspace])),
            (Self::Project(id), name) => {
                world.of_project(who, id, name).map(|all| page(asked, all))
            }
            (Self::Environment(id), "config") => Some(Found::Value(world.config(id))),
            (Self::Environment(id), "volumeInstances") => {
                let all = world
                    .instances
                    .values()
                    .filter(|one| one.environment_id == *id);
                Some(page(
                    asked,
                    all.map(|one| Self::Instance(one.id.clone())).collect(),
                ))
            }
            (Self::Environment(id), "deployments") => {
                let all = world.deployments_where(who, |one| one.environment_id == *id);
                Some(page(asked, all))
            }
            (Self::Service(id), "deployments") => {
                let all = world.deployments_where(who, |one| one.service_id == *id);
                Some(page(asked, all))
            }
            (Self::Volume(id), "volumeInstances") => {
                let all = world.instances_of(who, id).into_iter();
                Some(page(
                    asked,
                    all.map(|one| Self::Instance(one.id.clone())).collect(),
                ))
            }
            (_, "environment") => Some(self.other(world, "environmentId", Self::Environment)?),
            (_, "project") => Some(self.other(world, "projectId", Self::Project)?),
            (_, "service") => Some(self.other(world, "serviceId", Self::Service)?),
            (_, "volume") => Some(self.other(world, "volumeId", Self::Volume)?),
            (Self::Record(fields), name) => match fields.get(name) {
                Some(Value::Object(inner)) => Some(Found::Node(Self::Record(inner.clone()))),
                Some(Value::Array(many)) if many.iter().all(Value::is_object) => {
                    let inner = many
                        .iter()
                        .map(|one| one.as_object().cloned().unwrap_or_default());
                    Some(Found::Nodes(inner.map(Self::Record).collect()))
                }
                _ => None,
            },
            _ => None,
        };
        Ok(found)
    }

    /// The record that a field with an id points to.
    fn other(
        &self,
        world: &World,
        at: &str,
        node: impl Fn(String) -> Self,
    ) -> Result<Found, Refusal> {
        let id = self.scalars(world).remove(at);
        match id.as_ref().and_then(Value::as_str) {
            Some(id) => Ok(Found::Node(node(id.to_owned()))),
            None => Err(Refusal::trouble(&anyhow::anyhow!("`{at}` points nowhere"))),
        }
    }

    fn scalars(&self, world: &World) -> Map<String, Value> {
        let found = match self {
            Self::Deployment(id) => world.deployments.get(id).map(record),
            Self::Environment(id) => world.environments.get(id).map(record),
            Self::Instance(id) => world.instances.get(id).map(record),
            Self::Patch(id) => world
                .staged
                .values()
                .find(|patch| patch.id == *id)
                .map(record),
            Self::Project(id) => world.projects.get(id).map(record),
            Self::Service(id) => world.services.get(id).map(record),
            Self::Token(id) => world.tokens.get(id).map(record),
            Self::Volume(id) => world.volumes.get(id).map(record),
            Self::User => Some(record(&json!({
                "id": world.account.id,
                "email": world.account.email,
                "name": world.account.name,
                "username": null,
                "createdAt": world.account.created_at,
            }))),
            Self::Workspace => Some(record(&json!({
                "id": world.account.workspace_id,
                "name": "rental",
            }))),
            Self::Record(fields) => Some(Self::Record(fields.clone())),
            Self::Connection(_) | Self::Edge(_) => None,
        };
        let Some(Self::Record(mut fields)) = found else {
            return Map::new();
        };
        if let Self::Instance(id) = self {
            fields.insert("currentSizeMB".to_owned(), world.size_of(id));
        }
        fields
    }
}

impl Page {
    fn field(&self, name: &str) -> Found {
        if name == "edges" {
            let edges = self
                .nodes
                .iter()
                .cloned()
                .map(|node| Node::Edge(Box::new(node)));
            return Found::Nodes(edges.collect());
        }
        Found::Node(record(&json!({
            "startCursor": self.nodes.first().map(Node::id),
            "endCursor": self.nodes.last().map(Node::id),
            "hasNextPage": self.has_next,
            "hasPreviousPage": self.has_previous,
        })))
    }
}

impl World {
    /// All projects of the account.
    pub fn all_projects(&self) -> Vec<Node> {
        self.projects.keys().cloned().map(Node::Project).collect()
    }

    /// The deployments that the caller can see, the newest first.
    pub fn deployments_where(
        &self,
        who: &Caller,
        wanted: impl Fn(&crate::records::Deployment) -> bool,
    ) -> Vec<Node> {
        let seen = |one: &&crate::records::Deployment| {
            wanted(one) && self.reaches(who, &one.environment_id).is_ok()
        };
        let mut found: Vec<_> = self.deployments.values().filter(seen).collect();
        found.sort_by(|one, other| other.created_at.cmp(&one.created_at));
        found
            .into_iter()
            .map(|one| Node::Deployment(one.id.clone()))
            .collect()
    }

    fn of_project(&self, who: &Caller, id: &str, name: &str) -> Option<Vec<Node>> {
        match name {
            "deployments" => Some(self.deployments_where(who, |one| one.project_id == id)),
            "environments" => {
                let all = self
                    .environments
                    .values()
                    .filter(|one| one.project_id == id);
                let seen = all.filter(|one| self.reaches(who, &one.id).is_ok());
                Some(seen.map(|one| Node::Environment(one.id.clone())).collect())
            }
            "services" => {
                let all = self.services.values().filter(|one| one.project_id == id);
                Some(all.map(|one| Node::Service(one.id.clone())).collect())
            }
            "volumes" => {
                let all = self.volumes.values().filter(|one| one.project_id == id);
                let seen = all.filter(|one| self.volume(who, &one.id).is_ok());
                Some(seen.map(|one| Node::Volume(one.id.clone())).collect())
            }
            _ => None,
        }
    }

    fn size_of(&self, instance: &str) -> Value {
        let volume = self
            .instances
            .get(instance)
            .map(|one| self.disk.volume(&one.volume_id));
        let bytes = volume.map_or(0, |dir| self.disk.size_bytes(&dir));
        json!(bytes / 1_000_000)
    }
}
