//! Watches from outside whether the data is still there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use super::limits::{ASK, LOOK_EVERY};
use super::process::Enough;
use super::stage::Stage;
use super::trouble::Trouble;

/// A thread that asks the database again and again, until its data is gone.
#[derive(Debug)]
pub struct Watch {
    gone: Receiver<Instant>,
    seen: Option<Instant>,
    end: Arc<AtomicBool>,
}

/// What one look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// The data is not there: the server is away, or it says that what was asked for does not exist.
    Gone,
    /// It cannot be told now.
    Unclear,
    /// It is there.
    There,
}

impl Watch {
    /// Begins to look, as the owner of the database.
    ///
    /// # Errors
    /// [`Trouble::System`].
    pub fn begin(database_url: &str, probe: &str) -> Result<Self, Trouble> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Trouble::system("start a thread that watches"))?;
        let (tell, gone) = channel();
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let (url, probe) = (database_url.to_owned(), probe.to_owned());
        std::thread::spawn(move || {
            let seen = runtime.block_on(until_gone(&url, &probe, &ended));
            if let Some(at) = seen {
                let _nobody_waits = tell.send(at);
            }
        });
        Ok(Self {
            gone,
            seen: None,
            end,
        })
    }

    /// Waits until the data is gone and returns when that was first seen; `None` when it is still there
    /// after `limit`.
    ///
    /// # Errors
    /// [`Trouble::Stopped`].
    pub fn wait_gone(
        &mut self,
        stage: &Stage,
        limit: Duration,
    ) -> Result<Option<Instant>, Trouble> {
        stage.stop.poll(limit, || {
            self.sees_gone();
            Ok(self.seen)
        })
    }

    /// Tells whether the data was seen to be gone.
    pub fn sees_gone(&mut self) -> Enough {
        self.seen = self.seen.or_else(|| self.gone.try_recv().ok());
        match self.seen {
            Some(_) => Enough::Yes,
            None => Enough::No,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
    }
}

/// Looks until two looks in a row found the data gone; returns when the first of them was.
async fn until_gone(url: &str, probe: &str, end: &AtomicBool) -> Option<Instant> {
    let mut client = None;
    let mut first = None;
    while !end.load(Ordering::SeqCst) {
        let now = Instant::now();
        let look = tokio::time::timeout(ASK, look(url, probe, &mut client));
        match (look.await.unwrap_or(Look::Unclear), first) {
            (Look::Gone, Some(first)) => return Some(first),
            (Look::Gone, None) => first = Some(now),
            (Look::There, _) => first = None,
            (Look::Unclear, _) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    None
}

async fn look(url: &str, probe: &str, kept: &mut Option<Client>) -> Look {
    let client = match kept.take() {
        Some(client) => client,
        None => match tokio_postgres::connect(url, NoTls).await {
            Ok((client, connection)) => {
                // It ends with its client or with the server; both show in the next question.
                tokio::spawn(async move { drop(connection.await) });
                client
            }
            Err(error) => return meaning(&error),
        },
    };
    match client.simple_query(probe).await {
        Ok(_) => {
            *kept = Some(client);
            Look::There
        }
        Err(error) => meaning(&error),
    }
}

/// Says what an error of the database means for the data.
fn meaning(error: &tokio_postgres::Error) -> Look {
    let Some(code) = error.code() else {
        // No answer of PostgreSQL at all: the connection is refused or broke.
        return Look::Gone;
    };
    match code.code() {
        // SOURCE: PostgreSQL, appendix A: no such table, column, schema, database.
        "42P01" | "42703" | "3F000" | "3D000" => Look::Gone,
        _ => Look::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_testing::postgres::{self, Server};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn data_is_gone_when_its_table_or_its_server_is() {
        let installation = postgres::newest().unwrap();
        let mut server = Server::builder(&installation).fast().start().unwrap();
        let runtime = runtime();
        let url = server.url();
        let probe = "SELECT 1 FROM bookings LIMIT 1";
        let mut kept = None;
        let sql = |sql: &str| {
            runtime.block_on(async {
                let client = server.connect().await.unwrap();
                client.batch_execute(sql).await.unwrap();
            });
        };
        sql("CREATE TABLE bookings (id int)");
        assert_eq!(runtime.block_on(look(&url, probe, &mut kept)), Look::There);
        assert_eq!(runtime.block_on(look(&url, probe, &mut kept)), Look::There);
        sql("DROP SCHEMA public CASCADE");
        assert_eq!(runtime.block_on(look(&url, probe, &mut kept)), Look::Gone);
        let denied = "SELECT 1 / 0";
        assert_eq!(
            runtime.block_on(look(&url, denied, &mut kept)),
            Look::Unclear
        );
        server.kill_9().unwrap();
        let never = AtomicBool::new(false);
        let gone = runtime.block_on(until_gone(&url, "SELECT 1", &never));
        assert!(gone.is_some());
    }

    #[test]
    fn a_watch_that_is_dropped_ends() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("postgresql://x@{}/x", listener.local_addr().unwrap());
        let end = AtomicBool::new(true);
        assert!(
            runtime()
                .block_on(until_gone(&url, "SELECT 1", &end))
                .is_none()
        );
    }
}
