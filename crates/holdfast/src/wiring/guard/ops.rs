//! What people ask of guard: over the local API while it runs, on its state when it does not.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_core::{
    Approval, Code, HoldId, LeaseId, Principal, RowCount, Secret, SourceName, Timestamp,
};
use holdfast_guard::custody::TakeRequest;
use holdfast_guard::decide::Gatekeeper;
use holdfast_guard::door::http::lease_env;
use holdfast_guard::door::pg::{
    PgDoorSource, PgLeaseRequest, end_lease, lease_url, look_for_weaknesses, prepare_lease,
};
use holdfast_guard::lease::weak::WeakError;
use holdfast_guard::lease::{Issued, Lease, LeaseMode, LeaseRequest, Leases, RowBudget};
use holdfast_guard::limits::WEAKNESS_LOOK_MAX;
use holdfast_judge::policy::Budget;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Addresses, GuardState, copies, pg_sources};
use crate::api::{self, Request};
use crate::config::{BeforeRehearsal, Config};
use crate::report::Failure;
use crate::wiring::secrets::NewApprover;
use crate::wiring::{Half, now};

/// What a lease is asked for with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TicketRequest {
    /// The source, or the clone.
    pub source: String,
    /// It is a clone.
    #[serde(default)]
    pub is_clone: bool,
    /// The agent's name.
    pub agent: String,
    /// What for.
    pub purpose: String,
    /// What it may do.
    pub mode: LeaseMode,
    /// Rows that one transaction may change unasked; what the environment allows, when not said.
    #[serde(default)]
    pub rows: Option<u64>,
    /// How long it lasts, in seconds.
    pub lasts_s: u64,
    /// The database, when it is not the one in `guard_url`.
    pub database: Option<String>,
    /// Who issues it.
    pub by: Principal,
}

/// What an agent gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ticket {
    /// The lease.
    pub id: LeaseId,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// What it may do.
    pub mode: LeaseMode,
    /// How many rows it may change unasked.
    pub budget: RowBudget,
    /// Of which source the clone is that it leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_of: Option<SourceName>,
    /// The connection string through the PostgreSQL door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What the agent's process needs for the HTTP door.
    pub env: BTreeMap<String, String>,
    /// How many things in the database make it weaker, where that could be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weaker: Option<usize>,
    /// What is not so good about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A credential to be taken; the secret goes over the owner's socket only.
#[derive(Serialize, Deserialize)]
pub struct TakeAsked {
    /// The file that holds it.
    pub file: PathBuf,
    /// The credential.
    pub credential: String,
    /// The provider, by its pack's name.
    pub provider: String,
    /// Where it may go.
    pub hosts: Vec<String>,
    /// The lease that stands for it.
    pub lease: TicketRequest,
}

/// Where a lease leads, and how long.
struct Place {
    name: SourceName,
    environment: String,
    door: Option<PgDoorSource>,
    lasts: Duration,
}

/// Answers what people ask of guard.
#[derive(Clone)]
pub struct Desk {
    config: Config,
    state: GuardState,
    running: Option<(Gatekeeper, Addresses)>,
}

/// Asks the running guard, or opens its state when it does not run.
///
/// # Errors
/// The operation's own failure, or that the state cannot be opened.
pub async fn ask_or_open(config: &Config, op: &str, args: Value) -> Result<Value, Failure> {
    match Half::Guard.client(config).ask(op, args.clone()).await {
        Err(failure) if failure.code == Code::ZS601 => {
            let desk = Desk::new(config.clone(), GuardState::open(config)?, None);
            let op = op.to_owned();
            desk.answer(Request { op, args }).await
        }
        answer => answer,
    }
}

fn to_json(value: impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(value).map_err(|error| {
        Failure::new(
            Code::ZS602,
            format!("the answer cannot be written: {error}"),
            "tell the makers of holdfast",
        )
    })
}

/// Returns the budget of a lease; that of an hour keeps its proportion to that of a transaction.
fn budget(environment: &str, rows: Option<u64>) -> RowBudget {
    let usual = Budget::of(environment);
    let (transaction, hour) = (usual.rows_transaction_max, usual.rows_lease_hour_max);
    match rows {
        None => RowBudget {
            transaction: RowCount(transaction),
            hour: RowCount(hour),
        },
        Some(rows) => RowBudget {
            transaction: RowCount(rows),
            hour: RowCount(rows.saturating_mul(hour) / transaction.max(1)),
        },
    }
}

/// Counts what makes a lease weaker, and says where that can be read; a lease is issued all the same.
async fn weaker(
    door: &PgDoorSource,
    asked: &TicketRequest,
    warnings: &mut Vec<String>,
) -> Option<usize> {
    let looking = look_for_weaknesses(door, asked.database.as_deref());
    let found = tokio::time::timeout(WEAKNESS_LOOK_MAX, looking).await;
    let late = || WeakError::Connect("it does not answer in time".to_owned());
    let found = match found.unwrap_or_else(|_| Err(late())) {
        Ok(found) => found,
        Err(error) => {
            let why = crate::wiring::failure(&error).message;
            warnings.push(format!(
                "what makes this lease weaker was not looked for: {why}"
            ));
            return None;
        }
    };
    let command = match &asked.database {
        Some(database) => format!("holdfast source check {} --database {database}", door.name),
        None => format!("holdfast source check {}", door.name),
    };
    match found.count(asked.mode) {
        0 => {}
        1 => warnings.push(format!("1 thing makes this lease weaker: {command}")),
        count => warnings.push(format!("{count} things make this lease weaker: {command}")),
    }
    Some(found.count(asked.mode))
}

impl Desk {
    /// Makes a desk; `running` is there when the doors are open.
    pub fn new(
        config: Config,
        state: GuardState,
        running: Option<(Gatekeeper, Addresses)>,
    ) -> Self {
        Self {
            config,
            state,
            running,
        }
    }

    /// Does one operation.
    ///
    /// # Errors
    /// The operation's failure; an unknown operation is `ZU605`.
    pub async fn answer(&self, request: Request) -> Result<Value, Failure> {
        match request.op.as_str() {
            "guard.status" => self.status(),
            "lease.issue" => {
                let (ticket, _) = self.issue(&api::args(request)?).await?;
                to_json(ticket)
            }
            "lease.list" => to_json(self.state.leases.list()),
            "lease.revoke" => self.revoke(request).await,
            "hold.list" => {
                let holds = self.state.holds.list()?.into_iter();
                let shown: Result<Vec<_>, _> =
                    holds.map(|hold| self.state.holds.shown(hold)).collect();
                to_json(shown?)
            }
            "hold.show" => {
                let id: HoldId = api::args(request)?;
                to_json(self.state.holds.show(&id)?)
            }
            "hold.approve" => {
                let approval: Approval = api::args(request)?;
                let holds = &self.state.holds;
                to_json(match self.config.guard.approve_before_rehearsal {
                    BeforeRehearsal::Refuse => holds.approve_rehearsed(approval, now())?,
                    BeforeRehearsal::Warn => holds.approve(approval, now())?,
                })
            }
            "hold.deny" => {
                let (id, by): (HoldId, Principal) = api::args(request)?;
                to_json(self.state.holds.deny(&id, by, now())?)
            }
            "approver.list" => to_json(self.state.holds.approvers()?),
            "approver.add" => self.add_approver(request),
            "freeze.set" => self.freeze(request),
            "custody.list" => to_json(self.state.custody.list()?),
            "custody.take" => self.take(request).await,
            "custody.restore" => {
                let (id, by): (String, Principal) = api::args(request)?;
                to_json(self.state.custody.restore(&id, by)?)
            }
            other => Err(Failure::new(
                Code::ZU605,
                format!("guard knows no operation `{other}`"),
                "use the same version of holdfast for both",
            )),
        }
    }

    fn status(&self) -> Result<Value, Failure> {
        let (gatekeeper, addresses) = self.running()?;
        Ok(json!({"doors": addresses, "frozen": gatekeeper.is_frozen()}))
    }

    fn running(&self) -> Result<(&Gatekeeper, &Addresses), Failure> {
        self.running
            .as_ref()
            .map(|(gatekeeper, addresses)| (gatekeeper, addresses))
            .ok_or_else(|| {
                Failure::new(
                    Code::ZS601,
                    "guard is not running",
                    "start it with `holdfast up` or `holdfast guard run`",
                )
            })
    }

    /// Issues a lease: the role in the source first, then the lease, which the ledger has.
    async fn issue(&self, asked: &TicketRequest) -> Result<(Ticket, Issued), Failure> {
        let _no_sweep = self.state.roles.lock().await;
        let place = self.place(asked)?;
        let (id, token) = (Leases::draw_id()?, Leases::draw_token()?);
        let mut warnings = Vec::new();
        let door = place.door.as_ref();
        let lasts = place.lasts;
        let pg = match door {
            Some(door) => {
                let request = PgLeaseRequest {
                    id: &id,
                    token: &token,
                    database: asked.database.as_deref(),
                    mode: asked.mode,
                    expires: now().plus(lasts),
                    guard: &self.state.guard_key(),
                };
                Some(prepare_lease(door, request).await?)
            }
            None => {
                warnings.push(format!(
                    "`{}` has no guard_url, so the lease opens the HTTP door only",
                    place.name
                ));
                None
            }
        };
        let request = LeaseRequest {
            source: place.name,
            agent: asked.agent.clone(),
            purpose: asked.purpose.clone(),
            mode: asked.mode,
            budget: budget(&place.environment, asked.rows),
            lasts,
        };
        let issued = self
            .state
            .leases
            .issue(request, (id, token), pg, asked.by.clone())?;
        let weaker = match door {
            Some(door) if door.copy_of.is_none() => weaker(door, asked, &mut warnings).await,
            _ => None,
        };
        let addresses = match &self.running {
            Some((_, addresses)) => *addresses,
            None => Addresses {
                pg: self.config.guard.pg_listen,
                http: self.config.guard.http_listen,
            },
        };
        let ca = self.config.state_dir.join("http-ca.pem");
        let lease = &issued.lease;
        let ticket = Ticket {
            id: lease.id.clone(),
            expires: lease.expires,
            mode: lease.mode,
            budget: lease.budget,
            sandbox_of: lease.pg.as_ref().and_then(|pg| pg.copy_of.clone()),
            url: lease_url(addresses.pg, lease, &issued.token).map(|url| url.expose().to_owned()),
            env: lease_env(addresses.http, &issued.token, &ca),
            weaker,
            warnings,
        };
        Ok((ticket, issued))
    }

    /// Finds where a lease is to lead.
    fn place(&self, asked: &TicketRequest) -> Result<Place, Failure> {
        let lasts = Duration::from_secs(asked.lasts_s);
        if asked.is_clone {
            let (door, ends) = copies::find(&self.config, &asked.source)?;
            return Ok(Place {
                name: door.name.clone(),
                environment: door.environment.clone(),
                door: Some(door),
                // It is issued a little later: rather over a moment before its clone than after it.
                lasts: lasts.min(ends.since(now()).saturating_sub(Duration::from_secs(1))),
            });
        }
        let source = self.config.source(&asked.source)?;
        let mut doors = pg_sources(&self.config)?.into_iter();
        Ok(Place {
            name: source.name.clone(),
            environment: source.environment.clone(),
            door: doors.find(|door| door.name == source.name),
            lasts,
        })
    }

    async fn revoke(&self, request: Request) -> Result<Value, Failure> {
        let (id, by): (LeaseId, Principal) = api::args(request)?;
        let (lease, warnings) = self.end(&id, by).await?;
        Ok(json!({"lease": lease, "warnings": warnings}))
    }

    async fn end(&self, id: &LeaseId, by: Principal) -> Result<(Lease, Vec<String>), Failure> {
        let lease: Lease = self.state.leases.revoke(id, by)?;
        let mut warnings = Vec::new();
        if let Some(pg) = &lease.pg {
            let doors = pg_sources(&self.config)?;
            let door = match &pg.copy_of {
                Some(_) => copies::find(&self.config, lease.source.as_str())
                    .ok()
                    .map(|(copy, _)| copy),
                None => doors.into_iter().find(|door| door.name == lease.source),
            };
            match door {
                Some(door) => {
                    if let Err(error) = end_lease(&door, pg).await {
                        let failure = crate::wiring::failure(&error);
                        warnings.push(format!(
                            "the door is closed to it, but its role `{}` is still in the source: {}",
                            pg.role, failure.message
                        ));
                    }
                }
                // The role went with its clone.
                None if pg.copy_of.is_some() => {}
                None => warnings.push(format!("the role `{}` is still in the source", pg.role)),
            }
        }
        Ok((lease, warnings))
    }

    fn add_approver(&self, request: Request) -> Result<Value, Failure> {
        let new: NewApprover = api::args(request)?;
        if !new.is_vouched_for(&self.state.holds.approvers()?) {
            return Err(Failure::new(
                Code::ZL601,
                "nobody who may approve vouches for this person; nothing was changed",
                "an approver says so with `holdfast hold approver NAME --as APPROVER`",
            ));
        }
        let by = new.endorsement.map(|one| one.by);
        let approver = new.approver;
        self.state.records.insert(&approver.name, &approver)?;
        let entry = holdfast_core::ledger::Draft::new(
            "approver.added",
            Principal::human(approver.name.clone()),
            now(),
        )
        .with("name", approver.name.clone())
        .with("key", approver.key.clone())
        .with("endorsed_by", by);
        self.state.ledger.append(entry)?;
        to_json(approver)
    }

    fn freeze(&self, request: Request) -> Result<Value, Failure> {
        let (frozen, by): (bool, Principal) = api::args(request)?;
        let (gatekeeper, _) = self.running()?;
        gatekeeper.set_frozen(frozen, by)?;
        Ok(json!({"frozen": frozen}))
    }

    /// Takes a credential: a lease is issued for it, and the lease's token or connection string stands
    /// in its place.
    async fn take(&self, request: Request) -> Result<Value, Failure> {
        let asked: TakeAsked = api::args(request)?;
        let (ticket, issued) = self.issue(&asked.lease).await?;
        let credential = Secret::new(asked.credential);
        let replacement = match &ticket.url {
            Some(url) if asked.hosts.is_empty() => Secret::new(url.clone()),
            _ => Secret::new(issued.token.expose()),
        };
        let take = TakeRequest {
            file: &asked.file,
            credential: &credential,
            provider: &asked.provider,
            hosts: &asked.hosts,
            issued: &issued,
            replacement: &replacement,
        };
        match self.state.custody.take(&take, asked.lease.by.clone()) {
            Ok(item) => to_json(json!({"item": item, "lease": ticket.id})),
            Err(error) => {
                // A lease that stands for nothing must not stay open.
                self.end(&ticket.id, asked.lease.by).await?;
                Err(error.into())
            }
        }
    }
}
