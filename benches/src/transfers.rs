//! Blobs over TCP, against the least that a file server can do (the kernel sends the file) and
//! against reading the file.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln::client::{Address, Client, ClientError};
use kiln_storage::Digest;

use crate::failure::{Failure, Outcome, at, while_doing};
use crate::report::{self, Table, Unit};
use crate::server::RunningServer;
use crate::statistics::Series;

/// Sizes of blobs, and how many are read in a round.
const SIZES: [(usize, usize); 2] = [(64 << 10, 400), (16 << 20, 8)];
const TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that do not compress.
fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(next).collect()
}

/// A server that sends one file to whoever asks, the kernel doing the copying: what a web server
/// does at its best. It ends when its only client hangs up.
fn send_file(listener: &TcpListener, path: &Path) -> io::Result<()> {
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n").as_bytes())?;
        io::copy(&mut file, &mut stream)?;
    }
}

struct Blob {
    path: String,
    file: PathBuf,
    size: usize,
    count: usize,
}

impl Blob {
    fn rate(&self, start: Instant) -> f64 {
        (self.size * self.count) as f64 / f64::from(1 << 20) / start.elapsed().as_secs_f64()
    }

    /// MiB in a second through a connection.
    fn fetched(&self, client: &mut Client) -> Outcome<f64> {
        let start = Instant::now();
        for _ in 0..self.count {
            let fetched = client.fetch(&self.path, self.size as u64, &mut io::sink(), TIMEOUT);
            fetched.map_err(failed)?;
        }
        Ok(self.rate(start))
    }

    /// MiB in a second from the file.
    fn read(&self) -> Outcome<f64> {
        let mut buffer = vec![0; 256 << 10];
        let start = Instant::now();
        for _ in 0..self.count {
            let mut file = File::open(&self.file).map_err(at(&self.file))?;
            while file.read(&mut buffer).map_err(at(&self.file))? > 0 {}
        }
        Ok(self.rate(start))
    }
}

fn failed(error: ClientError) -> Failure {
    Failure::NotMeasured(format!("a blob: {error}"))
}

/// Measures, in rounds that alternate between the three ways.
///
/// # Errors
/// When a server fails.
pub fn run(program: &Path, dir: &Path, rounds: usize) -> Outcome<()> {
    report::progress(&format!("server: {rounds} rounds of blobs"));
    let server = RunningServer::on_tcp(program, &dir.join("blobs"))?;
    let mut table = Table::new("Server: blobs over TCP, one connection");
    for (size, count) in SIZES {
        let content = bytes(size);
        let path = format!("/v1/blobs/{}", Digest::of(&content));
        let file = dir.join(format!("blob-{size}"));
        fs::write(&file, &content).map_err(at(&file))?;
        let blob = Blob { path, file, size, count };
        let put =
            server.connect()?.upload(&blob.path, size as u64, &mut content.as_slice(), TIMEOUT);
        put.map_err(failed)?;
        measure(&server, &blob, rounds, &mut table)?;
    }
    server.memory_row(&mut table, "after the load");
    table.note("nginx: not measured. What Kiln is compared with sends the file by `sendfile` and does nothing else.");
    table.print();
    Ok(())
}

fn measure(server: &RunningServer, blob: &Blob, rounds: usize, table: &mut Table) -> Outcome<()> {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|l| Ok((l.local_addr()?, l)));
    let (address, listener) = bound.map_err(while_doing("listening"))?;
    let (mut kiln, mut sent, mut read) = (Series::default(), Series::default(), Series::default());
    std::thread::scope(|scope| {
        // It ends with the connection; what went wrong shows at the client.
        scope.spawn(|| send_file(&listener, &blob.file));
        let other = Client::connect(&Address::Tcp(address.to_string()));
        // Without a client the thread would wait for one for ever.
        let mut other = other.inspect_err(|_| drop(TcpStream::connect(address))).map_err(failed)?;
        let mut client = server.connect()?;
        for _ in 0..rounds {
            kiln.push(blob.fetched(&mut client)?);
            sent.push(blob.fetched(&mut other)?);
            read.push(blob.read()?);
        }
        Ok(())
    })?;
    let kib = blob.size >> 10;
    table.row(&format!("{kib} KiB: kiln's rate / sendfile's"), Unit::Ratio, &kiln.over(&sent));
    table.row(
        &format!("{kib} KiB: kiln's rate / reading the file"),
        Unit::Ratio,
        &kiln.over(&read),
    );
    table.row(&format!("{kib} KiB: kiln"), Unit::MebibytesPerSecond, &kiln);
    table.row(&format!("{kib} KiB: sendfile"), Unit::MebibytesPerSecond, &sent);
    table.row(&format!("{kib} KiB: reading the file"), Unit::MebibytesPerSecond, &read);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_do_not_repeat() {
        let all = bytes(4096);
        assert_eq!(all, bytes(4096), "the same in every run");
        assert_ne!(all[..64], all[64..128]);
        let mut seen: Vec<u8> = all.clone();
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() > 200, "{} different bytes", seen.len());
    }

    #[test]
    fn the_file_server_sends_the_file_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "content").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        std::thread::scope(|scope| {
            scope.spawn(|| send_file(&listener, &file).unwrap());
            let mut client = Client::connect(&address).unwrap();
            for _ in 0..2 {
                let mut got = Vec::new();
                client.fetch("/x", 7, &mut got, TIMEOUT).unwrap();
                assert_eq!(got, b"content");
            }
        });
    }
}
