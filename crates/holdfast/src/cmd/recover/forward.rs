//! `holdfast recover forward`: a small forwarder that can be pointed at another server.
//!
//! Where it points is a file in the state folder, so that it is told once and knows it after a restart.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use holdfast_core::Code;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::record;
use crate::cli::Shared;
use crate::cmd::block_on;
use crate::config::Config;
use crate::report::{Done, Failure, Output};

/// How often it is looked whether it points elsewhere.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a server may take to accept a connection.
const DIAL: Duration = Duration::from_secs(10);

/// Listens, and passes connections on.
#[derive(Debug, Args)]
pub struct Forward {
    /// Where it listens.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Where it points; what it was told last if absent.
    #[arg(long, value_name = "ADDR")]
    to: Option<SocketAddr>,
}

/// Points a forwarder at another server.
#[derive(Debug, Args)]
pub struct Point {
    /// Where the forwarder listens.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Where it points from now on.
    #[arg(long, value_name = "ADDR")]
    to: SocketAddr,
}

impl Forward {
    /// Runs until it is ended.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let config = shared.config()?;
        let file = file(&config, self.listen);
        if let Some(to) = self.to {
            point(&config, self.listen, to)?;
        }
        let first = told(&file).ok_or_else(|| {
            unusable("nobody has told it where to point", "say it with --to ADDR")
        })?;
        block_on(async move {
            let listener = TcpListener::bind(self.listen).await;
            let listener = listener.map_err(|error| {
                unusable(
                    &format!("cannot listen at {}: {error}", self.listen),
                    "name an address that is free",
                )
            })?;
            let value = json!({"listens": self.listen, "to": first});
            output.result(&value, || format!("{} leads to {first}", self.listen));
            serve(listener, file, first).await
        })
    }
}

impl Point {
    /// Tells it; connections to the old server are closed.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let config = shared.config()?;
        if told(&file(&config, self.listen)).is_none() {
            return Err(unusable(
                &format!("there is no forwarder of {}", self.listen),
                "begin one with `holdfast recover forward`",
            ));
        }
        point(&config, self.listen, self.to)?;
        let value = json!({"listens": self.listen, "to": self.to});
        output.result(&value, || format!("{} leads to {}", self.listen, self.to));
        Ok(())
    }
}

fn unusable(what: &str, hint: &str) -> Failure {
    Failure::new(Code::ZU381, what, hint)
}

fn file(config: &Config, listen: SocketAddr) -> PathBuf {
    let name = listen.to_string().replace([':', '[', ']', '.'], "-");
    config.vault_dir().join("forward").join(name)
}

fn told(file: &Path) -> Option<SocketAddr> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Records where it will point, then writes it where the forwarder looks.
fn point(config: &Config, listen: SocketAddr, to: SocketAddr) -> Result<(), Failure> {
    let body = json!({"listens": listen.to_string(), "to": to.to_string()});
    record(config, "recovery.pointed", &body)?;
    let file = file(config, listen);
    let written = || -> std::io::Result<()> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let fresh = file.with_extension("new");
        std::fs::write(&fresh, to.to_string())?;
        std::fs::rename(&fresh, &file)
    };
    written().map_err(|error| {
        unusable(
            &format!("cannot note where it points: {error}"),
            "look at the disk of the state folder",
        )
    })
}

async fn serve(listener: TcpListener, file: PathBuf, first: SocketAddr) -> Result<(), Failure> {
    let (tell, target) = watch::channel(first);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = told(&file);
            tell.send_if_modified(|target| match now {
                Some(now) if now != *target => {
                    *target = now;
                    true
                }
                _ => false,
            });
        }
    });
    let room = Arc::new(Semaphore::new(holdfast_vault::limits::FORWARD_CLIENTS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return Ok(());
        };
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
        };
        let target = target.clone();
        tokio::spawn(async move {
            let _permit = permit;
            pass(client, target).await;
        });
    }
}

/// Passes bytes both ways until one side ends or the forwarder points elsewhere.
async fn pass(mut client: TcpStream, mut target: watch::Receiver<SocketAddr>) {
    let to = *target.borrow_and_update();
    let dialled = tokio::time::timeout(DIAL, TcpStream::connect(to)).await;
    let Ok(Ok(mut server)) = dialled else {
        tracing::warn!(%to, "nobody answers");
        return;
    };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        // The old server is not the source any more.
        _ = target.changed() => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn answers(word: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(word.as_bytes()).await.unwrap();
                tokio::spawn(async move {
                    let mut rest = [0; 16];
                    let _ = stream.read(&mut rest).await;
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn a_forwarder_that_points_elsewhere_ends_what_led_to_the_old_server() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("to");
        let (old, new) = (answers("old").await, answers("new").await);
        std::fs::write(&file, old.to_string()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, file.clone(), old));
        let mut word = [0; 3];
        let mut first = TcpStream::connect(address).await.unwrap();
        first.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"old");
        std::fs::write(&file, new.to_string()).unwrap();
        assert_eq!(first.read(&mut word).await.unwrap_or(0), 0, "it is closed");
        let mut second = TcpStream::connect(address).await.unwrap();
        second.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"new");
    }
}
