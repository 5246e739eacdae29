use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use holdfast_testing::postgres::{self, Server};
use holdfast_testing::tcp::{Direction, FaultProxy};

/// A server that sends back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

fn connect(proxy: &FaultProxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

fn round_trip(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
}

fn is_cut(stream: &mut TcpStream) -> bool {
    // An end or a reset; a time-out would be another kind of error.
    match stream.read(&mut [0; 16]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn bytes_pass_and_are_counted() {
    let proxy = FaultProxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"hello");
    assert_eq!(
        (proxy.carried().to_target, proxy.carried().to_client),
        (5, 5)
    );
    assert_eq!(proxy.opened(), 1);
}

#[test]
fn a_cut_closes_what_is_open_and_new_connections_work() {
    let proxy = FaultProxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"hello");
    proxy.cut();
    assert!(is_cut(&mut stream));
    round_trip(&mut connect(&proxy), b"again");
}

#[test]
fn a_refusing_proxy_closes_new_connections_until_it_passes() {
    let proxy = FaultProxy::start(echo()).unwrap();
    proxy.refuse();
    assert!(is_cut(&mut connect(&proxy)));
    proxy.pass();
    round_trip(&mut connect(&proxy), b"again");
}

#[test]
fn a_limit_cuts_in_the_middle_of_a_message() {
    let proxy = FaultProxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    proxy.cut_after(Direction::ToClient, 3);
    stream.write_all(b"hello").unwrap();
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    assert_eq!(back, b"hel");
    assert!(is_cut(&mut connect(&proxy)));
}

#[test]
fn stalled_bytes_arrive_once_it_passes() {
    let proxy = FaultProxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"hello");
    proxy.stall();
    stream.write_all(b"later").unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    assert!(stream.read(&mut [0; 8]).is_err());
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    proxy.pass();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"later");
}

#[test]
fn delayed_bytes_arrive_late() {
    let proxy = FaultProxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    let by = Duration::from_millis(40);
    proxy.delay(by);
    let started = Instant::now();
    round_trip(&mut stream, b"hello");
    assert!(started.elapsed() >= by * 2);
}

#[test]
fn a_new_target_serves_new_connections() {
    let proxy = FaultProxy::start((Ipv4Addr::LOCALHOST, 1).into()).unwrap();
    assert!(is_cut(&mut connect(&proxy)));
    proxy.retarget(echo());
    round_trip(&mut connect(&proxy), b"hello");
}

#[tokio::test]
async fn a_database_connection_is_cut_through_the_proxy() {
    let server = Server::builder(&postgres::newest().unwrap())
        .fast()
        .start()
        .unwrap();
    let proxy = FaultProxy::start((Ipv4Addr::LOCALHOST, server.port()).into()).unwrap();
    let url = server
        .url()
        .replace(&server.port().to_string(), &proxy.port().to_string());
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    let task = tokio::spawn(connection);
    client.simple_query("SELECT 1").await.unwrap();
    proxy.cut();
    let _ = task.await.unwrap();
    assert!(client.simple_query("SELECT 1").await.is_err());
}
