//! A door from 127.0.0.1 to a server that has no network: bytes are passed on as they come.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::CloneError;
use super::folder::failed;
use super::settings::SOCKET_PORT;
use crate::limits;

/// The door of a clone; it closes when it is dropped.
pub(super) struct Forward {
    /// Where it listens on 127.0.0.1.
    pub(super) port: u16,
    runtime: Option<Runtime>,
    stop: CancellationToken,
}

impl Forward {
    /// Opens a door on `port`, or on a free one when it is 0, to the socket in `sockets`.
    pub(super) fn open(port: u16, sockets: &Path) -> Result<Self, CloneError> {
        let at = PathBuf::from(format!("127.0.0.1:{port}"));
        let refused = |error| failed("listen at", &at, error);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(limits::CLONE_FORWARD_THREADS)
            .thread_name("holdfast-clone-door")
            .enable_all()
            .build()
            .map_err(refused)?;
        let listener = runtime
            .block_on(TcpListener::bind(SocketAddr::from((
                Ipv4Addr::LOCALHOST,
                port,
            ))))
            .map_err(refused)?;
        let port = listener.local_addr().map_err(refused)?.port();
        let stop = CancellationToken::new();
        let socket = sockets.join(format!(".s.PGSQL.{SOCKET_PORT}"));
        runtime.spawn(accept(listener, Arc::from(socket), stop.clone()));
        Ok(Self {
            port,
            runtime: Some(runtime),
            stop,
        })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, socket: Arc<Path>, stop: CancellationToken) {
    let seats = Arc::new(Semaphore::new(limits::CLONE_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, as a rule: they come back when connections end.
            tokio::time::sleep(limits::CLONE_POLL).await;
            continue;
        };
        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
            // Closing says it; the server itself would refuse long before.
            continue;
        };
        let (socket, stop) = (Arc::clone(&socket), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = pass(stream, &socket) => {}
            }
            drop(seat);
        });
    }
}

async fn pass(mut stream: TcpStream, socket: &Path) {
    let _ = stream.set_nodelay(true);
    if let Ok(mut server) = UnixStream::connect(socket).await {
        // Whichever side ends first, the other learns it by its connection's end.
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
    }
}
