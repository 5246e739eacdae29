//! A server that PostgreSQL's own programs start on a directory, without Holdfast.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_testing::ports::ReservedPort;
use holdfast_testing::postgres::{Installation, ServerUser};

use crate::kept;

const LIMIT: Duration = Duration::from_secs(60);

pub struct Stock {
    directory: PathBuf,
    pg_ctl: PathBuf,
    user: ServerUser,
    port: ReservedPort,
    password: String,
}

impl Stock {
    /// Gives the directory to the account that runs servers, and starts one with `pg_ctl`.
    pub fn start(installation: &Installation, directory: &Path, password: &str) -> Self {
        let user = ServerUser::current().unwrap();
        user.own_tree(directory).unwrap();
        let stock = Self {
            directory: directory.to_owned(),
            pg_ctl: installation.program("pg_ctl"),
            user,
            port: ReservedPort::take().unwrap(),
            password: password.to_owned(),
        };
        let log = directory.join("stock.log");
        let options = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1",
            stock.port.number(),
            directory.display()
        );
        let started = user
            .command(&stock.pg_ctl)
            .arg("start")
            .arg("-D")
            .arg(directory)
            .args(["-w", "-t", "60", "-s", "-o", &options, "-l"])
            .arg(&log)
            .status()
            .unwrap();
        let told = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(started.success(), "{told}");
        let began = Instant::now();
        while kept::try_ask(&stock.url(), "SELECT pg_is_in_recovery()::text").ok()
            != Some("false".to_owned())
        {
            assert!(
                began.elapsed() < LIMIT,
                "{}",
                std::fs::read_to_string(&log).unwrap()
            );
            // WAIT: a server that replays admits nobody and announces nothing.
            std::thread::sleep(Duration::from_millis(20));
        }
        stock
    }

    pub fn ask(&self, sql: &str) -> String {
        kept::ask(&self.url(), sql)
    }

    fn url(&self) -> String {
        format!(
            "postgres://postgres:{}@127.0.0.1:{}/postgres",
            self.password,
            self.port.number()
        )
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        let _ = self
            .user
            .command(&self.pg_ctl)
            .args(["stop", "-m", "immediate", "-w", "-s", "-D"])
            .arg(&self.directory)
            .status();
    }
}
