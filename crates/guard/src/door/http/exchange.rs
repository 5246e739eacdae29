//! One request from judgement to answer: who asks, what it would do, whether it may, how it ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use holdfast_core::{
    Action, ActionId, Code, DoorKind, Effect, Effects, Evidence, HoldId, Impact, Permit, Resource,
    Secret, SourceName,
};
use holdfast_judge::packs::{Dialect, Learnt, Packs};
use holdfast_judge::policy::Facts;
use holdfast_wire::http::{Head, HttpRequest};
use http_body_util::Full;
use hyper::body::Incoming;

use super::Ca;
use super::headers;
use super::refusal::Reply;
use super::relay::{self, Beginning};
use super::upstream::{Destination, Line, NoAnswer, Upstreams};
use crate::clock;
use crate::custody::Custody;
use crate::decide::{Asked, Decision, Gatekeeper, Outcome, Refusal};
use crate::lease::{Lease, Leases};
use crate::limits::HTTP_HOLD_LOOKS_EVERY;

/// How a lease token begins.
const TOKEN_PREFIX: &str = "hfl_";

/// Everything the connections share.
pub(super) struct Door {
    pub gatekeeper: Gatekeeper,
    pub leases: Leases,
    pub custody: Custody,
    pub packs: Packs,
    pub ca: Ca,
    pub upstreams: Upstreams,
    pub resources: Vec<Resource>,
    pub environments: BTreeMap<SourceName, String>,
    pub hold_wait: Duration,
}

/// What the agent gets.
pub(super) enum Answer {
    /// An answer of the door's own.
    Own(Reply),
    /// The provider's.
    Provider(Box<ProviderAnswer>),
}

/// The provider's answer, to be relayed.
pub(super) struct ProviderAnswer {
    pub response: hyper::Response<Incoming>,
    pub begun: Beginning,
    pub line: Line,
    pub destination: Destination,
}

/// Who asks, and the credential to put in after the verdict.
struct Identity {
    lease: Lease,
    /// Header and its new value.
    swap: Option<(String, Secret)>,
}

impl Door {
    /// Reads the lease token of `Proxy-Authorization`, if there is one, and checks it.
    pub(super) fn proxy_token(&self, head: &Head) -> Result<Option<String>, Reply> {
        if !head
            .headers
            .iter()
            .any(|(name, _)| name == "proxy-authorization")
        {
            return Ok(None);
        }
        let basic = |value: &str| {
            let (scheme, coded) = value.split_once(' ')?;
            if scheme.eq_ignore_ascii_case("bearer") {
                return Some(coded.trim().to_owned());
            }
            let decoded = BASE64.decode(coded.trim().as_bytes()).ok()?;
            let decoded = String::from_utf8(decoded).ok()?;
            let (_, token) = decoded.split_once(':')?;
            scheme
                .eq_ignore_ascii_case("basic")
                .then(|| token.to_owned())
        };
        let token = head.header("proxy-authorization").and_then(basic);
        let token = token.ok_or_else(|| Reply::no_lease("its proxy credentials are malformed"))?;
        match self.leases.authenticate(&token) {
            Ok(_) => Ok(Some(token)),
            Err(error) => Err(Reply::no_lease(&error.to_string())),
        }
    }

    /// Tells whether a credential in custody is for this host.
    pub(super) fn is_bound(&self, host: &str) -> bool {
        self.custody.is_bound(host)
    }

    /// Judges a request, and performs it with a permit.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        mut request: HttpRequest,
        proxy_token: Option<String>,
    ) -> Answer {
        headers::strip(&mut request);
        let identity = match self.identify(&request, proxy_token) {
            Ok(identity) => identity,
            Err(reply) => return Answer::Own(*reply),
        };
        let judgement = self.packs.judge(&request);
        let answers = if judgement.questions.is_empty() {
            Vec::new()
        } else {
            let auth = self.credentials_of(&request, &identity);
            self.ask(&judgement.questions, &request, &auth).await
        };
        let learnt = self.packs.learn(judgement, &answers);
        let dialect = learnt.judgement.dialect;
        let asked = match self.asked(&request, &identity.lease, learnt) {
            Ok(asked) => asked,
            Err(reply) => return Answer::Own(*reply),
        };
        let reads = asked.effects.worst() <= Some(Effect::Read);
        match self.decide(asked, reads).await {
            Decision::Refused(refusal) => Answer::Own(Reply::refused(&refusal, dialect)),
            Decision::Forward(permit) => {
                self.perform(request, &identity, (*permit, reads), dialect)
                    .await
            }
        }
    }

    /// Finds the lease, by the proxy's credentials or by the lease token in the place of a credential.
    fn identify(
        &self,
        request: &HttpRequest,
        proxy_token: Option<String>,
    ) -> Result<Identity, Box<Reply>> {
        let no_lease = |why: &str| Box::new(Reply::no_lease(why));
        let mut lease = None;
        if let Some(token) = proxy_token {
            let found = self.leases.authenticate(&token);
            lease = Some(found.map_err(|error| no_lease(&error.to_string()))?);
        }
        let swap = match self.presented(request) {
            Some((header, prefix, token)) => {
                let found = self.leases.authenticate(&token);
                let found = found.map_err(|error| no_lease(&error.to_string()))?;
                lease = lease.or(Some(found));
                let credential = self.custody.credential(&token, &request.host);
                let credential = credential
                    .ok()
                    .flatten()
                    .filter(|_| request.scheme == "https");
                let credential = credential.ok_or_else(|| {
                    let message = "the lease token stands for no credential of this host";
                    Box::new(Reply::trouble((403, "Forbidden"), Code::ZL502, message))
                })?;
                let value = Secret::new(format!("{prefix}{}", credential.expose()));
                Some((header, value))
            }
            None => None,
        };
        let swapped = |name: &String| swap.as_ref().is_some_and(|(header, _)| header == name);
        let stray = request.headers.iter().any(|(name, value)| {
            let token = TOKEN_PREFIX.as_bytes();
            !swapped(name) && value.windows(token.len()).any(|window| window == token)
        });
        if stray {
            let message = "a lease token stands where no credential of this host belongs";
            let reply = Reply::trouble((403, "Forbidden"), Code::ZL502, message);
            return Err(Box::new(reply));
        }
        match lease {
            Some(lease) => Ok(Identity { lease, swap }),
            None => Err(no_lease("the request carries none")),
        }
    }

    /// Returns header, prefix and lease token, where one stands in the place of a credential.
    fn presented(&self, request: &HttpRequest) -> Option<(String, String, String)> {
        let mut places = self.packs.credential_places(&request.host);
        if places.is_empty() {
            places.push(holdfast_judge::packs::CredentialPlace {
                header: "authorization".to_owned(),
                prefix: "Bearer ".to_owned(),
            });
        }
        places.into_iter().find_map(|place| {
            let value = request.header(&place.header)?;
            let begins = value.get(..place.prefix.len())?;
            let token = value.get(place.prefix.len()..)?.trim();
            let fits =
                begins.eq_ignore_ascii_case(&place.prefix) && token.starts_with(TOKEN_PREFIX);
            fits.then(|| (place.header, place.prefix, token.to_owned()))
        })
    }

    /// Returns the headers that carry the provider's credential, for questions of ours.
    fn credentials_of(&self, request: &HttpRequest, identity: &Identity) -> Vec<(String, Secret)> {
        if let Some((header, value)) = &identity.swap {
            return vec![(header.clone(), value.clone())];
        }
        let places = self.packs.credential_places(&request.host);
        let headers = places.into_iter().filter_map(|place| {
            let value = request.header(&place.header)?;
            Some((place.header, Secret::new(value)))
        });
        headers.collect()
    }

    fn asked(
        &self,
        request: &HttpRequest,
        lease: &Lease,
        learnt: Learnt,
    ) -> Result<Asked, Box<Reply>> {
        let Learnt {
            judgement,
            mut evidence,
            also,
        } = learnt;
        let effects = self.sourced(&judgement.effects, &also);
        for advice in &judgement.advice {
            evidence.push("the pack advises", advice.clone());
        }
        let resources = effects
            .impacts()
            .iter()
            .flat_map(|impact| &impact.resources);
        let mut sources = resources.filter_map(|resource| resource.source.clone());
        let source = sources.next().unwrap_or_else(|| lease.source.clone());
        let environment = self.environments.get(&source);
        let environment = environment.map_or("production", String::as_str);
        let id = clock::random().map_err(|_| {
            let message = "no id can be made for the action";
            Box::new(Reply::trouble(
                (503, "Service Unavailable"),
                Code::ZS202,
                message,
            ))
        })?;
        let action = Action {
            id: ActionId::from_random(id),
            principal: lease.principal(),
            lease: Some(lease.id.clone()),
            source: Some(source),
            door: DoorKind::Http,
            summary: judgement.summary,
            digest: request.digest(),
            at: clock::now(),
        };
        Ok(Asked {
            action,
            effects,
            evidence: bounded(evidence),
            facts: Facts::unmeasured(environment, DoorKind::Http),
        })
    }

    /// Names the source of each resource, where the configuration or the provider's answer tells it.
    fn sourced(&self, effects: &Effects, also: &[(Resource, Resource)]) -> Effects {
        let known = |resource: &Resource| {
            let mut fits = self.resources.iter();
            let fits = fits.find(|one| one.kind == resource.kind && one.name == resource.name);
            fits.and_then(|one| one.source.clone())
        };
        let source_of = |resource: &Resource| {
            let mut parts = also.iter().filter(|(whole, _)| whole == resource);
            known(resource).or_else(|| parts.find_map(|(_, part)| known(part)))
        };
        let impacts = effects.impacts().iter().map(|impact| {
            let mut impact: Impact = impact.clone();
            for resource in &mut impact.resources {
                resource.source = source_of(resource);
            }
            impact
        });
        impacts.collect()
    }

    /// Asks the gatekeeper; a held request may wait a while for a human where that is configured.
    async fn decide(self: &Arc<Self>, asked: Asked, reads: bool) -> Decision {
        let decision = self.decide_once(asked.clone(), reads).await;
        let Decision::Refused(Refusal {
            hold: Some(hold), ..
        }) = &decision
        else {
            return decision;
        };
        if self.hold_wait.is_zero() || !self.approved_within(hold, self.hold_wait).await {
            return decision;
        }
        self.decide_once(asked, reads).await
    }

    async fn decide_once(self: &Arc<Self>, asked: Asked, reads: bool) -> Decision {
        // A read writes nothing unless agents are frozen, so it need not leave this thread.
        if reads && !self.gatekeeper.is_frozen() {
            return self.gatekeeper.decide(asked);
        }
        let gatekeeper = self.gatekeeper.clone();
        let deciding = tokio::task::spawn_blocking(move || gatekeeper.decide(asked));
        deciding.await.unwrap_or_else(|_| {
            Decision::Refused(Refusal {
                code: Code::ZU501,
                message: "refused: the decision could not be made; nothing was executed".to_owned(),
                hint: "tell the operator of holdfast".to_owned(),
                hold: None,
            })
        })
    }

    async fn approved_within(&self, hold: &HoldId, wait: Duration) -> bool {
        let looking = async {
            loop {
                match self.gatekeeper.holds().find(hold) {
                    Ok(found) if found.word(clock::now()) == "waiting" => {}
                    Ok(found) => return found.word(clock::now()) == "approved",
                    Err(_) => return false,
                }
                tokio::time::sleep(HTTP_HOLD_LOOKS_EVERY).await;
            }
        };
        tokio::time::timeout(wait, looking).await.unwrap_or(false)
    }

    /// Sends the request that a permit was given for, once.
    async fn perform(
        self: &Arc<Self>,
        request: HttpRequest,
        identity: &Identity,
        (permit, reads): (Permit, bool),
        dialect: Dialect,
    ) -> Answer {
        let destination = Destination {
            https: request.scheme == "https",
            host: request.host.clone(),
            port: request.port,
        };
        let sent = match outgoing(request, identity.swap.as_ref()) {
            Some(outgoing) => self.upstreams.send(&destination, outgoing).await,
            None => Err(NoAnswer::NotSent(
                "it cannot be put into a request".to_owned(),
            )),
        };
        match sent {
            Ok((mut response, mut line)) => {
                let mut begun = Beginning::default();
                if !reads {
                    begun = relay::beginning(response.body_mut(), &mut line).await;
                    let (outcome, detail) = relay::outcome(response.status().as_u16(), &begun);
                    self.record(permit, outcome, detail).await;
                }
                Answer::Provider(Box::new(ProviderAnswer {
                    response,
                    begun,
                    line,
                    destination,
                }))
            }
            Err(no_answer) => {
                let (outcome, refusal) = unanswered(&destination.host, no_answer, reads);
                if !reads {
                    self.record(permit, outcome, refusal.message.clone()).await;
                }
                Answer::Own(Reply::refused(&refusal, dialect))
            }
        }
    }

    async fn record(&self, permit: Permit, outcome: Outcome, detail: String) {
        let gatekeeper = self.gatekeeper.clone();
        let recording =
            tokio::task::spawn_blocking(move || gatekeeper.outcome(permit, outcome, &detail));
        match recording.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "the outcome of an action is not in the ledger")
            }
            Err(error) => tracing::error!(%error, "the outcome of an action is not in the ledger"),
        }
    }
}

/// Why there is no answer, in words for the agent.
fn unanswered(host: &str, no_answer: NoAnswer, reads: bool) -> (Outcome, Refusal) {
    match no_answer {
        NoAnswer::NotSent(why) => {
            let refusal = Refusal {
                code: Code::ZS501,
                message: format!("{host} cannot be reached: {why}; nothing was sent"),
                hint: "tell the operator of holdfast".to_owned(),
                hold: None,
            };
            (Outcome::NotDone, refusal)
        }
        NoAnswer::Lost(why) => {
            let hint = if reads {
                "ask again"
            } else {
                "do not repeat it; look first whether it was done"
            };
            let refusal = Refusal {
                code: Code::ZS502,
                message: format!(
                    "the answer of {host} was lost: {why}; it is not known whether it was done"
                ),
                hint: hint.to_owned(),
                hold: None,
            };
            (Outcome::Unknown, refusal)
        }
    }
}

/// Makes the request that is sent, with the real credential in its place.
fn outgoing(
    request: HttpRequest,
    swap: Option<&(String, Secret)>,
) -> Option<hyper::Request<Full<Bytes>>> {
    let target = match &request.query {
        Some(query) => format!("{}?{query}", request.path),
        None => request.path.clone(),
    };
    let default = if request.scheme == "https" { 443 } else { 80 };
    let host = if request.port == default {
        request.host.clone()
    } else {
        format!("{}:{}", request.host, request.port)
    };
    let mut builder = hyper::Request::builder()
        .method(request.method.as_str())
        .uri(target)
        .header("host", host);
    for (name, value) in &request.headers {
        let real = swap.filter(|(header, _)| header == name);
        builder = match real {
            Some((_, secret)) => {
                let mut value = hyper::header::HeaderValue::from_str(secret.expose()).ok()?;
                value.set_sensitive(true);
                builder.header(name, value)
            }
            None if name == "upgrade" => builder,
            None => builder.header(name, value.as_slice()),
        };
    }
    builder.body(Full::new(Bytes::from(request.body))).ok()
}

/// What the provider said may be long; what an approver reads and the ledger keeps is not.
fn bounded(mut evidence: Evidence) -> Evidence {
    const ITEMS_MAX: usize = 64;
    if evidence.items.len() > ITEMS_MAX {
        evidence.items.truncate(ITEMS_MAX);
        evidence.push("further facts", "left out");
    }
    evidence
}
