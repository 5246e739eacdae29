//! The door's login to a source, as the role of a lease.

use std::sync::Arc;

use bytes::BytesMut;
use holdfast_core::{Code, ErrorChain, Secret};
use holdfast_wire::pg::backend;
use holdfast_wire::pg::scram::client::{Asked, Keys, Opened, Proving};
use holdfast_wire::pg::scram::{Binding, MECHANISM, MECHANISM_PLUS};
use holdfast_wire::pg::startup::{self, Parameter};
use holdfast_wire::pg::url::ChannelBinding;
use tokio::io::AsyncWriteExt;

use super::super::dial;
use super::super::source::{KnownKeys, Source};
use super::super::stream::Stream;
use super::client::wrong_password;
use super::{MINOR, Refused, read_message};
use crate::clock;
use crate::lease::Lease;

/// The server's side after its login.
pub(super) struct Server {
    pub stream: Stream,
    pub buffer: BytesMut,
    pub parameters: Vec<Parameter>,
    pub key: (u32, Vec<u8>),
}

/// Connects to the source as the role of the lease.
pub(super) async fn reach(
    source: &Arc<Source>,
    lease: &Lease,
    (minor, parameters): (u16, Vec<Parameter>),
) -> Result<Server, Refused> {
    let unreachable = |why: String| {
        let message = format!("the source `{}` cannot be reached: {why}", lease.source);
        Refused::new(Code::ZS401, message, "tell the operator of holdfast")
    };
    let pg = lease.pg.as_ref().ok_or_else(wrong_password)?;
    let password = source
        .password(&pg.role, &pg.database)
        .await
        .map_err(|error| unreachable(ErrorChain(&error).to_string()))?;
    let stream = dial::dial(&source.url).await.map_err(unreachable)?;
    let binding = dial::binding(&stream, &source.url).map_err(unreachable)?;
    let binding = (binding, source.url.binding);
    let mut server = Server {
        stream,
        buffer: BytesMut::new(),
        parameters: Vec::new(),
        key: (0, Vec::new()),
    };
    let mut kept: Vec<Parameter> = parameters
        .into_iter()
        .filter(|(name, _)| {
            !name.starts_with(b"_pq_.")
                && !matches!(
                    name.as_slice(),
                    b"replication" | b"default_transaction_read_only"
                )
        })
        .collect();
    // The last one wins: whatever does not go through the gate runs read only.
    kept.push((b"default_transaction_read_only".to_vec(), b"on".to_vec()));
    let mut out = Vec::new();
    // The server may speak an older one, and says so.
    startup::write_session(minor.min(MINOR), &kept, &mut out);
    server.send(&out).await.map_err(unreachable)?;
    server
        .log_in(&source.keys, &password, &binding)
        .await
        .map_err(unreachable)?;
    server.check()?;
    Ok(server)
}

impl Server {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream
            .write_all(bytes)
            .await
            .map_err(|error| error.to_string())
    }

    async fn log_in(
        &mut self,
        keys: &KnownKeys,
        password: &Secret,
        binding: &(Binding, ChannelBinding),
    ) -> Result<(), String> {
        let mut login = Login::Begin;
        loop {
            let (tag, body) = read_message(&mut self.stream, &mut self.buffer).await?;
            match tag {
                b'R' => {
                    let (next, answer) = login.step(&body, keys, password, binding)?;
                    login = next;
                    self.send(&answer).await?;
                }
                b'S' => {
                    if let Some((name, value)) = backend::parameter(&body) {
                        self.parameters.push((name.to_vec(), value.to_vec()));
                    }
                }
                b'K' => {
                    let (process, secret) = backend::key(&body).ok_or("its key is malformed")?;
                    self.key = (process, secret.to_vec());
                }
                b'Z' => return Ok(()),
                b'E' => return Err(told(&body)),
                b'N' | b'v' => {}
                other => return Err(format!("it sends an unexpected message {other}")),
            }
        }
    }

    /// Refuses servers on which the door's measures do not hold.
    fn check(&self) -> Result<(), Refused> {
        let value = |wanted: &[u8]| {
            let mut found = self.parameters.iter().filter(|(name, _)| name == wanted);
            found.next_back().map(|(_, value)| value.as_slice())
        };
        let version = value(b"server_version").unwrap_or_default();
        let digits: String = version
            .iter()
            .map(|byte| char::from(*byte))
            .take_while(char::is_ascii_digit)
            .collect();
        if digits.parse::<u32>().unwrap_or(0) < 15 {
            let message = "the source is older than PostgreSQL 15";
            return Err(Refused::new(Code::ZS401, message, "upgrade the source"));
        }
        if value(b"default_transaction_read_only") != Some(b"on") {
            let message = "the source does not let sessions begin read only";
            return Err(Refused::new(
                Code::ZS401,
                message,
                "tell the operator of holdfast",
            ));
        }
        if !value(b"client_encoding").is_some_and(super::super::session::is_safe_encoding) {
            let message = "the PostgreSQL door does not pass this encoding: a byte of a character could look like a backslash";
            return Err(Refused::new(
                Code::ZU403,
                message,
                "set client_encoding to UTF8",
            ));
        }
        Ok(())
    }
}

/// What a server says when it lets nobody in.
fn told(body: &[u8]) -> String {
    let message = holdfast_wire::pg::replication::server_message(body);
    message.to_string()
}

/// How far the login has come. The role has a SCRAM password: a server that wants anything else may be
/// another one, and is told nothing.
enum Login {
    Begin,
    Opened(Opened),
    Proving(Proving),
    Proven,
}

impl Login {
    /// Takes one request for authentication, and answers it.
    fn step(
        self,
        body: &[u8],
        keys: &KnownKeys,
        password: &Secret,
        binding: &(Binding, ChannelBinding),
    ) -> Result<(Self, Vec<u8>), String> {
        let unexpected = "it does not ask the role of the lease for SCRAM-SHA-256";
        let (kind, rest) = body.split_first_chunk::<4>().ok_or(unexpected)?;
        let mut out = Vec::new();
        let next = match (self, u32::from_be_bytes(*kind)) {
            (Self::Begin, 10) => {
                let (mechanism, binding) = choose(rest, binding)?;
                let nonce = clock::random::<18>().map_err(|error| error.to_string())?;
                let opened = Opened::new(data_encoding::BASE64.encode(&nonce), &binding);
                let first = opened.first();
                let length = u32::try_from(first.len()).unwrap_or(u32::MAX).to_be_bytes();
                let body = [mechanism.as_bytes(), &[0], &length, &first].concat();
                backend::write_message(b'p', &body, &mut out);
                Self::Opened(opened)
            }
            (Self::Opened(opened), 11) => {
                let asked = opened.asked(rest).map_err(|error| error.to_string())?;
                let (last, proving) = prove(asked, keys, password);
                backend::write_message(b'p', &last, &mut out);
                Self::Proving(proving)
            }
            (Self::Proving(proving), 12) => {
                proving.finish(rest).map_err(|error| error.to_string())?;
                Self::Proven
            }
            (Self::Proven, 0) => Self::Proven,
            _ => return Err(unexpected.to_owned()),
        };
        Ok((next, out))
    }
}

/// Takes the strongest mechanism that both sides have.
fn choose(
    offered: &[u8],
    (binding, wanted): &(Binding, ChannelBinding),
) -> Result<(&'static str, Binding), String> {
    let is_demanded = *wanted == ChannelBinding::Require;
    let offers = |name: &str| {
        let mut offered = offered.split(|byte| *byte == 0);
        offered.any(|one| one == name.as_bytes())
    };
    match binding {
        Binding::EndPoint(_) if offers(MECHANISM_PLUS) => Ok((MECHANISM_PLUS, binding.clone())),
        Binding::EndPoint(_) if is_demanded => Err("it offers no channel binding".to_owned()),
        Binding::EndPoint(_) if offers(MECHANISM) => Ok((MECHANISM, Binding::Unoffered)),
        _ if offers(MECHANISM) => Ok((MECHANISM, Binding::Absent)),
        _ => Err("it does not offer SCRAM-SHA-256".to_owned()),
    }
}

/// Proves the password with keys that are computed once for each role.
fn prove(asked: Asked, keys: &KnownKeys, password: &Secret) -> (Vec<u8>, Proving) {
    let known = keys.find(password, asked.salted());
    let known = known.unwrap_or_else(|| {
        let computed = Keys::compute(password.expose().as_bytes(), asked.salted());
        keys.keep(password, asked.salted(), &computed);
        computed
    });
    asked.prove(&known)
}
