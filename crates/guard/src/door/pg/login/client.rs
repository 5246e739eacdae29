//! A client's side of its login: who it is, by which lease, to which database.

use std::sync::Arc;

use bytes::BytesMut;
use holdfast_core::{Code, Coded};
use holdfast_wire::pg::backend;
use holdfast_wire::pg::scram::{self, Binding, Verifier};
use holdfast_wire::pg::startup::Parameter;
use tokio::io::AsyncWriteExt;

use super::super::source::Source;
use super::super::stream::Stream;
use super::super::{Door, Key};
use super::server::{Server, reach};
use super::{MINOR, Refused, read_message};
use crate::clock;
use crate::lease::{Lease, PgLease};

/// A client that wants a session.
pub(super) struct Talk {
    pub client: Stream,
    pub from_client: BytesMut,
    /// What a login can be bound to.
    pub binding: Binding,
}

/// What a client that was let in gets.
pub(super) struct Admitted {
    pub lease: Lease,
    pub source: Arc<Source>,
    pub server: Server,
    pub key: Key,
    pub reads_pass: bool,
    pub leads_out: bool,
}

impl Talk {
    /// Lets a client in, or says why not.
    pub(super) async fn admit(
        &mut self,
        door: &Arc<Door>,
        minor: u16,
        parameters: Vec<Parameter>,
    ) -> Result<Admitted, Refused> {
        let value = |wanted: &[u8]| {
            let mut found = parameters.iter().filter(|(name, _)| name == wanted);
            found.next_back().map(|(_, value)| value.clone())
        };
        let off: [&[u8]; 6] = [b"false", b"off", b"no", b"0", b"f", b"n"];
        if value(b"replication").is_some_and(|asked| !off.contains(&asked.as_slice())) {
            let message = "the PostgreSQL door does not pass replication; nothing was executed";
            let hint = "ask the operator for a copy of the data";
            return Err(Refused::new(Code::ZU403, message, hint));
        }
        let unknown: Vec<&[u8]> = parameters
            .iter()
            .map(|(name, _)| name.as_slice())
            .filter(|name| name.starts_with(b"_pq_."))
            .collect();
        if minor > MINOR || !unknown.is_empty() {
            let mut out = Vec::new();
            backend::write_negotiation(minor.min(MINOR).into(), &unknown, &mut out);
            self.send(&out).await?;
        }
        let user = value(b"user").unwrap_or_default();
        let lease = self.authenticate(door, &user).await?;
        let pg = lease.pg.as_ref().ok_or_else(wrong_password)?;
        let database = value(b"database").unwrap_or_else(|| user.clone());
        if database != pg.database.as_bytes() {
            let message = format!("this lease leads to the database `{}` only", pg.database);
            return Err(Refused::new(
                Code::ZL401,
                message,
                "connect with the URL that came with the lease",
            ));
        }
        let source = door.source(&lease).ok_or_else(|| nowhere(&lease, pg))?;
        let (server, lets) = tokio::join!(
            reach(&source, &lease, (minor, parameters)),
            source.control.lets(&pg.database, &pg.role)
        );
        let server = server?;
        let secret: [u8; 32] = clock::random().map_err(|error| Refused::garbled(&error))?;
        // Before 3.2 a secret has four bytes.
        let length = if minor >= 2 { secret.len() } else { 4 };
        let secret = secret.into_iter().take(length).collect();
        let key = (server.key.0, secret);
        Ok(Admitted {
            lease,
            source,
            server,
            key,
            reads_pass: lets.reads_pass,
            leads_out: lets.leads_out,
        })
    }

    /// Lets in whoever knows the token of the lease whose role `user` is.
    async fn authenticate(&mut self, door: &Arc<Door>, user: &[u8]) -> Result<Lease, Refused> {
        let lease = std::str::from_utf8(user)
            .ok()
            .and_then(|user| door.leases.find_role(user).ok());
        let kept = lease
            .as_ref()
            .and_then(|lease| lease.pg.as_ref())
            .and_then(|pg| Verifier::parse(&pg.scram));
        let verifier = match kept {
            Some(verifier) => verifier,
            None => Verifier::of_nobody(clock::random().map_err(|e| Refused::garbled(&e))?),
        };
        let mut offered = 10_u32.to_be_bytes().to_vec();
        if self.binding != Binding::Absent {
            offered.extend([scram::MECHANISM_PLUS.as_bytes(), &[0]].concat());
        }
        offered.extend([scram::MECHANISM.as_bytes(), &[0, 0]].concat());
        self.send_message(b'R', &offered).await?;
        let initial = self.password().await?;
        let (is_bound, first) =
            initial_response(&initial).ok_or_else(|| Refused::garbled(&"no SCRAM"))?;
        if !is_bound && self.binding != Binding::Absent && first.starts_with(b"y") {
            // Somebody in between has taken the binding out of the offer.
            return Err(Refused::garbled(&"the client was not offered a binding"));
        }
        let binding = match is_bound {
            true if self.binding == Binding::Absent => {
                return Err(Refused::garbled(&"there is nothing to bind to"));
            }
            true => self.binding.clone(),
            false => Binding::Absent,
        };
        let nonce =
            data_encoding::BASE64.encode(&clock::random::<18>().map_err(|e| Refused::garbled(&e))?);
        let (begun, answer) = scram::begin(verifier, first, &nonce, &binding)
            .map_err(|error| Refused::garbled(&error))?;
        let challenge = [&11_u32.to_be_bytes()[..], &answer].concat();
        self.send_message(b'R', &challenge).await?;
        let last = self.password().await?;
        let proof = begun.finish(&last).map_err(|_| wrong_password())?;
        let lease = lease.ok_or_else(wrong_password)?;
        if let Some(ended) = lease.ended(clock::now()) {
            let hint = ended.hint().unwrap_or_default();
            return Err(Refused::new(ended.code(), ended.to_string(), &hint));
        }
        let mut out = Vec::new();
        let done = [&12_u32.to_be_bytes()[..], &proof].concat();
        backend::write_message(b'R', &done, &mut out);
        self.send(&out).await?;
        Ok(lease)
    }

    /// Reads one message that answers a request for authentication.
    async fn password(&mut self) -> Result<Vec<u8>, Refused> {
        let (tag, body) = read_message(&mut self.client, &mut self.from_client)
            .await
            .map_err(|error| Refused::garbled(&error))?;
        match tag {
            b'p' => Ok(body.to_vec()),
            _ => Err(Refused::garbled(&"a password message was expected")),
        }
    }

    async fn send_message(&mut self, tag: u8, body: &[u8]) -> Result<(), Refused> {
        let mut out = Vec::new();
        backend::write_message(tag, body, &mut out);
        self.send(&out).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let sent = self.client.write_all(bytes).await;
        sent.map_err(|error| Refused::garbled(&error))
    }
}

/// Why a lease leads nowhere.
fn nowhere(lease: &Lease, pg: &PgLease) -> Refused {
    match &pg.copy_of {
        Some(source) => Refused::new(
            Code::ZL401,
            format!(
                "the clone `{}` of `{source}` is not open, and this lease leads to nothing else",
                lease.source
            ),
            "a human opens another with `holdfast clone open` and issues a lease for it",
        ),
        None => Refused::new(
            Code::ZS401,
            format!("the source `{}` has no PostgreSQL door", lease.source),
            "tell the operator of holdfast",
        ),
    }
}

pub(super) fn wrong_password() -> Refused {
    let message = "no lease has this role and this token";
    Refused::new(
        Code::ZL401,
        message,
        "a human issues a new one with `holdfast lease issue`",
    )
}

/// Takes mechanism and length off a `SASLInitialResponse`: whether the login is to be bound to the
/// connection, and what else it says.
fn initial_response(body: &[u8]) -> Option<(bool, &[u8])> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let (mechanism, rest) = body.split_at_checked(end)?;
    let is_bound = match mechanism {
        name if name == scram::MECHANISM_PLUS.as_bytes() => true,
        name if name == scram::MECHANISM.as_bytes() => false,
        _ => return None,
    };
    let (length, rest) = rest.strip_prefix(&[0])?.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    (rest.len() == length).then_some((is_bound, rest))
}
