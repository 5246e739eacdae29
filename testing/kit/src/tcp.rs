//! A TCP proxy that misbehaves on command.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Forwards bytes between clients and a target until it is told to do worse.
///
/// It works on bytes, not messages: a cut may fall in the middle of anything.
/// Dropping it closes its port and all connections.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// The way bytes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the target to the client.
    ToClient,
    /// From the client to the target.
    ToTarget,
}

/// How many bytes have been forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Bytes from targets to clients.
    pub to_client: u64,
    /// Bytes from clients to targets.
    pub to_target: u64,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    CutAfter(Direction, u64),
    Delay(Duration),
    Pass,
    Refuse,
    Stall,
}

#[derive(Debug)]
struct State {
    rule: Rule,
    target: SocketAddr,
    carried: Carried,
    connections: Vec<Connection>,
    opened: u64,
    closed: bool,
    forged: Option<Forged>,
}

/// Bytes to a client that are to become others, once.
#[derive(Debug)]
struct Forged {
    find: Vec<u8>,
    with: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    client: TcpStream,
    target: TcpStream,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl FaultProxy {
    /// Listens on a port of 127.0.0.1 chosen by the system and forwards to `target`.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("open a port")?;
        let address = listener.local_addr().context("learn the port")?;
        let state = State {
            rule: Rule::Pass,
            target,
            carried: Carried::default(),
            connections: Vec::new(),
            opened: 0,
            closed: false,
            forged: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &accepting));
        Ok(Self { address, shared })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port on 127.0.0.1 where clients connect.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Forwards everything again; stalled bytes flow on.
    pub fn pass(&self) {
        self.rule(Rule::Pass);
    }

    /// Closes all connections now; new ones are treated as before.
    pub fn cut(&self) {
        self.shared.lock().cut();
        self.shared.changed.notify_all();
    }

    /// Closes all connections now, and each new one at once.
    pub fn refuse(&self) {
        self.rule(Rule::Refuse);
        self.cut();
    }

    /// Forwards exactly `bytes` more in one direction, over all connections together, then behaves
    /// as after [`FaultProxy::refuse`].
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.rule(Rule::CutAfter(direction, bytes));
    }

    /// Keeps connections open and forwards nothing.
    pub fn stall(&self) {
        self.rule(Rule::Stall);
    }

    /// Holds each piece of data back for this long, in both directions.
    pub fn delay(&self, by: Duration) {
        self.rule(Rule::Delay(by));
    }

    /// Sends new connections somewhere else.
    pub fn retarget(&self, target: SocketAddr) {
        self.shared.lock().target = target;
    }

    /// Puts other bytes in place of some on their way to a client, the first time that they come in one
    /// piece.
    pub fn forge(&self, find: &[u8], with: &[u8]) {
        assert_eq!(find.len(), with.len(), "nothing may move");
        self.shared.lock().forged = Some(Forged {
            find: find.to_vec(),
            with: with.to_vec(),
        });
    }

    /// Whether what was to be forged has come and gone.
    #[must_use]
    pub fn has_forged(&self) -> bool {
        self.shared.lock().forged.is_none()
    }

    /// The bytes forwarded so far.
    #[must_use]
    pub fn carried(&self) -> Carried {
        self.shared.lock().carried
    }

    /// How many connections have been accepted so far, refused ones included.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.shared.lock().opened
    }

    fn rule(&self, rule: Rule) {
        self.shared.lock().rule = rule;
        self.shared.changed.notify_all();
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.cut();
        // Wakes the accepting thread, which then sees that the proxy is closed.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until bytes may flow and returns how many of `wanted`; 0 means: cut.
    fn admit(&self, direction: Direction, wanted: u64, arrived: Instant) -> u64 {
        let mut state = self.lock();
        loop {
            if state.closed {
                return 0;
            }
            match state.rule {
                Rule::Pass => return state.carry(direction, wanted),
                Rule::Refuse => return 0,
                Rule::Stall => {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                Rule::Delay(by) => match by.checked_sub(arrived.elapsed()) {
                    None | Some(Duration::ZERO) => return state.carry(direction, wanted),
                    Some(rest) => {
                        let waited = self.changed.wait_timeout(state, rest);
                        state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    }
                },
                Rule::CutAfter(limited, left) if limited == direction => {
                    let now = wanted.min(left);
                    state.rule = Rule::CutAfter(limited, left - now);
                    return state.carry(direction, now);
                }
                Rule::CutAfter(..) => return state.carry(direction, wanted),
            }
        }
    }

    /// Cuts everything once a byte limit is used up.
    fn cut_if_spent(&self) {
        let mut state = self.lock();
        if matches!(state.rule, Rule::CutAfter(_, 0)) {
            state.rule = Rule::Refuse;
            state.cut();
            self.changed.notify_all();
        }
    }

    fn forget(&self, number: u64) {
        self.lock()
            .connections
            .retain(|connection| connection.number != number);
    }
}

impl State {
    fn forge(&mut self, bytes: &mut [u8]) {
        let Some(Forged { find, with }) = &self.forged else {
            return;
        };
        let at = bytes.windows(find.len()).position(|part| part == find);
        if let Some(part) = at.and_then(|at| bytes.get_mut(at..)?.get_mut(..with.len())) {
            part.copy_from_slice(with);
            self.forged = None;
        }
    }

    fn carry(&mut self, direction: Direction, bytes: u64) -> u64 {
        match direction {
            Direction::ToClient => self.carried.to_client += bytes,
            Direction::ToTarget => self.carried.to_target += bytes,
        }
        bytes
    }

    fn cut(&mut self) {
        for connection in self.connections.drain(..) {
            // A side that is already closed is as cut as it can be.
            let _ = connection.client.shutdown(Shutdown::Both);
            let _ = connection.target.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let admitted = {
            let mut state = shared.lock();
            if state.closed {
                return;
            }
            state.opened += 1;
            let refused = matches!(state.rule, Rule::Refuse);
            (!refused).then_some((state.opened, state.target))
        };
        if let (Ok(client), Some((number, target))) = (client, admitted) {
            let shared = Arc::clone(shared);
            // A target that refuses shows as a closed connection, as with any proxy.
            std::thread::spawn(move || drop(serve(number, client, target, &shared)));
        }
    }
}

fn serve(
    number: u64,
    client: TcpStream,
    target: SocketAddr,
    shared: &Arc<Shared>,
) -> std::io::Result<()> {
    let target = TcpStream::connect(target)?;
    client.set_nodelay(true)?;
    target.set_nodelay(true)?;
    let kept = Connection {
        number,
        client: client.try_clone()?,
        target: target.try_clone()?,
    };
    shared.lock().connections.push(kept);
    let (other_client, other_target) = (client.try_clone()?, target.try_clone()?);
    let other_shared = Arc::clone(shared);
    let back = std::thread::spawn(move || {
        pump(
            other_target,
            other_client,
            Direction::ToClient,
            &other_shared,
        );
    });
    pump(client, target, Direction::ToTarget, shared);
    let _ = back.join();
    shared.forget(number);
    Ok(())
}

fn pump(mut from: TcpStream, mut to: TcpStream, direction: Direction, shared: &Shared) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        if read == 0 {
            // One side closed its half: the other half may still carry the answer.
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        if direction == Direction::ToClient
            && let Some(bytes) = buffer.get_mut(..read)
        {
            shared.lock().forge(bytes);
        }
        let wanted = u64::try_from(read).unwrap_or(u64::MAX);
        let admitted = shared.admit(direction, wanted, Instant::now());
        let now = usize::try_from(admitted).unwrap_or(0);
        let written = to.write_all(buffer.get(..now).unwrap_or_default());
        shared.cut_if_spent();
        if written.is_err() || now < read {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
}

const BUFFER_BYTES: usize = 64 * 1024;
