//! Start-up and authentication.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use holdfast_core::Secret;
use holdfast_wire::pg::replication::{ServerMessage, server_message};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

use super::{Allowance, Connection, ConnectionUrl, Purpose};
use crate::limits;
use crate::source::SourceError;

const STEP: &str = "log in";

/// How the server sees us; synchronous replication names it.
pub(crate) const APPLICATION_NAME: &str = "holdfast";

impl Connection {
    pub(super) fn log_in(
        &mut self,
        url: &ConnectionUrl,
        purpose: Purpose,
    ) -> Result<(), SourceError> {
        let mut parameters = vec![
            ("user", url.user.as_str()),
            ("application_name", APPLICATION_NAME),
            ("client_encoding", "UTF8"),
        ];
        match purpose {
            Purpose::Query => parameters.push(("database", &url.database)),
            Purpose::Replication => parameters.push(("replication", "true")),
        }
        let mut out = BytesMut::new();
        frontend::startup_message(parameters, &mut out)
            .map_err(|error| SourceError::nonsense(STEP, error))?;
        self.send(&out, STEP)?;
        self.ends = Some(Instant::now() + limits::LOGIN_WAIT);
        let mut allowance = Allowance::default();
        self.authenticate(url.password.as_ref(), &mut allowance)?;
        loop {
            let frame = self.next(limits::ANSWER_WAIT, STEP)?;
            allowance.take(&frame, STEP)?;
            match frame.tag {
                b'S' => self.parameter(&frame.body),
                b'E' => return Err(self.refused(&frame.body)),
                b'Z' => {
                    self.ends = None;
                    return Ok(());
                }
                b'K' | b'N' | b'v' => {}
                other => return Err(SourceError::nonsense(STEP, format!("message {other}"))),
            }
        }
    }

    fn authenticate(
        &mut self,
        password: Option<&Secret>,
        allowance: &mut Allowance,
    ) -> Result<(), SourceError> {
        let mut scram: Option<ScramSha256> = None;
        loop {
            let frame = self.next(limits::ANSWER_WAIT, STEP)?;
            allowance.take(&frame, STEP)?;
            match frame.tag {
                b'E' => return Err(self.refused(&frame.body)),
                b'N' | b'v' => continue,
                b'R' => {}
                other => return Err(SourceError::nonsense(STEP, format!("message {other}"))),
            }
            let (kind, rest) = frame
                .body
                .split_first_chunk::<4>()
                .ok_or_else(|| SourceError::nonsense(STEP, "short authentication request"))?;
            let word = || {
                password
                    .map(|secret| secret.expose().as_bytes())
                    .ok_or_else(|| self.no_password())
            };
            match (u32::from_be_bytes(*kind), scram.as_mut()) {
                (0, None) => return Ok(()),
                // A server that skips its own proof is not the server that knows our password.
                (0, Some(_)) => {
                    return Err(SourceError::nonsense(STEP, "the server proved nothing"));
                }
                (3, None) => {
                    let password = word()?.to_vec();
                    if !matches!(self.stream, super::Stream::Tls(_)) {
                        return Err(SourceError::Method {
                            method: "clear text password (without TLS)",
                        });
                    }
                    self.answer(&password)?;
                }
                (5, None) => {
                    let salt = rest.first_chunk::<4>().copied();
                    let salt = salt.ok_or_else(|| SourceError::nonsense(STEP, "no salt"))?;
                    let hash = md5_hash(self.user.as_bytes(), word()?, salt);
                    self.answer(hash.as_bytes())?;
                }
                (10, None) => {
                    let begun = ScramSha256::new(word()?, ChannelBinding::unsupported());
                    self.offer(rest, &begun)?;
                    scram = Some(begun);
                }
                (11, Some(state)) => {
                    let bad = |error| SourceError::nonsense(STEP, error);
                    state.update(rest).map_err(bad)?;
                    let mut out = BytesMut::new();
                    frontend::sasl_response(state.message(), &mut out).map_err(bad)?;
                    self.send(&out, STEP)?;
                }
                (12, Some(_)) => {
                    let mut state = scram.take().ok_or_else(|| self.no_password())?;
                    state
                        .finish(rest)
                        .map_err(|error| SourceError::nonsense(STEP, error))?;
                }
                (2 | 7 | 8 | 9, None) => {
                    return Err(SourceError::Method {
                        method: "GSSAPI or Kerberos",
                    });
                }
                _ => {
                    return Err(SourceError::nonsense(
                        STEP,
                        "an authentication step out of order",
                    ));
                }
            }
        }
    }

    fn offer(&mut self, mechanisms: &[u8], scram: &ScramSha256) -> Result<(), SourceError> {
        let mut offered = mechanisms.split(|byte| *byte == 0);
        if !offered.any(|name| name == SCRAM_SHA_256.as_bytes()) {
            return Err(SourceError::Method {
                method: "another SASL",
            });
        }
        let mut out = BytesMut::new();
        frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out)
            .map_err(|error| SourceError::nonsense(STEP, error))?;
        self.send(&out, STEP)
    }

    fn answer(&mut self, password: &[u8]) -> Result<(), SourceError> {
        let mut out = BytesMut::new();
        frontend::password_message(password, &mut out)
            .map_err(|error| SourceError::nonsense(STEP, error))?;
        self.send(&out, STEP)
    }

    fn no_password(&self) -> SourceError {
        let source = ServerMessage {
            message: "the server asks for a password, and the connection string has none"
                .to_owned(),
            sqlstate: "28P01".to_owned(),
            ..ServerMessage::default()
        };
        SourceError::Password {
            user: self.user.clone(),
            source: Box::new(source),
        }
    }

    fn refused(&self, body: &Bytes) -> SourceError {
        let source = Box::new(server_message(body));
        let user = self.user.clone();
        let about_replication = source.message.contains("replication")
            || source.message.contains("walsender")
            || source.message.contains("WAL sender");
        match source.sqlstate.as_str() {
            // 28000 comes for a missing line in pg_hba.conf, 42501 for a role without the right.
            "28000" | "42501" if about_replication => SourceError::Replication { user, source },
            "28P01" | "28000" => SourceError::Password { user, source },
            _ => SourceError::Refused { step: STEP, source },
        }
    }

    fn parameter(&mut self, body: &Bytes) {
        let mut fields = body.split(|byte| *byte == 0);
        if fields.next() == Some(b"server_version") {
            let text = String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            self.version = digits.parse().unwrap_or(0);
        }
    }
}
