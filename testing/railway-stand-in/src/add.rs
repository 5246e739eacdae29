//! Adds what has no directory: projects, environments, services, tokens, deployments.

use crate::names;
use crate::records::{Deployment, Environment, Project, Service, Token};
use crate::world::World;

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
