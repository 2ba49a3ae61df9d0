//! [`Timed`]: a socket on which a whole question has a time, and not each call of it: who sends a byte now and then is
//! as late as who says nothing. And [`addresses`]: those of a name, within a time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::limits::NAME_TIMEOUT;

/// What is left when the time is up: what is there already is read, as by a process that was stopped meanwhile.
const LAST: Duration = Duration::from_millis(1);

/// A socket whose calls can be bounded.
pub(super) trait Socket: Read + Write {
    fn read_within(&self, time: Duration) -> io::Result<()>;
    fn write_within(&self, time: Duration) -> io::Result<()>;
}

impl Socket for UnixStream {
    fn read_within(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }

    fn write_within(&self, time: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(time))
    }
}

impl Socket for TcpStream {
    fn read_within(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }

    fn write_within(&self, time: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(time))
    }
}

/// A socket with a point in time until which all that is asked of it has to be done.
#[derive(Debug)]
pub(super) struct Timed<S> {
    socket: S,
    until: Instant,
}

impl<S> Timed<S> {
    /// Its time is up until it is given some.
    pub(super) fn new(socket: S) -> Self {
        Self { socket, until: Instant::now() }
    }

    /// From now on it has so long.
    pub(super) fn within(&mut self, time: Duration) {
        self.until = Instant::now() + time;
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now()).max(LAST)
    }
}

impl<S: Socket> Read for Timed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read_within(self.left())?;
        self.socket.read(buffer)
    }
}

impl<S: Socket> Write for Timed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write_within(self.left())?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// The addresses behind `host:port`. The system's own way to look a name up may take half a minute: it does that in a
/// thread, which is left behind when it takes too long.
pub(super) fn addresses(host: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let (sender, found) = mpsc::channel();
    let name = host.to_owned();
    let look = move || {
        let _ = sender.send(name.to_socket_addrs().map(Vec::from_iter));
    };
    std::thread::Builder::new().spawn(look)?;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the name is not looked up in time");
    found.recv_timeout(NAME_TIMEOUT).map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_a_byte_now_and_then_is_late() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let drips = std::thread::spawn(move || {
            while there.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let mut timed = Timed::new(here);
        timed.within(Duration::from_millis(200));
        let error = timed.read_exact(&mut [0; 1_000]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(timed);
        drips.join().unwrap();
    }

    #[test]
    fn what_is_there_when_the_time_is_up_is_read() {
        let (here, mut there) = UnixStream::pair().unwrap();
        there.write_all(b"late").unwrap();
        let mut timed = Timed::new(here);
        let mut bytes = [0; 4];
        timed.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"late");
    }

    #[test]
    fn an_address_needs_no_looking_up() {
        assert_eq!(addresses("127.0.0.1:80").unwrap(), ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(addresses("[::1]:80").unwrap(), ["[::1]:80".parse().unwrap()]);
        assert!(!addresses("localhost:80").unwrap().is_empty());
    }
}
