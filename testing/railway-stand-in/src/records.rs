//! What the provider knows, as it tells it: each record is serialized under the public names.

use serde::Serialize;

/// A project.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    pub is_public: bool,
    pub created_at: String,
    pub updated_at: String,
    pub deleted_at: Option<String>,
    pub workspace_id: String,
    pub base_environment_id: Option<String>,
}

/// An environment of a project, such as production.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    pub id: String,
    pub name: String,
    pub project_id: String,
    pub is_ephemeral: bool,
    pub can_access: bool,
    pub created_at: String,
    pub updated_at: String,
    pub deleted_at: Option<String>,
}

/// A service of a project; it runs in environments.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    pub id: String,
    pub name: String,
    pub icon: Option<String>,
    pub project_id: String,
    pub created_at: String,
    pub updated_at: String,
    pub deleted_at: Option<String>,
}

/// A volume; its directory lies in `volumes/<id>`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    pub id: String,
    pub name: String,
    pub project_id: String,
    pub created_at: String,
}

/// A volume as one environment sees it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    pub id: String,
    pub volume_id: String,
    pub environment_id: String,
    pub service_id: Option<String>,
    pub mount_path: String,
    pub region: Option<String>,
    pub state: &'static str,
    #[serde(rename = "sizeMB")]
    pub size_mb: u32,
    pub created_at: String,
    pub deleted_at: Option<String>,
    pub is_pending_deletion: bool,
}

/// A backup of a volume; its copy lies in `volumes/<volume>/.backups/<id>`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    pub id: String,
    pub name: Option<String>,
    #[serde(skip)]
    pub volume_id: String,
    pub created_at: String,
    pub creator_id: Option<String>,
    pub expires_at: Option<String>,
    pub external_id: String,
    #[serde(rename = "referencedMB")]
    pub referenced_mb: u64,
    #[serde(rename = "usedMB")]
    pub used_mb: u64,
    #[serde(rename = "volumeInstanceSizeMB")]
    pub volume_instance_size_mb: u32,
    pub schedule_id: Option<String>,
}

/// A domain of the customer's own.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Domain {
    pub id: String,
    pub domain: String,
    pub environment_id: String,
    pub project_id: String,
    pub service_id: String,
    pub target_port: Option<i64>,
    pub is_railway_domain: bool,
    pub sync_status: &'static str,
    pub created_at: String,
    pub updated_at: String,
    pub deleted_at: Option<String>,
}

/// A token of one environment of one project, or of the account when it names none.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    pub id: String,
    pub name: String,
    pub display_token: String,
    #[serde(skip)]
    pub secret: String,
    pub project_id: Option<String>,
    pub environment_id: Option<String>,
    pub workspace_id: Option<String>,
    pub expires_at: Option<String>,
    pub created_at: String,
}

/// A deployment; nothing is built, the service it names runs or does not.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    pub id: String,
    pub status: &'static str,
    pub project_id: String,
    pub environment_id: String,
    pub service_id: String,
    pub created_at: String,
    pub updated_at: String,
    pub deployment_stopped: bool,
    pub can_redeploy: bool,
    pub can_rollback: bool,
    pub static_url: Option<String>,
    pub url: Option<String>,
}

/// Changes that wait to be committed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Patch {
    pub id: String,
    pub environment_id: String,
    pub status: &'static str,
    pub message: Option<String>,
    pub patch: serde_json::Value,
    pub created_at: String,
    pub updated_at: String,
    pub applied_at: Option<String>,
}
