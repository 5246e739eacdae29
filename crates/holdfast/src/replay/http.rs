//! One plain HTTP question to the rental pages.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::limits::{ANSWER_BYTES, ASK};

/// Tells whether the pages say that they can read and write: `GET /health` is answered with 200.
pub fn is_well(pages: SocketAddr) -> bool {
    matches!(status(pages, "/health"), Ok(200))
}

fn status(address: SocketAddr, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, ASK)?;
    stream.set_read_timeout(Some(ASK))?;
    stream.set_write_timeout(Some(ASK))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    status.ok_or_else(|| std::io::Error::other("the answer has no status"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn only_an_answer_of_200_is_well() {
        for (line, well) in [
            ("HTTP/1.1 200 OK", true),
            ("HTTP/1.1 503 Service Unavailable", false),
            ("nonsense", false),
            ("", false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let answering = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let _read = stream.read(&mut request).unwrap();
                stream.write_all(line.as_bytes()).unwrap();
            });
            assert_eq!(is_well(address), well, "{line}");
            answering.join().unwrap();
        }
    }
}
