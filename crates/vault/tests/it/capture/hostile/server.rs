//! A server that speaks just enough of the protocol to lie.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::tar::{ENDLESS, Entry, archive};

/// What it lies about.
#[derive(Clone, Copy)]
pub enum Lie {
    /// An archive with these entries.
    Base(&'static [Entry]),
    /// An archive of an unknown name.
    ArchiveName,
    /// Notices instead of a base backup, without end.
    BaseNotices,
    /// A row with more columns than there can be.
    Columns,
    /// Pages that are in their place, and no records in them.
    Damaged,
    /// One byte at a time, for ever.
    Drip,
    /// Log from another position than was asked for.
    Elsewhere,
    /// A log that ends where numbers do.
    LastPosition,
    /// A file of eight gigabytes in a base of which nothing was announced.
    Endless,
    /// A message of four gigabytes.
    LongFrame,
    /// A backup manifest without end.
    Manifest,
    /// Notices instead of log, without end.
    Notices,
    /// No system identifier.
    NoSystem,
    /// Bytes that are no log.
    Noise,
    /// Settings without end instead of a log-in.
    Parameters,
    /// Results without end instead of a base backup.
    Results,
    /// Rows without end.
    Rows,
    /// A size of segments that cannot be.
    SegmentSize,
    /// A second stream of archives.
    TwoCopies,
    /// A message inside the stream that no version has.
    UnknownMessage,
    /// A message of 31 MiB, of which only the beginning comes.
    WideFrame,
}

/// A lying server; it ends with this value.
pub struct Fake {
    address: SocketAddr,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    closed: bool,
    connections: Vec<TcpStream>,
}

impl Fake {
    pub fn start(lie: Lie) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let open = Arc::new(Mutex::new(Open::default()));
        let shared = Arc::clone(&open);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut open = shared.lock().unwrap();
                if open.closed {
                    return;
                }
                open.connections.push(client.try_clone().unwrap());
                std::thread::spawn(move || {
                    // A client that has enough hangs up.
                    let _ = Session { client, lie }.serve();
                });
            }
        });
        Self { address, open }
    }

    pub fn url(&self) -> String {
        format!(
            "postgres://u:p@127.0.0.1:{}/postgres?sslmode=disable",
            self.address.port()
        )
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap();
        open.closed = true;
        for connection in open.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(open);
        let _ = TcpStream::connect(self.address);
    }
}

struct Session {
    client: TcpStream,
    lie: Lie,
}

const FROM: u64 = 0x0200_0000;

impl Session {
    fn serve(&mut self) -> io::Result<()> {
        self.client.set_nodelay(true)?;
        let mut length = [0; 4];
        self.client.read_exact(&mut length)?;
        let mut startup = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() - 4];
        self.client.read_exact(&mut startup)?;
        if let Lie::Drip = self.lie {
            // A notice that never ends, slowly enough to look alive.
            self.client.write_all(b"N\0\0\x40\0")?;
            loop {
                self.client.write_all(b"x")?;
                // WAIT: the pace of the lie.
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.send(b'R', &0_u32.to_be_bytes())?;
        if let Lie::Parameters = self.lie {
            loop {
                self.send(b'S', b"search_path\0everywhere\0")?;
            }
        }
        self.send(b'S', b"server_version\x0018.0\0")?;
        self.send(b'Z', b"I")?;
        loop {
            let mut head = [0; 5];
            self.client.read_exact(&mut head)?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let mut body = vec![0; usize::try_from(length).unwrap() - 4];
            self.client.read_exact(&mut body)?;
            if head[0] == b'Q' {
                self.answer(&String::from_utf8_lossy(&body))?;
            }
        }
    }

    fn answer(&mut self, query: &str) -> io::Result<()> {
        if query.starts_with("IDENTIFY_SYSTEM") {
            self.identify()
        } else if query.starts_with("SHOW wal_segment_size") {
            let size = if matches!(self.lie, Lie::SegmentSize) {
                "3MB"
            } else {
                "16MB"
            };
            self.rows(&["wal_segment_size"], &[size])
        } else if query.starts_with("READ_REPLICATION_SLOT") {
            self.rows(
                &["slot_type", "restart_lsn", "restart_tli"],
                &["physical", "0/2000000", "1"],
            )
        } else if query.starts_with("START_REPLICATION") {
            self.stream()
        } else if query.starts_with("BASE_BACKUP") {
            self.base()
        } else {
            self.rows(&["nothing"], &["0"])
        }
    }

    fn identify(&mut self) -> io::Result<()> {
        let columns = ["systemid", "timeline", "xlogpos", "dbname"];
        match self.lie {
            Lie::Columns => self.send(b'D', &u16::MAX.to_be_bytes()),
            Lie::LastPosition => self.rows(&columns, &["7", "1", "FFFFFFFF/FFFFFFFF", ""]),
            Lie::NoSystem => self.rows(&columns, &["no number", "1", "0/2000100", ""]),
            Lie::Rows => loop {
                let mut row = vec![0, 1, 0, 1, 0, 0];
                row.resize(6 + 65_536, b'x');
                self.send(b'D', &row)?;
            },
            _ => self.rows(&columns, &["7", "1", "0/2000100", ""]),
        }
    }

    fn stream(&mut self) -> io::Result<()> {
        self.send(b'W', &[0, 0, 0])?;
        match self.lie {
            Lie::Noise => self.log(FROM, |at| (at / 3 % 251).to_le_bytes()[0] | 1),
            Lie::Elsewhere => self.log(FROM + 0x0100_0000, |_| 0),
            Lie::Damaged => self.damaged(),
            Lie::LongFrame => self.client.write_all(b"d\xFF\xFF\xFF\xFF"),
            Lie::WideFrame => self.client.write_all(b"d\x01\xF0\0\0"),
            Lie::UnknownMessage => self.send(b'd', b"zzz"),
            Lie::Notices => loop {
                self.send(b'N', b"SNOTICE\0Mhello\0\0")?;
            },
            _ => self.alive(),
        }?;
        self.alive()
    }

    /// Keeps the stream open, as an idle server does.
    fn alive(&mut self) -> io::Result<()> {
        loop {
            let mut keepalive = vec![b'k'];
            keepalive.extend(0x0200_0100_u64.to_be_bytes());
            keepalive.extend([0; 9]);
            self.send(b'd', &keepalive)?;
            // WAIT: the pace of an idle server.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn log(&mut self, from: u64, byte: impl Fn(u64) -> u8) -> io::Result<()> {
        const PIECE: u64 = 128 << 10;
        for piece in 0_u64.. {
            let start = from + piece * PIECE;
            let bytes: Vec<u8> = (start..start + PIECE).map(&byte).collect();
            self.wal(start, &bytes)?;
        }
        Ok(())
    }

    /// One page after another in its place, and noise where records would be.
    fn damaged(&mut self) -> io::Result<()> {
        let mut page = vec![0x5A; 8192];
        page[..2].copy_from_slice(&0xD118_u16.to_le_bytes());
        page[2..4].copy_from_slice(&2_u16.to_le_bytes());
        page[4..8].copy_from_slice(&1_u32.to_le_bytes());
        page[8..16].copy_from_slice(&FROM.to_le_bytes());
        page[16..24].fill(0);
        page[24..32].copy_from_slice(&7_u64.to_le_bytes());
        page[32..36].copy_from_slice(&(16_u32 << 20).to_le_bytes());
        page[36..40].copy_from_slice(&8192_u32.to_le_bytes());
        self.wal(FROM, &page)
    }

    fn wal(&mut self, start: u64, bytes: &[u8]) -> io::Result<()> {
        let mut message = vec![b'w'];
        message.extend(start.to_be_bytes());
        message.extend((start + 1).to_be_bytes());
        message.extend([0; 8]);
        message.extend(bytes);
        self.send(b'd', &message)
    }

    fn base(&mut self) -> io::Result<()> {
        match self.lie {
            Lie::BaseNotices => loop {
                self.send(b'N', b"SNOTICE\0Mhello\0\0")?;
            },
            Lie::Results => loop {
                self.describe(&["recptr", "tli"])?;
            },
            Lie::Base(_) | Lie::Endless | Lie::ArchiveName | Lie::Manifest | Lie::TwoCopies => {}
            // Whoever lies about the log takes its time with the base.
            _ => {
                let mut byte = [0];
                return self.client.read_exact(&mut byte);
            }
        }
        self.rows_only(&["recptr", "tli"], &["0/2000028", "1"])?;
        self.describe(&["spcoid", "spclocation", "size"])?;
        self.send(b'C', b"SELECT\0")?;
        self.send(b'H', &[0, 0, 0])?;
        if let Lie::TwoCopies = self.lie {
            self.send(b'H', &[0, 0, 0])?;
        }
        let name = match self.lie {
            Lie::ArchiveName => "../../victim.tar",
            _ => "base.tar",
        };
        self.send(b'd', format!("n{name}\0\0").as_bytes())?;
        if let Lie::Base(entries) = self.lie {
            self.data(&archive(entries))?;
        }
        if let Lie::Endless = self.lie {
            self.data(&archive(ENDLESS)[..512])?;
            let zeros = vec![0; 1 << 20];
            loop {
                self.data(&zeros)?;
            }
        }
        self.send(b'd', b"m")?;
        if let Lie::Manifest = self.lie {
            let text = vec![b' '; 1 << 20];
            loop {
                self.data(&text)?;
            }
        }
        self.data(b"{ \"PostgreSQL-Backup-Manifest-Version\": 2 }\n")?;
        self.send(b'c', b"")?;
        self.rows_only(&["recptr", "tli"], &["0/2000100", "1"])?;
        self.send(b'C', b"BASE_BACKUP\0")?;
        self.send(b'Z', b"I")
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send(b'd', &[b"d", bytes].concat())
    }

    fn rows(&mut self, columns: &[&str], values: &[&str]) -> io::Result<()> {
        self.rows_only(columns, values)?;
        self.send(b'Z', b"I")
    }

    fn rows_only(&mut self, columns: &[&str], values: &[&str]) -> io::Result<()> {
        self.describe(columns)?;
        let mut row = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
        for value in values {
            row.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            row.extend(value.as_bytes());
        }
        self.send(b'D', &row)?;
        self.send(b'C', b"SELECT 1\0")
    }

    fn describe(&mut self, columns: &[&str]) -> io::Result<()> {
        let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        for column in columns {
            body.extend(column.as_bytes());
            body.extend([0; 19]);
        }
        self.send(b'T', &body)
    }

    fn send(&mut self, tag: u8, body: &[u8]) -> io::Result<()> {
        let mut message = vec![tag];
        message.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        message.extend(body);
        self.client.write_all(&message)
    }
}
