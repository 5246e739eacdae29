//! Connection strings: `postgresql://user:password@host:port/database?sslmode=…`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use holdfast_core::{Code, Coded, Secret, Untrusted};

/// How the connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Encrypted when the server offers it; protects against nobody who can change packets.
    #[default]
    Prefer,
    /// Always, without looking at the certificate.
    Require,
    /// Always, and the certificate must be of a known authority, whatever host it names.
    VerifyCa,
    /// Always, and the certificate must be of a known authority and name the host.
    VerifyFull,
}

/// Whether a login must be bound to the encrypted connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// When the server offers it.
    #[default]
    Prefer,
    /// Always.
    Require,
}

/// A parsed connection string. The password is never shown.
#[derive(Clone)]
pub struct ConnectionUrl {
    /// Name or address of the server.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Role to connect as.
    pub user: String,
    /// Its password, if any.
    pub password: Option<Secret>,
    /// Database for ordinary questions.
    pub database: String,
    /// Encryption.
    pub ssl: SslMode,
    /// A PEM file with the authorities to trust instead of the system's.
    pub root_certificate: Option<PathBuf>,
    /// Whether a login must be bound to the encrypted connection.
    pub binding: ChannelBinding,
}

impl fmt::Debug for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for ConnectionUrl {
    /// Writes everything but the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "postgresql://{}@{}:{}/{}",
            Untrusted(&self.user),
            Untrusted(&self.host),
            self.port,
            Untrusted(&self.database)
        )
    }
}

/// Why a text is not a connection string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the connection string is not usable: {0}")]
pub struct UrlError(&'static str);

impl Coded for UrlError {
    fn code(&self) -> Code {
        Code::ZU303
    }

    fn hint(&self) -> Option<String> {
        Some(
            "write it as `postgresql://user:password@host:5432/database?sslmode=require`"
                .to_owned(),
        )
    }
}

impl FromStr for ConnectionUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let rest = text
            .strip_prefix("postgresql://")
            .or_else(|| text.strip_prefix("postgres://"))
            .ok_or(UrlError("it does not begin with `postgresql://`"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = authority
            .rsplit_once('@')
            .ok_or(UrlError("it names no user"))?;
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (decode(user)?, Some(Secret::new(decode(password)?))),
            None => (decode(login)?, None),
        };
        if user.is_empty() {
            return Err(UrlError("it names no user"));
        }
        let (host, port) = place_of(place)?;
        let database = match decode(database)? {
            name if name.is_empty() => "postgres".to_owned(),
            name => name,
        };
        let mut url = Self {
            host,
            port,
            user,
            password,
            database,
            ssl: SslMode::default(),
            root_certificate: None,
            binding: ChannelBinding::default(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            url.option(key, &decode(value)?)?;
        }
        let texts = [&url.host, &url.user, &url.database];
        if texts.iter().any(|text| text.contains('\0')) {
            return Err(UrlError("it contains a zero byte"));
        }
        Ok(url)
    }
}

impl ConnectionUrl {
    /// Returns `host:port`.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn option(&mut self, key: &str, value: &str) -> Result<(), UrlError> {
        match key {
            "sslmode" => {
                self.ssl = match value {
                    "disable" => SslMode::Disable,
                    "allow" | "prefer" => SslMode::Prefer,
                    "require" => SslMode::Require,
                    "verify-full" => SslMode::VerifyFull,
                    "verify-ca" => SslMode::VerifyCa,
                    _ => {
                        return Err(UrlError(
                            "`sslmode` is disable, prefer, require, verify-ca or verify-full",
                        ));
                    }
                };
            }
            // `system` is what is trusted when nothing is named.
            "sslrootcert" => {
                self.root_certificate = (value != "system").then(|| PathBuf::from(value));
            }
            "channel_binding" => {
                self.binding = match value {
                    "disable" => ChannelBinding::Disable,
                    "prefer" => ChannelBinding::Prefer,
                    "require" => ChannelBinding::Require,
                    _ => {
                        return Err(UrlError("`channel_binding` is disable, prefer or require"));
                    }
                };
            }
            // They have a meaning for other clients and none for replication.
            "application_name" | "connect_timeout" | "options" => {}
            _ => return Err(UrlError("it has a parameter that is not supported")),
        }
        Ok(())
    }
}

fn place_of(place: &str) -> Result<(String, u16), UrlError> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest
                .split_once(']')
                .ok_or(UrlError("the host has no closing bracket"))?;
            (host, port.strip_prefix(':').unwrap_or_default())
        }
        None => place.rsplit_once(':').unwrap_or((place, "")),
    };
    let host = decode(host)?;
    if host.is_empty() || host.contains(',') || host.contains('/') {
        return Err(UrlError("it must name exactly one host by name or address"));
    }
    let port = match port {
        "" => 5432,
        port => port
            .parse()
            .map_err(|_| UrlError("the port is not a number"))?,
    };
    Ok((host, port))
}

fn decode(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let bad = UrlError("a percent sign is not followed by two hexadecimal digits");
        let (digits, tail) = rest.split_at_checked(2).ok_or_else(|| bad.clone())?;
        let digits = std::str::from_utf8(digits).map_err(|_| bad.clone())?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad)?);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| UrlError("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_read_and_the_password_is_not_shown() {
        let url: ConnectionUrl =
            "postgres://ho%40ld:p%3Aw%2F@db.example:6432/app?sslmode=verify-full"
                .parse()
                .unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.user.as_str()),
            ("db.example", 6432, "ho@ld")
        );
        assert_eq!(
            url.password.as_ref().map(|p| p.expose().to_owned()),
            Some("p:w/".to_owned())
        );
        assert_eq!(url.ssl, SslMode::VerifyFull);
        assert!(!format!("{url} {url:?}").contains("p:w"));
        let short: ConnectionUrl = "postgresql://u@[::1]".parse().unwrap();
        assert_eq!(
            (short.address().as_str(), short.database.as_str()),
            ("[::1]:5432", "postgres")
        );
    }

    #[test]
    fn strings_that_are_not_one_server_are_refused() {
        for text in [
            "",
            "host=x user=y",
            "postgres://host/db",
            "postgres://@host/",
            "postgres://u@/db",
            "postgres://u@a,b/db",
            "postgres://u@h:x/db",
            "postgres://u@h:70000/",
            "postgres://u@h/?sslmode=maybe",
            "postgres://u@h/?channel_binding=maybe",
            "postgres://u:%zz@h/",
            "postgres://u:%4@h/",
            "postgres://u@h/?weird=1",
            "postgres://u@%2Ftmp/db",
            "postgres://u%00@h/",
        ] {
            assert!(text.parse::<ConnectionUrl>().is_err(), "{text}");
        }
    }
}
